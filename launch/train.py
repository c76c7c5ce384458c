"""`kindling train CONFIG [key=value ...]`: train, or go on with, a run on any number of processes."""

import argparse
import os
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from launch.command import DONE, FAILED, STOPPED, add_profile, code_of, command
from launch.strategy import NAMES

if TYPE_CHECKING:
    from rec.config.tree import Run
    from rec.data.dataset import Dataset
    from rec.models.base import Recommender
    from rec.ranks import Ranks
    from rec.report import Report
    from rec.train.progress import Progress
    from rec.train.status import Status
    from rec.train.stop import Stop
    from rec.train.strategies.engine import Engine


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kindling train", description="Train a run, or go on with it.")
    parser.add_argument("config", type=Path, help="YAML file of the run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace those of the file")
    parser.add_argument(
        "--strategy",
        help=f"{', '.join(NAMES)}, or a DeepSpeed JSON file; without it, what `accelerate launch` asks for, else ddp",
    )
    parser.add_argument("--stage", type=Path, metavar="FOLDER", help="read the dataset from a copy on this node")
    parser.add_argument("--print-folder", action="store_true", help="print the folder of the run, and do nothing else")
    add_profile(parser)
    return parser.parse_intermixed_args()


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
        return for_the_launcher(execute(run, given.strategy, given.stage, stop, given.profile))


def for_the_launcher(code: int) -> int:
    """The exit code as a launcher should see it: one that starts again what failed takes a stop for a failure.

    To such a launcher a stop is a success; RUN/status.json tells them apart.
    """
    return DONE if code == STOPPED and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) else code


def execute(
    run: "Run",
    strategy: str | None = None,
    stage: Path | None = None,
    stop: "Stop | None" = None,
    profile: int = 0,
) -> int:
    """A run from its start to its last word in RUN/status.json; its exit code.

    Signals are heard from the construction of `stop` on; without one, from here on.

    Args:
        strategy: what the command line says of it.
        stage: a folder below which the dataset is copied and read; in all records it is where the run says.
        profile: how many steps, after three, are taken apart in RUN/profile.
    """
    from rec import ranks as world
    from rec.train.hold import Hold
    from rec.train.stop import Stop

    if stop is None:
        with Stop() as stop:
            return execute(run, strategy, stage, stop, profile)
    ranks = world.from_environment()
    world.join(ranks, run.train.hang_after)
    with Hold(run.folder, ranks):
        code = outcome(run, strategy, stage, ranks, stop, profile)
        ranks.gather(None)  # a launcher ends the others as soon as the first has left with another code than 0
    world.leave()
    return code


def outcome(run: "Run", strategy: str | None, stage: Path | None, ranks: "Ranks", stop: "Stop", profile: int) -> int:
    """The exit code of a run that no other job has; RUN/status.json says the same."""
    from launch.strategy import asked
    from launch.words import NOTHING_BEGUN, tell
    from rec import ranks as world
    from rec.eval.interrupt import Interrupted
    from rec.train.agreement import facts, require_agreement
    from rec.train.nonfinite import NotFinite
    from rec.train.status import Status
    from rec.train.strategies import build

    status = Status(run.folder, steps=run.train.steps, first=ranks.first)
    stop.watch(status, grace=run.train.grace, restarted=world.restarts() > 0)
    try:
        chosen = ranks.together(lambda: asked(strategy, ranks, run))
        dataset = ranks.together(lambda: opened(run, stage))
        require_agreement(ranks, {**facts(run, dataset), "--strategy": chosen})
        engine = ranks.together(lambda: build(chosen, run, ranks))
        finished = work(run, dataset, engine, stop, status, profile)
    except Interrupted:
        finished = False
        tell(ranks, NOTHING_BEGUN)
    except NotFinite as error:
        status.end("failed", FAILED)
        print(f"kindling train: {error}", file=sys.stderr)
        return FAILED
    except BaseException as error:
        status.end("failed", code_of(error))
        raise
    code = DONE if finished else STOPPED
    status.end("done" if finished else "stopped", code)
    return code


