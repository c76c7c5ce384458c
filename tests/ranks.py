"""Real ranks inside a test: forked after all imports are paid for, joined by gloo on this machine."""

import gc
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from rec.ranks import Ranks

T = TypeVar("T")


def run_ranks(fn: Callable[[Ranks], T], world: int, seconds: float = 120) -> list[T]:
    """`fn` on `world` forked ranks: their values in rank order, or an error with what failed where.

    Closures are welcome, since nothing is pickled but the value. A world of one is forked, too.
    """
    with tempfile.TemporaryDirectory() as folder:
        children = [_fork(fn, Ranks(rank, world, rank), Path(folder)) for rank in range(world)]
        _wait(children, seconds)
        outcomes = [_outcome(Path(folder) / f"{rank}.pickle") for rank in range(world)]
    failures = [f"rank {rank} of {world}: {text}" for rank, (text, _) in enumerate(outcomes) if text]
    if failures:
        raise AssertionError("\n".join(failures))
    return [value for _, value in outcomes]


def _fork(fn: Callable[[Ranks], T], ranks: Ranks, folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    gc.freeze()  # a look at the parent's objects would copy their pages
    outcome = None, None
    try:
        torch.set_num_threads(1)  # the parent's thread pool does not survive a fork
        os.environ |= {"RANK": str(ranks.rank), "WORLD_SIZE": str(ranks.world), "LOCAL_RANK": str(ranks.rank)}
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        store = dist.FileStore(str(folder / "store"), ranks.world)
        dist.init_process_group("gloo", store=store, rank=ranks.rank, world_size=ranks.world)
        outcome = None, fn(ranks)
    except BaseException:
        outcome = traceback.format_exc(), None
    try:
        (folder / f"{ranks.rank}.part").write_bytes(pickle.dumps(outcome))
        (folder / f"{ranks.rank}.part").rename(folder / f"{ranks.rank}.pickle")
    finally:
        os._exit(0)  # no exit handlers, and no pytest, in the child


def _wait(children: list[int], seconds: float) -> None:
    """Until all have ended; those that hang are killed, so that a test fails instead of waiting for ever."""
    deadline = time.monotonic() + seconds
    while children and time.monotonic() < deadline:
        children = [child for child in children if os.waitpid(child, os.WNOHANG) == (0, 0)]
        time.sleep(0.005)
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)


def _outcome(file: Path) -> tuple[str | None, T]:
    return pickle.loads(file.read_bytes()) if file.exists() else ("died or hung", None)
