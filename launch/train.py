"""`kindling train CONFIG [key=value ...]`: train, or go on with, a run on any number of processes."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from launch.command import DONE, FAILED, STOPPED, command

if TYPE_CHECKING:
    from rec.config.tree import Run
    from rec.data.dataset import Dataset
    from rec.data.feed import Feed
    from rec.models.base import Recommender


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kindling train", description="Train a run, or go on with it.")
    parser.add_argument("config", type=Path, help="YAML file of the run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace those of the file")
    parser.add_argument("--stage", type=Path, metavar="FOLDER", help="read the dataset from a copy on a disk of this node")
    parser.add_argument("--print-folder", action="store_true", help="print the folder of the run, and do nothing else")
    return parser.parse_args()


@command
def main() -> int:
    """Trains from where the run folder stands; the same command typed again goes on."""
    given = arguments()
    from rec.config.load import load

    run = load(given.config, given.overrides)
    if given.print_folder:
        print(run.folder)
        return DONE
    return for_the_launcher(execute(run, given.stage))


def for_the_launcher(code: int) -> int:
    """The exit code as a launcher should see it: one that starts again what failed takes a stop for a failure.

    To such a launcher a stop is a success; `RUN/status.json` tells them apart.
    """
    return DONE if code == STOPPED and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) else code


def execute(run: "Run", stage: Path | None = None) -> int:
    """A run, whole. Whatever can be wrong with it is checked before memory is spent on the model.

    With `stage`, the dataset is read from a copy below that folder; in all records it is where the run says.
    """
    import torch

    from rec import ranks as world
    from rec.data import staging
    from rec.data.dataset import Dataset
    from rec.data.feed import Feed
    from rec.eval.evaluate import validation
    from rec.models import build
    from rec.report import Report
    from rec.train import trackers
    from rec.train.engine import Engine
    from rec.train.keeper import Keeper
    from rec.train.loop import NotFinite, train
    from rec.train.optim import build_optimizer
    from rec.train.stop import Stop

    ranks = world.from_environment()
    dataset = Dataset.open(run.dataset if stage is None else staging.stage(run.dataset, stage))
    check(run, dataset)
    feed = Feed(dataset, run.data, predict_first=run.model.predict_first, seed=run.seed, ranks=ranks)
    engine = Engine(run.train.precision, ranks)
    keeper = Keeper(run, dataset, ranks)
    stop = Stop(run.folder)

    torch.manual_seed(run.seed)
    model = build(run.model, users=dataset.users, items=dataset.items)
    model.require_room(run.data.max_items)
    if keeper.newest is None:
        model.start(dataset)
    engine.prepare(model, build_optimizer(model, run.optim))
    progress = keeper.restore(engine)

    outside = trackers.start(run, progress.step, progress.trackers) if ranks.first else []
    progress.trackers = trackers.identifiers(outside)
    report = Report(run.folder, steps=run.train.steps, start=progress.step, first=ranks.first, trackers=outside)
    report.say(describe(run, model, feed, progress.step))
    try:
        finished = train(
            run,
            engine,
            feed,
            validate=lambda: validation(
                engine.model, dataset, config=run.eval, max_items=run.data.max_items, ranks=ranks, device=engine.device
            ),
            save=lambda best: keeper.save(engine, progress, best=best),
            report=report,
            stop=stop,
            progress=progress,
        )
    except NotFinite as error:
        print(f"kindling train: {error}", file=sys.stderr)
        return FAILED
    finally:
        feed.close()
        report.close()
        stop.close()
    best = "not evaluated"
    if progress.best is not None:
        best = f"best {run.eval.select} {progress.best:.4f} at step {progress.best_step}"
    how = "done" if finished else "stopped and saved; the same command goes on"
    report.say(f"{how}: step {progress.step}, {best}; the run is in {run.folder}")
    world.leave()
    return DONE if finished else STOPPED


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
