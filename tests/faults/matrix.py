"""Strategy x backbone x what can happen to a run: each a real run, compared with the one that nothing happened to."""

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launch.command import DONE, STOPPED
from rec.config.tree import Run
from rec.data.dataset import Dataset
from tests.faults.compare import deviations, differences, last, notes, unequal, unwell, windows
from tests.faults.kill import MOST_SECONDS, Aim, reach, strike, whole
from tests.faults.runs import STEPS, STRATEGIES, Case, make_run
from tests.faults.start import Start

ARCHITECTURES = ("gpt2", "qwen3")
RESIZES = ((1, 2), (2, 1), (2, 4), (4, 2))
TOLERANCE, LOOSER = 1e-5, 1e-4
"""Relative, of a run that does not stay on the same ranks under the same strategy: of losses; and of the gradient's
norm, a sum of 126,000 squares in fp32 that each strategy cuts elsewhere, and of validation metrics, which jump where two
items whose scores are all but equal change places."""
NEXT = {"single": "zero2", "ddp": "zero1", "zero1": "zero2", "zero2": "zero3", "zero3": "fsdp2", "fsdp2": "ddp"}
"""Strategy -> the one that a run of it is moved to."""
Cell = dict[str, Any]
"""strategy, architecture, event, deviation of losses and of the rest (None: bits are compared), fault (or None)."""


def cells(dataset: Dataset, folder: Path, references: Mapping[Case, Run]) -> Iterator[Cell]:
    """Every event of every case; `references` are the undisturbed runs of all of them."""
    for case, reference in references.items():
        out, to = folder / f"matrix-{case}", NEXT[case.strategy]
        alone = references.get(Case("single", case.architecture, 1)) or alone_run(dataset, folder, case.architecture)
        yield trained(case, reference, alone)
        yield killed(case, make_run(dataset, out / "killed", case), reference)
        yield stopped(case, make_run(dataset, out / "stopped", case), reference)
        for before, after in RESIZES if case.strategy != "single" else ():
            first, then = on_ranks(case, before), on_ranks(case, after)
            run = make_run(dataset, out / f"{before} to {after}", first, keep=STEPS)
            yield {**moved(f"{before} to {after} ranks", first, then, run, alone), "strategy": case.strategy}
        run = make_run(dataset, out / "moved", case, keep=STEPS)
        gone_on = moved("to another strategy", case, Case(to, case.architecture, STRATEGIES[to]), run, alone)
        yield {**gone_on, "then": to}


def on_ranks(case: Case, world: int) -> Case:
    """One rank is a single process, which no strategy divides."""
    return case._replace(world=world, strategy="single" if world == 1 else case.strategy)


def alone_run(dataset: Dataset, folder: Path, architecture: str) -> Run:
    """One process without a launcher: the curve that all others have to follow."""
    case = Case("single", architecture, 1)
    run = make_run(dataset, folder / f"alone-{architecture}", case)
    if not run.folder.is_dir():
        whole(run, case)
    return run


def trained(case: Case, reference: Run, alone: Run) -> Cell:
    """Several ranks follow the curve of one process."""
    return cell(case, "train", **followed(reference, alone))


def killed(case: Case, run: Run, reference: Run) -> Cell:
    """Killed while it trains after its second save, all ranks at once; goes on bit for bit."""
    aim = Aim("renamed", 0.02, 2, tuple(range(case.world)))
    hit = strike(Start(run, case, notes(run) / "first"), aim)
    fault = None if hit else "the kill came too late"
    return cell(case, "kill", fault or finish(run, case, reference))


def stopped(case: Case, run: Run, reference: Run) -> Cell:
    """Stopped twice by a signal to one rank; goes on bit for bit."""
    for number in (1, 2):
        start = Start(run, case, notes(run) / f"stopped-{number}")
        if fault := stop(start):
            return cell(case, "stop", fault)
    return cell(case, "stop", finish(run, case, reference))


def moved(event: str, first: Case, then: Case, run: Run, alone: Run) -> Cell:
    """Stopped, and gone on with by others: they hold what was saved, read what one process reads, and follow it."""
    if fault := stop(Start(run, first, notes(run) / "first")):
        return cell(first, event, fault)
    saved = last(run)
    start = Start(run, then, notes(run) / "second", restored=True)
    start.wait(MOST_SECONDS)
    if set(start.codes.values()) != {DONE}:
        return cell(first, event, f"ended with the codes {start.codes}: {start.said()[-300:]}")
    if changed := unequal(start.notes / "restored", saved):
        return cell(first, event, f"restored otherwise than saved: {', '.join(changed)}")
    return cell(first, event, **followed(run, alone))


def finish(run: Run, case: Case, reference: Run) -> str | None:
    """Goes on to the end; what is not as in the undisturbed run."""
    start = Start(run, case, notes(run) / "last")
    start.wait(MOST_SECONDS)
    return "; ".join(differences(run, reference)) or None


def stop(start: Start) -> str | None:
    """Asks the last rank alone to stop, after the first save of this start; what was wrong with that."""
    ranks = list(start.pids)
    if not reach(start, Aim("renamed", 0.0, 1, tuple(ranks))):
        return f"ended before it could be stopped, with the codes {start.codes}"
    start.kill(ranks[-1:], signal.SIGUSR1)
    start.wait(MOST_SECONDS)
    return None if set(start.codes.values()) == {STOPPED} else f"asked to stop, ended with the codes {start.codes}"


def followed(run: Run, alone: Run) -> Cell:
    """How far a run deviates from the curve of one process, and what is more than that."""
    (expected,) = windows(alone).values()
    starts = windows(run)
    astray = [step for read in starts.values() for step, keys in read.items() if keys != expected[step]]
    missing = expected.keys() - {step for read in starts.values() for step in read}
    losses, rest = deviations(run, alone)
    faults = [f"read other windows in the steps {astray}"] * bool(astray)
    faults += [f"never read the steps {sorted(missing)}"] * bool(missing)
    faults += [f"losses deviate by {losses:g}, the rest by {rest:g}"] * (losses > TOLERANCE or rest > LOOSER)
    return {"losses": losses, "rest": rest, "fault": "; ".join([*faults, *unwell(run)]) or None}


def cell(case: Case, event: str, fault: str | None, losses: float | None = None, rest: float | None = None) -> Cell:
    about = {"strategy": case.strategy, "architecture": case.architecture, "event": event}
    return {**about, "losses": losses, "rest": rest, "fault": fault}
