"""How long a save takes, how long training waits for it, and how long a load takes, beside torch.save and torch.load.

    python -m benchmarks.checkpoint
    python -m benchmarks.checkpoint --users 500 --items 1000 --interactions 5000 --repeats 3

A save here writes parameters and moments and brings them to the disk with their checksums; the reference is torch.save
of the same tensors into one file, without and with fsync. A load here reads everything twice, once for the checksums;
the reference is torch.load, and a copy into the same tensors. Each repetition does one after the other.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from benchmarks.measure import Seconds, ratio, tell
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = with_sizes(parser, repeats=9)
    with tempfile.TemporaryDirectory() as folder:
        run = a_run(Path(folder), sizes)
        ranks, dataset = Ranks(), Dataset.open(run.dataset)
        status = Status(run.folder, steps=run.train.steps, first=True)
        with Hold(run.folder, ranks), Keeper(run, dataset, ranks, status) as keeper:
            engine = build(asked("single", ranks, run), run, ranks)
            engine.prepare(made(run, dataset, Ranks(), fresh=True), run.optim)
            about = f"{sum(values.nbytes for values in contents(engine).values()) / 1e6:,.0f} MB"
            seconds = saved(keeper, engine, Path(folder) / "plain.pt", sizes["repeats"])
            compare(seconds, "save", "a save, to the disk with checksums", "torch", "torch.save", 1.3, about)
            disk = "torch.save and fsync"
            compare(seconds, "save", "a save, to the disk with checksums", "torch to the disk", disk, 1.3, about)
            compare(seconds, "waiting", "how long training stops", "torch", "torch.save", 0.333, about)
            seconds = loaded(keeper, engine, Path(folder) / "plain.pt", sizes["repeats"])
            compare(seconds, "load", "checksums compared, and a load", "torch", "torch.load", 1.3, about)


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
    seconds: Seconds = {"save": [], "waiting": [], "torch": [], "torch to the disk": []}
    for step in range(1, repeats + 2):  # the first one pays for memory and does not count
        begun = time.perf_counter()
        keeper.save(engine, Progress(step=step), best=False)
        waiting = time.perf_counter() - begun
        keeper.wait()
        took = {"save": time.perf_counter() - begun, "waiting": waiting}
        took["torch"] = timed(lambda: torch.save(contents(engine), plain))
        took["torch to the disk"] = took["torch"] + timed(lambda: sync(plain))
        note(seconds, took, step)
    return seconds


def loaded(keeper: Keeper, engine: Engine, plain: Path, repeats: int) -> Seconds:
    def newest() -> None:
        keeper.newest = keeper.checkpoints.newest(print)

    def reference() -> None:
        for key, values in torch.load(plain).items():
            live[key].copy_(values)

    live = contents(engine)
    seconds: Seconds = {"load": [], "torch": []}
    for step in range(1, repeats + 2):
        took = {"load": timed(newest) + timed(lambda: keeper.restore(engine)), "torch": timed(reference)}
        note(seconds, took, step)
    return seconds


def timed(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def note(seconds: Seconds, took: dict[str, float], step: int) -> None:
    for name, value in took.items():
        seconds[name] += [value] * (step > 1)


def compare(seconds: Seconds, name: str, case: str, reference: str, against: str, most: float, about: str) -> None:
    tell(
        "checkpoint", f"{case}, {about}", unit="s", ours=median(seconds[name]), reference=median(seconds[reference]),
        against=against, ratio=ratio(seconds, name, reference), at_most=most, packages=("safetensors",),
        repeats=len(seconds[name]),
    )  # fmt: skip


if __name__ == "__main__":
    main()
