"""What a forked rank tells about itself while it runs: its phase, and the batches that it reads."""

import hashlib
import mmap
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rec import ranks
from rec.data.feed import Feed, Step
from rec.train import loop
from rec.train.keeper import Keeper
from rec.train.pieces import copy, file_of, write

PHASES = ("meeting", "start", "training", "evaluation", "end")
SAVES = ("none", "writing", "committing")
MOST_RANKS = 16


class Board:
    """A phase and a state of saving for each rank, in memory that outlives the rank."""

    def __init__(self) -> None:
        self.cells = mmap.mmap(-1, 2 * MOST_RANKS)

    def phase(self, rank: int) -> str:
        """What the main thread of a rank does, or did when it was killed."""
        return PHASES[self.cells[rank]]

    def save(self, rank: int) -> str:
        """Whether a save of the rank is, or was, under way beside that, and how far."""
        return SAVES[self.cells[MOST_RANKS + rank]]

    @contextmanager
    def during(self, rank: int, phase: str, after: str | None = None) -> Iterator[None]:
        before, self.cells[rank] = self.cells[rank], PHASES.index(phase)
        try:
            yield
        finally:
            self.cells[rank] = before if after is None else PHASES.index(after)

    @contextmanager
    def saving(self, rank: int, save: str) -> Iterator[None]:
        cell = MOST_RANKS + rank
        before, self.cells[cell] = self.cells[cell], SAVES.index(save)
        try:
            yield
        finally:
            self.cells[cell] = before


def observe(board: Board, rank: int, notes: Path) -> None:
    """Makes this process, which has nothing else to do in its life, tell of itself.

    It also draws from every generator in each step, as some library might: what is drawn has to be the same later.
    """
    _note_phases(board, rank)
    _note_batches(notes / f"batches-{rank}.txt")


def _note_phases(board: Board, rank: int) -> None:
    _within(ranks, "join", lambda: board.during(rank, "meeting", after="start"))
    _within(loop, "train", lambda: board.during(rank, "training", after="end"))
    _within(loop, "judge", lambda: board.during(rank, "evaluation"))
    _within(Keeper, "_commit", lambda: board.saving(rank, "writing"))
    _within(Keeper, "_finish_save", lambda: board.saving(rank, "committing"))


def _within(owner: Any, name: str, context: Callable[[], Any]) -> None:
    original = getattr(owner, name)

    def replaced(*arguments: Any, **named: Any) -> Any:
        with context():
            return original(*arguments, **named)

    setattr(owner, name, replaced)


def _note_batches(file: Path) -> None:
    random.seed(file.name)
    np.random.seed(random.getrandbits(32))  # noqa: NPY002
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    original = Feed.step

    def step(feed: Feed, number: int) -> Step:
        data = original(feed, number)
        drawn = f"{random.random()} {np.random.random()} {torch.rand(()).item()}"  # noqa: NPY002
        windows = ",".join(str(key) for batch in data.batches for key in batch.key_B.tolist())
        os.write(handle, f"{number} {digest(data)} {windows} {drawn}\n".encode())
        return data

    setattr(Feed, "step", step)  # noqa: B010


def digest(data: Step) -> str:
    """Of everything that a rank gets in a step."""
    state = hashlib.sha256(f"{data.targets} {data.items}".encode())
    for batch in data.batches:
        for tensor in batch:
            state.update(f"{tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    return state.hexdigest()[:16]


def note_restored(folder: Path, rank: int, world: int) -> None:
    """Makes this process write down, as a checkpoint does, what it holds after a resume."""
    original = Keeper._read

    def read(keeper: Keeper, checkpoint: Path, engine: Any) -> Any:
        progress = original(keeper, checkpoint, engine)
        folder.mkdir(exist_ok=True)
        write(folder / file_of(rank, world), copy(engine.pieces()), {})
        return progress

    setattr(Keeper, "_read", read)  # noqa: B010