def work(run: "Run", dataset: "Dataset", engine: "Engine", stop: "Stop", status: "Status", profile: int) -> bool:
    """A run, whole; whether it got to its end. What can be wrong is checked before memory is spent on the model.

    Raises:
        Interrupted: on every rank, if one was asked to stop before the first step.
    """
    from launch.words import EMULATED, arithmetic, building, emulates, reading, tell
    from rec.data.feed import Feed
    from rec.eval.evaluate import validation
    from rec.eval.interrupt import give_up_if
    from rec.models import view
    from rec.train.keeper import Keeper
    from rec.train.loop import train
    from rec.train.profile import profiling

    ranks = engine.ranks
    heed = partial(give_up_if, lambda: stop.asked, ranks, engine.device)
    if emulates(run.train.precision, engine.device):
        tell(ranks, EMULATED)
    tell(ranks, reading(run))
    gpu = engine.device.index if engine.device.type == "cuda" else None
    feed = ranks.together(lambda: Feed(view(run, dataset), run.data, seed=run.seed, ranks=ranks, gpu=gpu))
    with closing(feed), Keeper(run, dataset, ranks, status) as keeper:
        heed()
        tell(ranks, building(run, dataset, keeper.newest))
        model = ranks.together(lambda: made(run, dataset, ranks, fresh=keeper.newest is None))
        sums = arithmetic(run, engine.name, model, feed)
        engine.prepare(model, run.optim)
        progress = keeper.restore(engine)
        heed()
        stop.steps_begin()
        status.running(progress.step)

        report = ranks.together(lambda: reporting(run, progress, first=ranks.first))
        with closing(report):
            report.say(sums)
            if progress.step:
                report.say(f"going on from step {progress.step:,}")
            validate = partial(
                validation,
                engine.model,
                dataset,
                config=run.eval,
                max_items=run.data.max_items,
                ranks=ranks,
                device=engine.device,
                seed=run.seed,
                asked=lambda: stop.asked or keeper.failed,
            )
            with profiling(run.folder / "profile", profile, progress.step, first=ranks.first) as profiler:
                finished = train(run, engine, feed, validate, keeper, report, stop, progress, profiler)
            if profiler is not None:
                report.say(profiler.said)
            ranks.first_only(report.require_written)
    best = "not evaluated"
    if progress.best is not None:
        best = f"best {run.eval.select} {progress.best:.4f} at step {progress.best_step}"
    how = "done" if finished else "stopped and saved; the same command goes on"
    report.say(f"{how}: step {progress.step}, {best}; the run is in {run.folder}")
    return finished


def reporting(run: "Run", progress: "Progress", *, first: bool) -> "Report":
    """What the run says from here on, to its trackers as well: on the first rank."""
    from rec.report import Report
    from rec.train import trackers

    outside = trackers.start(run, progress.step, owed=progress.owed) if first else []
    return Report(
        run.folder, steps=run.train.steps, start=progress.step, first=first, owed=progress.owed, trackers=outside
    )


def made(run: "Run", dataset: "Dataset", ranks: "Ranks", *, fresh: bool) -> "Recommender":
    """The run's model; as it starts, unless a checkpoint follows."""
    from rec.models import build, graph_of
    from rec.models.saved import start_from
    from rec.train import random

    random.seed(run.seed)
    weights, graph = fresh and run.init_from is None, graph_of(run, dataset)
    model = build(run.model, users=dataset.users, items=dataset.items, graph=graph, weights=weights, exchange=ranks)
    model.require_room(run.data.max_items)
    if fresh and run.init_from is not None:
        start_from(run.init_from, model, dataset)
    elif fresh:
        model.start(dataset)
    return model


def opened(run: "Run", stage: Path | None) -> "Dataset":
    """The run's dataset. Raises what would otherwise stop the run later, at its first evaluation at the latest."""
    from rec.data import staging
    from rec.data.dataset import Dataset
    from rec.errors import DatasetError
    from rec.eval.metrics import parse_all
    from rec.models import require_readable

    dataset = Dataset.open(run.dataset if stage is None else staging.stage(run.dataset, stage))
    require_readable(run, dataset)
    parse_all((run.eval.select, *run.eval.metrics))
    if not len(dataset.queries("valid")):
        raise DatasetError(
            f"{dataset.root} has no targets in the split 'valid', which chooses the best checkpoint; "
            "prepare it with another --split or --split-at"
        )
    return dataset


if __name__ == "__main__":
    sys.exit(main())
