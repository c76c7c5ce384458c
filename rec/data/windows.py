"""Training histories cut into windows: in every epoch each training target is predicted in exactly one of them."""

from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from rec.data.dataset import TRAIN_STOP, Dataset, FloatArray, IntArray
from rec.data.keys import keys, uniform


class Reading(Protocol):
    """What an epoch or a step reads, in parallel columns: windows of histories, or whatever else a view deals in."""

    @property
    def length(self) -> IntArray:
        """(W) int64 places of each: those of one micro-batch should be alike in it."""

    @property
    def alike(self) -> IntArray | FloatArray:
        """(W) in what those of one step should be alike."""

    @property
    def targets(self) -> int:
        """What the summed loss of all is divided by."""

    def take(self, rows: IntArray | slice) -> Self:
        """Some of them, in the order given."""


R = TypeVar("R", bound=Reading)


def joined(parts: list[R]) -> R:
    """All of several as one."""
    columns: Any = zip(*parts, strict=True)
    return type(parts[0])(*(np.concatenate(column) for column in columns))


class Windows(NamedTuple):
    """Stretches of stored positions. A window reads [start, start + length) and predicts each item's successor."""

    number: IntArray  # (W) int64, what the order of an epoch shuffles
    user: IntArray  # (W) int64 user rows
    start: IntArray  # (W) int64 stored positions
    length: IntArray  # (W) int64 input items
    first: IntArray  # (W) bool: whether the item at `start` is predicted, too, from the user token alone

    @property
    def alike(self) -> IntArray:
        """Windows of a step are of similar length."""
        return self.length

    @property
    def targets(self) -> int:
        """Scored positions of all windows together."""
        return int(self.length.sum() + self.first.sum())

    def take(self, rows: IntArray | slice) -> Self:
        return self._replace(**{name: column[rows] for name, column in self._asdict().items()})


def cut(dataset: Dataset, max_items: int, *, predict_first: bool, seed: int, epoch: int) -> Windows:
    """All windows of an epoch, by user and time; as few as can be, so their number is the same in every epoch.

    A history with more than `max_items` targets is cut anew in each epoch: what its windows have room for beyond its
    targets is divided at random between the oldest and the newest window, so that an item is not always met at the
    same distance from the beginning of its window.
    """
    train = dataset.bounds[:, TRAIN_STOP].astype(np.int64)  # (users + 1)
    inputs = np.maximum(train - 1, 0)  # the newest training item is a target only
    pieces = -(-inputs // max_items)
    draw = uniform(keys(seed, epoch, np.arange(len(train))), 1, salt=1)[:, 0]
    spare = pieces * max_items - inputs
    oldest = np.where(pieces > 1, max_items - (draw * (spare + 1)).astype(np.int64), inputs)  # length of piece 0
    pieces[(train == 1) & predict_first] = 1
    user = np.repeat(np.arange(len(train)), pieces)
    piece = np.arange(len(user)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = np.where(piece > 0, oldest[user] + (piece - 1) * max_items, 0)
    end = np.minimum(oldest[user] + piece * max_items, inputs[user])
    return Windows(
        number=np.arange(len(user)),
        user=user,
        start=np.asarray(dataset.offsets[:-1])[user] + begin,
        length=end - begin,
        first=(piece == 0) & predict_first,
    )
