"""Training histories cut into windows: in every epoch each training target is predicted in exactly one of them."""

from typing import NamedTuple, Self

import numpy as np

from rec.data.dataset import TRAIN_STOP, Dataset, IntArray
from rec.data.keys import keys, uniform


class Windows(NamedTuple):
    """Stretches of stored positions. A window reads [start, start + length) and predicts each item's successor."""

    number: IntArray  # (W) int64, what the order of an epoch shuffles
    user: IntArray  # (W) int64 user rows
    start: IntArray  # (W) int64 stored positions
    length: IntArray  # (W) int64 input items
    first: IntArray  # (W) bool: whether the item at `start` is predicted, too, from the user token alone

    @property
    def targets(self) -> int:
        """Scored positions of all windows together."""
        return int(self.length.sum() + self.first.sum())

    def take(self, rows: IntArray) -> Self:
        return self._replace(**{name: column[rows] for name, column in self._asdict().items()})


def cut(dataset: Dataset, max_items: int, *, predict_first: bool, seed: int, epoch: int) -> Windows:
    """All windows of an epoch, by user and time. Their number is the same in every epoch.

    A history with more than `max_items` targets is cut anew in each epoch: its oldest window has a random length from
    1 to `max_items`, the rest follows, so that an item is seen at all distances from the beginning of its window. One
    window more than needed is set aside for that; it is empty where the cut is lucky.
    """
    train = dataset.bounds[:, TRAIN_STOP].astype(np.int64)  # (users + 1)
    inputs = np.maximum(train - 1, 0)  # the newest training item is a target only
    long = inputs > max_items
    pieces = -(-inputs // max_items) + long
    pieces[(train == 1) & predict_first] = 1
    user = np.repeat(np.arange(len(train)), pieces)
    piece = np.arange(len(user)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    draw = uniform(keys(seed, epoch, np.arange(len(train))), 1, salt=1)[:, 0]
    oldest = np.where(long, 1 + (draw * max_items).astype(np.int64), inputs)  # (users + 1) length of piece 0
    begin = np.where(piece > 0, oldest[user] + (piece - 1) * max_items, 0)
    end = np.minimum(oldest[user] + piece * max_items, inputs[user])
    return Windows(
        number=np.arange(len(user)),
        user=user,
        start=np.asarray(dataset.offsets[:-1])[user] + np.minimum(begin, end),
        length=np.maximum(end - begin, 0),
        first=(piece == 0) & predict_first,
    )
