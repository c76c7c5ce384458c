"""`kindling train CONFIG [key=value ...]`: train, or go on with, a run on any number of processes."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from launch.command import DONE, FAILED, STOPPED, code_of, command

if TYPE_CHECKING:
    from rec.config.tree import Run
    from rec.data.dataset import Dataset
    from rec.data.feed import Feed
    from rec.models.base import Recommender
    from rec.ranks import Ranks
    from rec.train.status import Status
    from rec.train.stop import Stop


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kindling train", description="Train a run, or go on with it.")
    parser.add_argument("config", type=Path, help="YAML file of the run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace those of the file")
    parser.add_argument("--stage", type=Path, metavar="FOLDER", help="read the dataset from a copy on this node")
    parser.add_argument("--print-folder", action="store_true", help="print the folder of the run, and do nothing else")
    return parser.parse_args()


@command
def main() -> int:
    """Trains from where the run folder stands; the same command typed again goes on."""
    from rec.train.stop import Stop

    with Stop() as stop:
        given = arguments()
        from rec.config.load import load

        run = load(given.config, given.overrides)
        if given.print_folder:
            print(run.folder)
            return DONE
        return for_the_launcher(execute(run, stop, stage=given.stage))


def for_the_launcher(code: int) -> int:
    """The exit code as a launcher should see it: one that starts again what failed takes a stop for a failure.

    To such a launcher a stop is a success; RUN/status.json tells them apart.
    """
    return DONE if code == STOPPED and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) else code


def execute(run: "Run", stop: "Stop | None" = None, *, stage: Path | None = None) -> int:
    """A run from its start to its last word in RUN/status.json; its exit code.

    Signals are heard from the construction of `stop` on; without one, from here on. With `stage`, the dataset is read
    from a copy below that folder; in all records it is where the run says.
    """
    from rec import ranks as world
    from rec.train.nonfinite import NotFinite
    from rec.train.status import Status
    from rec.train.stop import Stop

    if stop is None:
        with Stop() as stop:
            return execute(run, stop, stage=stage)
    ranks = world.from_environment()
    status = Status(run.folder, steps=run.train.steps, first=ranks.first)
    stop.watch(status, grace=run.train.grace, restarted=world.restarts() > 0)
    try:
        finished = work(run, ranks, stop, status, stage)
    except NotFinite as error:
        status.end("failed", FAILED)
        print(f"kindling train: {error}", file=sys.stderr)
        return FAILED
    except BaseException as error:
        status.end("failed", code_of(error))
        raise
    code = DONE if finished else STOPPED
    status.end("done" if finished else "stopped", code)
    ranks.barrier()  # a launcher ends the others as soon as the first has left with another code than 0
    world.leave()
    return code


def work(run: "Run", ranks: "Ranks", stop: "Stop", status: "Status", stage: Path | None) -> bool:
    """A run, whole; whether it got to its end. What can be wrong is checked before memory is spent on the model."""
    import torch

    from rec.data import staging
    from rec.data.dataset import Dataset
    from rec.data.feed import Feed
    from rec.eval.evaluate import validation
    from rec.models import build
    from rec.report import Report
    from rec.train import trackers
    from rec.train.engine import Engine
    from rec.train.keeper import Keeper
    from rec.train.loop import train
    from rec.train.optim import build_optimizer

    dataset = Dataset.open(run.dataset if stage is None else staging.stage(run.dataset, stage))
    check(run, dataset)
    feed = Feed(dataset, run.data, predict_first=run.model.predict_first, seed=run.seed, ranks=ranks)
    engine = Engine(run.train.precision, ranks)
    keeper = Keeper(run, dataset, ranks, status)
    status.running()  # the folder is there now

    torch.manual_seed(run.seed)
    model = build(run.model, users=dataset.users, items=dataset.items)
    model.require_room(run.data.max_items)
    if keeper.newest is None:
        model.start(dataset)
    engine.prepare(model, build_optimizer(model, run.optim))
    progress = keeper.restore(engine)
    status.running(progress.step)

    outside = trackers.start(run, progress.step + 1, progress.trackers) if ranks.first else []
    progress.trackers = trackers.identifiers(outside)
    report = Report(
        run.folder, steps=run.train.steps, start=progress.step, first=ranks.first, owed=progress.owed, trackers=outside
    )
    report.say(describe(run, model, feed, progress.step))
    try:
        finished = train(
            run,
            engine,
            feed,
            validate=lambda: validation(
                engine.model,
                dataset,
                config=run.eval,
                max_items=run.data.max_items,
                ranks=ranks,
                device=engine.device,
                asked=lambda: stop.asked,
            ),
            keeper=keeper,
            report=report,
            stop=stop,
            progress=progress,
        )
    finally:
        feed.close()
        report.close()
    best = "not evaluated"
    if progress.best is not None:
        best = f"best {run.eval.select} {progress.best:.4f} at step {progress.best_step}"
    how = "done" if finished else "stopped and saved; the same command goes on"
    report.say(f"{how}: step {progress.step}, {best}; the run is in {run.folder}")
    return finished


def check(run: "Run", dataset: "Dataset") -> None:
    """Raises what would otherwise stop the run at its first evaluation."""
    from rec.errors import DatasetError
    from rec.eval.metrics import parse_all

    parse_all((run.eval.select, *run.eval.metrics))
    if not len(dataset.queries("valid")):
        raise DatasetError(
            f"{dataset.root} has no targets in the split 'valid', which chooses the best checkpoint; "
            "prepare it with another --split or --split-at"
        )


def describe(run: "Run", model: "Recommender", feed: "Feed", start: int) -> str:
    """The arithmetic of a run, before its first step."""
    everything = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    windows, batch, world = feed.windows, run.data.global_batch, feed.ranks.world
    accumulated = batch // (run.data.micro_batch * world)
    lines = [
        f"{run.name}: {feed.dataset.users:,} users, {feed.dataset.items:,} items, split {feed.dataset.split_name}, "
        f"dataset {feed.dataset.fingerprint[:12]}",
        f"{everything:,} parameters, {trained:,} trained; {windows:,} windows, {feed.targets:,} targets",
        f"a step of {batch} windows = {accumulated} micro-batches of {run.data.micro_batch} on {world} processes; "
        f"{run.train.steps:,} steps = {run.train.steps * batch / windows:.1f} epochs",
    ]
    return "\n".join(lines + [f"going on from step {start:,}"] * (start > 0))


if __name__ == "__main__":
    sys.exit(main())
