"""How long a save takes, how long training waits for it, and how long a load takes, beside torch.save and torch.load.

    python -m benchmarks.checkpoint
    python -m benchmarks.checkpoint --users 500 --items 1000 --interactions 5000 --repeats 3

Prints a line of JSON each for saving and loading. A save here writes parameters and moments and brings them to the disk
with their checksums; the reference is torch.save of the same tensors into one file, without and with fsync. A load here
reads everything twice, once for the checksums; the reference is torch.load, and a copy into the same tensors. Each
repetition does one after the other; given are medians, and in `ratios` the medians of the ratios of a repetition.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from launch.strategy import asked
from launch.train import made
from rec.config.tree import Backbone, Data, Run, SoftToken, Train
from rec.data.dataset import Dataset
from rec.files import sync
from rec.ranks import Ranks
from rec.train.hold import Hold
from rec.train.keeper import Keeper
from rec.train.progress import Progress
from rec.train.status import Status
from rec.train.strategies import build
from rec.train.strategies.engine import Engine

SHAPE: dict[str, int | float | str | bool] = {
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 64,
    "vocab_size": 8,
}
Seconds = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = with_sizes(parser, repeats=9)
    with tempfile.TemporaryDirectory() as folder:
        run = a_run(Path(folder), sizes)
        ranks, dataset = Ranks(), Dataset.open(run.dataset)
        status = Status(run.folder, steps=run.train.steps, first=True)
        with Hold(run.folder, ranks), Keeper(run, dataset, ranks, status) as keeper:
            engine = build(asked("single", ranks, run), run, ranks)
            engine.prepare(made(run, dataset, fresh=True), run.optim)
            megabytes = sum(value.nbytes for value in contents(engine).values()) / 1e6
            about = {"megabytes": round(megabytes, 1), "cores": os.cpu_count(), **sizes}
            tell("save", about, saved(keeper, engine, Path(folder) / "plain.pt", sizes["repeats"]), "torch_save")
            tell("load", about, loaded(keeper, engine, Path(folder) / "plain.pt", sizes["repeats"]), "torch_load")


def with_sizes(parser: argparse.ArgumentParser, repeats: int) -> dict[str, int]:
    """The sizes of the log and how often each thing is measured, from the command line."""
    sizes = {"users": 50_000, "items": 100_000, "interactions": 1_000_000, "repeats": repeats}
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    return vars(parser.parse_args())


def a_run(folder: Path, sizes: dict[str, int]) -> Run:
    """A run on a synthetic log, which this makes and prepares."""
    log, dataset = folder / "log.csv", folder / "dataset"
    kindling = [sys.executable, "-m", "launch"]
    words = [word for name in ("users", "items", "interactions") for word in (f"--{name}", str(sizes[name]))]
    subprocess.run([*kindling, "synthesize", *words, "--out", str(log)], check=True, stdout=sys.stderr)
    prepare = [*kindling, "prepare", str(log), "--format", "csv", "--out", str(dataset)]
    subprocess.run(prepare, check=True, stdout=sys.stderr)
    return Run(
        name="run",
        dataset=dataset,
        out=folder / "runs",
        model=SoftToken(backbone=Backbone(architecture="gpt2", config=SHAPE), dim=64),
        data=Data(global_batch=64, micro_batch=64, max_items=20),
        train=Train(steps=1_000_000, log_every=1, save_every=1_000_000, trackers=()),
    )


def contents(engine: Engine) -> dict[str, torch.Tensor]:
    return {piece.key: piece.values for piece in engine.pieces()}


def saved(keeper: Keeper, engine: Engine, plain: Path, repeats: int) -> Seconds:
    seconds: Seconds = {"save": [], "waiting": [], "torch_save": [], "torch_save_fsync": []}
    for step in range(1, repeats + 2):  # the first one pays for memory and does not count
        begun = time.perf_counter()
        keeper.save(engine, Progress(step=step), best=False)
        waiting = time.perf_counter() - begun
        keeper.wait()
        took = {"save": time.perf_counter() - begun, "waiting": waiting}
        took["torch_save"] = timed(lambda: torch.save(contents(engine), plain))
        took["torch_save_fsync"] = took["torch_save"] + timed(lambda: sync(plain))
        note(seconds, took, step)
    return seconds


def loaded(keeper: Keeper, engine: Engine, plain: Path, repeats: int) -> Seconds:
    def newest() -> None:
        keeper.newest = keeper.checkpoints.newest(print)

    def reference() -> None:
        for key, values in torch.load(plain).items():
            live[key].copy_(values)

    live = contents(engine)
    seconds: Seconds = {"load": [], "verify": [], "torch_load": []}
    for step in range(1, repeats + 2):
        took = {"verify": timed(newest)}
        took["load"] = took["verify"] + timed(lambda: keeper.restore(engine))
        took["torch_load"] = timed(reference)
        note(seconds, took, step)
    return seconds


def timed(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def note(seconds: Seconds, took: dict[str, float], step: int) -> None:
    for name, value in took.items():
        seconds[name] += [value] * (step > 1)


def tell(what: str, about: dict[str, object], seconds: Seconds, reference: str) -> None:
    medians = {name: round(median(values), 4) for name, values in seconds.items()}
    ratios = {
        name: round(median(one / other for one, other in zip(values, seconds[reference], strict=True)), 2)
        for name, values in seconds.items()
    }
    print(json.dumps({"benchmark": what, **about, "seconds": medians, "ratios": ratios}), flush=True)


if __name__ == "__main__":
    main()
