"""Strategy x backbone x what can happen to a run: each a real run, compared with the one that nothing happened to."""

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from launch.command import DONE, STOPPED
from rec.config.tree import Run
from rec.data.dataset import Dataset
from tests.faults.compare import deviation, differences, notes, unequal, windows
from tests.faults.kill import MOST_SECONDS, Aim, strike, whole
from tests.faults.runs import STRATEGIES, Case, make_run
from tests.faults.start import Start

ARCHITECTURES = ("gpt2", "qwen3")
RESIZES = ((1, 2), (2, 1), (2, 4), (4, 2))
TOLERANCE = 1e-5
"""Relative, of every measurement of a run that does not stay on the same ranks under the same strategy."""
NEXT = {"single": "zero2", "ddp": "zero1", "zero1": "zero2", "zero2": "zero3", "zero3": "fsdp2", "fsdp2": "ddp"}
"""Strategy -> the one that a run of it is moved to."""
Cell = dict[str, Any]
"""strategy, architecture, event, deviation (0 where bits are compared), fault (None if it passed)."""


def cells(
    dataset: Dataset, folder: Path, references: Mapping[Case, Run], say: Callable[[str], None]
) -> list[Cell]:
    """Every event of every case; `references` are the undisturbed runs of all of them."""
    found: list[Cell] = []
    for case, reference in references.items():
        out = folder / f"matrix-{case}"
        alone = references.get(Case("single", case.architecture, 1)) or alone_run(dataset, folder, case.architecture)
        found.append(trained(case, reference, alone))
        found.append(killed(case, make_run(dataset, out / "killed", case), reference))
        found.append(stopped(case, make_run(dataset, out / "stopped", case), reference))
        for before, after in RESIZES if case.strategy != "single" else ():
            first, then = case._replace(world=before), case._replace(world=after)
            run = make_run(dataset, out / f"{before} to {after}", first)
            found.append(moved(f"{before} to {after} ranks", first, then, run, alone))
        then = Case(NEXT[case.strategy], case.architecture, STRATEGIES[NEXT[case.strategy]])
        found.append(moved("to another strategy", case, then, make_run(dataset, out / "moved", case), alone))
        for cell in found:
            if cell["strategy"] == case.strategy and cell["architecture"] == case.architecture:
                say(f"{case}: {cell['event']}: {cell['fault'] or 'passed'} ({cell['deviation']:.1e})")
    return found


def alone_run(dataset: Dataset, folder: Path, architecture: str) -> Run:
    """One process without a launcher: the curve that all others have to follow."""
    case = Case("single", architecture, 1)
    run = make_run(dataset, folder / f"alone-{architecture}", case)
    if not run.folder.is_dir():
        whole(run, case)
    return run


def trained(case: Case, reference: Run, alone: Run) -> Cell:
    """Several ranks follow the curve of one process."""
    return cell(case, "train", *followed(reference, alone))


def killed(case: Case, run: Run, reference: Run) -> Cell:
    """Killed while it trains after its second save, all ranks at once; goes on bit for bit."""
    aim = Aim("renamed", 0.02, 2, tuple(range(case.world)))
    hit = strike(Start(run, case, notes(run) / "first"), aim)
    fault = None if hit else "the kill came too late"
    return cell(case, "kill", 0.0, fault or finish(run, case, reference))


def stopped(case: Case, run: Run, reference: Run) -> Cell:
    """Stopped twice by a signal to one rank; goes on bit for bit."""
    for number in (1, 2):
        start = Start(run, case, notes(run) / f"stopped-{number}")
        if fault := stop(start, saves=1):
            return cell(case, "stop", 0.0, fault)
    return cell(case, "stop", 0.0, finish(run, case, reference))


def moved(event: str, first: Case, then: Case, run: Run, alone: Run) -> Cell:
    """Stopped, and gone on with by others: they hold what was saved, read what one process reads, and follow it."""
    if fault := stop(Start(run, first, notes(run) / "first"), saves=1):
        return cell(first, event, 0.0, fault)
    saved = max((run.folder / "checkpoints").glob("step-????????"))
    start = Start(run, then, notes(run) / "second", restored=True)
    while not (start.notes / "restored").exists() and start.alive:
        pass
    kept = saved.with_name("kept")
    kept.exists() or saved.rename
    start.wait(MOST_SECONDS)
    return cell(first, event, *followed(run, alone))


def finish(run: Run, case: Case, reference: Run) -> str | None:
    start = Start(run, case, notes(run) / "last")
    start.wait(MOST_SECONDS)
    return "; ".join(differences(run, reference)) or None


def stop(start: Start, saves: int) -> str | None:
    raise ValueError


def followed(run: Run, alone: Run) -> tuple[float, str | None]:
    raise ValueError


def cell(case: Case, event: str, deviation: float, fault: str | None) -> Cell:
    return {
        "strategy": case.strategy,
        "architecture": case.architecture,
        "event": event,
        "deviation": deviation,
        "fault": fault,
    }
