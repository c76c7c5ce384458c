"""Training histories cut into windows: each training target is predicted in exactly one of them."""

from typing import NamedTuple

import numpy as np

from rec.data.dataset import TRAIN_STOP, Dataset, IntArray


class Windows(NamedTuple):
    """Stretches of stored positions. A window reads [start, stop - 1) and predicts [start + 1, stop)."""

    user: IntArray  # (W) int64 user rows
    start: IntArray  # (W) int64 stored positions
    stop: IntArray  # (W) int64 stored positions
    first: IntArray  # (W) bool: whether the item at `start` is predicted, too, from the user token alone

    @property
    def lengths(self) -> IntArray:
        """(W) input items of each window."""
        return self.stop - self.start - 1

    @property
    def targets(self) -> IntArray:
        """(W) scored positions of each window."""
        return self.lengths + self.first


def cut(dataset: Dataset, max_items: int, *, predict_first: bool) -> Windows:
    """All windows of a dataset, by user and time. The newest window of a user is full; the oldest has what is left.

    A history of n items has n - 1 targets (n with `predict_first`); users without any are left out.
    """
    train = dataset.bounds[:, TRAIN_STOP].astype(np.int64)  # (users + 1)
    pieces = -(-(train - 1) // max_items)
    pieces = np.where(train > 1, pieces, (train == 1) & predict_first)
    user = np.repeat(np.arange(len(train)), pieces)
    from_end = np.concatenate([np.arange(count)[::-1] for count in pieces] or [np.empty(0, np.int64)])
    begin = np.asarray(dataset.offsets[:-1])[user]
    stop = begin + train[user] - from_end * max_items
    start = np.maximum(begin, stop - max_items - 1)
    return Windows(user, start, stop, (start == begin) & predict_first)
