"""`kindling plan CONFIG --gpus 8 --memory 80GB`: memory, FLOPs and hours of a run, before anything is spent on it."""

import argparse
import os
import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from launch.command import DONE, command

if TYPE_CHECKING:
    from rec.config.tree import Run
    from rec.train.plan.plan import Machine
    from rec.train.plan.work import Work

UNITS = {"GB": 10**9, "GiB": 2**30}
PEAKS = {"fp32": 67.0, "bf16": 989.0, "fp16": 989.0}
"""Dense TFLOP/s of an H100 or H200 (SXM), for a GPU that nobody has said more of; fp32 is without TF32."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="kindling plan", description="What a run takes under each strategy; nothing is trained or loaded."
    )
    parser.add_argument("config", type=Path, help="YAML file of the run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace those of the file")
    parser.add_argument("--gpus", type=int, help="GPUs of a machine (default: those here; without any, the CPU here)")
    parser.add_argument("--nodes", type=int, default=1, help="machines (default 1)")
    parser.add_argument("--memory", help="of each GPU, for example 80GB or 74GiB (default: that of the GPU here)")
    parser.add_argument(
        "--tflops", type=float, help="peak speed of a GPU, dense, at train.precision (default: an H100's)"
    )
    sizes = parser.add_argument_group("before the dataset is prepared", "all three, in place of the dataset")
    for name in ("users", "items", "interactions"):
        sizes.add_argument(f"--{name}", type=int)
    return parser.parse_intermixed_args()


@command
def main() -> int:
    """Plans, and prints the plan."""
    given = arguments()
    from rec.config.load import load
    from rec.errors import ConfigError
    from rec.train.plan.page import page
    from rec.train.plan.plan import Plan

    run = load(given.config, given.overrides)
    if run.model.kind == "graph_llm":
        raise ConfigError(
            f"{given.config} is of kind graph_llm, whose documents are as long as their texts and cannot be planned; "
            "try it with train.steps=1 instead"
        )
    on = machine(given, run)
    print(page(Plan(run, work(given, run), on, tell=partial(print, file=sys.stderr, flush=True))))
    return DONE


def work(given: argparse.Namespace, run: "Run") -> "Work":
    """What an epoch consists of, from the dataset, or from its size."""
    from rec.data.dataset import Dataset
    from rec.errors import ConfigError, DatasetError
    from rec.train.plan.work import of_counts, of_dataset

    counts = {name: getattr(given, name) for name in ("users", "items", "interactions")}
    missing = [f"--{name}" for name, value in counts.items() if value is None]
    if len(missing) == 3:
        try:
            return of_dataset(Dataset.open(run.dataset), run)
        except DatasetError as error:
            raise DatasetError(f"{error}, or give --users, --items and --interactions to plan without it") from None
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} is missing; a dataset that is not there yet needs all three numbers"
        )
    for name, value in counts.items():
        positive(name, value)
    return of_counts(counts["users"], counts["items"], counts["interactions"], run)


def machine(given: argparse.Namespace, run: "Run") -> "Machine":
    """What was asked for; where nothing was, what is here."""
    import torch

    from rec.errors import ConfigError
    from rec.train.plan.plan import Machine

    here = torch.cuda.device_count()
    for name in ("gpus", "nodes", "tflops"):
        positive(name, getattr(given, name))
    if given.gpus is None and not here:
        memory = size(given.memory) if given.memory else float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        return Machine(given.nodes, 1, memory, given.tflops * 1e12 if given.tflops else speed_here())
    if given.memory is None and not here:
        raise ConfigError("there is no GPU here whose memory could be taken; say it with --memory, for example 80GB")
    memory = size(given.memory) if given.memory else float(torch.cuda.get_device_properties(0).total_memory)
    return Machine(given.nodes, given.gpus or here, memory, 1e12 * (given.tflops or PEAKS[run.train.precision]))


def size(text: str) -> float:
    """Bytes of a size as people write it.

    >>> size("80GB"), size("0.5 GiB")
    (80000000000.0, 536870912.0)
    """
    from rec.errors import ConfigError

    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(GB|GiB)", text.strip())
    if not match or not float(match[1]):
        raise ConfigError(f"--memory is '{text}'; write a number and GB or GiB, for example 80GB")
    return float(match[1]) * UNITS[match[2]]


def positive(name: str, value: float | None) -> None:
    """Raises ConfigError for a number that is given and not positive."""
    from rec.errors import ConfigError

    if value is not None and not value > 0:
        raise ConfigError(f"--{name} is {value}; give a positive number, or leave it out")


def speed_here() -> float:
    """Floating-point operations a second of this machine's CPU: the best of a few fp32 matrix products."""
    import torch

    side = 1024
    a, b = torch.ones(side, side), torch.ones(side, side)
    seconds = []
    for _ in range(4):
        begun = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - begun)
    return 2 * side**3 / min(seconds)


if __name__ == "__main__":
    sys.exit(main())
