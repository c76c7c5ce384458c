"""How long it takes from the start of a run to the end of its first step, by the place in the epoch where it goes on.

    python -m benchmarks.resume
    python -m benchmarks.resume --users 500 --items 1000 --interactions 5000 --repeats 2

Prints one line of JSON: the median of the seconds at 1 %, 50 % and 99 % of an epoch. Imports are paid for before; the
rest of a start is all there: the dataset is opened, the checkpoint verified and read, the batch of the step prepared.
The loss is one over 64 sampled items: over the whole catalogue, a step with long windows, as those in the middle of
this epoch happen to be, takes longer than all the rest.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from benchmarks.checkpoint import a_run, with_sizes
from launch.strategy import asked
from launch.train import execute, made
from rec.config.tree import LossWeights, Run
from rec.data.dataset import Dataset
from rec.data.feed import Feed
from rec.models import view
from rec.ranks import Ranks
from rec.train import loop, trackers  # noqa: F401  (paid for before the fork)
from rec.train.hold import Hold
from rec.train.keeper import Keeper
from rec.train.progress import Progress
from rec.train.status import Status
from rec.train.strategies import build

PLACES = {"1%": 0.01, "50%": 0.5, "99%": 0.99}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = with_sizes(parser, repeats=5)
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    with tempfile.TemporaryDirectory() as folder:
        run = quick(a_run(Path(folder), sizes))
        steps = steps_of_an_epoch(run)
        runs = {name: saved_after(run, name, max(1, round(share * steps))) for name, share in PLACES.items()}
        seconds: dict[str, list[float]] = {name: [] for name in PLACES}
        for repetition in range(sizes["repeats"] + 1):
            for name, (one, step) in runs.items():
                seconds[name] += [first_step(one, step)] * (repetition > 0)
    found = {name: {"step": runs[name][1], "seconds": round(median(took), 3)} for name, took in seconds.items()}
    print(json.dumps({"benchmark": "resume", **sizes, "cores": os.cpu_count(), "steps of an epoch": steps, **found}))


def quick(run: Run) -> Run:
    """The same run with a loss that takes little time, whatever the length of the windows."""
    sampled = replace(run.model, loss=LossWeights(cross_entropy=0.0, sampled_softmax=1.0))
    return replace(run, model=sampled, data=replace(run.data, negatives=64))


def steps_of_an_epoch(run: Run) -> int:
    feed = Feed(view(run, Dataset.open(run.dataset)), run.data, seed=run.seed, ranks=Ranks())
    feed.close()
    return feed.windows // run.data.global_batch


def saved_after(run: Run, name: str, step: int) -> tuple[Run, int]:
    """A run with a checkpoint that says so many steps are done; to load it costs what it would after real ones.

    The step after these is its last: nothing goes ahead of it.
    """
    run, ranks = replace(run, name=name, train=replace(run.train, steps=step + 1)), Ranks()
    status, dataset = Status(run.folder, steps=run.train.steps, first=True), Dataset.open(run.dataset)
    with Hold(run.folder, ranks), Keeper(run, dataset, ranks, status) as keeper:
        engine = build(asked("single", ranks, run), run, ranks)
        engine.prepare(made(run, dataset, Ranks(), fresh=True), run.optim)
        keeper.save(engine, Progress(step=step), best=False)
    return run, step


def first_step(run: Run, step: int) -> float:
    """Seconds from the start to the end of the step after `step`, in a process that is killed then."""
    file = run.folder / "metrics.jsonl"
    file.unlink(missing_ok=True)
    begun = time.time()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(execute(run))
    line = next(lines(file))
    os.kill(child, 9)
    os.waitpid(child, 0)
    if line["step"] != step + 1:
        raise AssertionError(f"went on with step {line['step']} instead of {step + 1}")
    return float(line["time"]) - begun


def lines(file: Path) -> Iterator[dict[str, float]]:
    """Of a file that is being written, as they come."""
    while not (file.is_file() and file.read_text().endswith("\n")):
        time.sleep(0.005)
    yield from map(json.loads, file.read_text().splitlines())


if __name__ == "__main__":
    main()
