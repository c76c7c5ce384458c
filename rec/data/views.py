"""Dataset rows -> batches. Pure functions."""

import numpy as np
import torch
from torch import Tensor

from rec.data.batch import PADDING, Queries, Sequences
from rec.data.dataset import Dataset, IntArray, Split
from rec.data.keys import Keys
from rec.data.negatives import Negatives
from rec.data.windows import Windows


def next_items(dataset: Dataset, windows: Windows, key_B: Keys, negatives: Negatives, count: int) -> Sequences:
    """Windows as a batch, with `count` negatives each."""
    width = max(1, int(windows.length.max()))
    negatives_BK, log_q_BK = negatives.sample(windows.user, key_B, count)
    return Sequences(
        user_B=_int64(windows.user),
        items_BT=_int64(_gather(dataset.item_rows, windows.start, windows.length, width)),
        targets_BT=_int64(_gather(dataset.item_rows, windows.start + 1, windows.length, width)),
        first_B=_int64(np.where(windows.first, dataset.item_rows[windows.start], PADDING)),
        negatives_BK=_int64(negatives_BK),
        log_q_BK=torch.from_numpy(log_q_BK),
        key_B=torch.from_numpy(key_B.view(np.int64).copy()),
    )


def queries(dataset: Dataset, users: IntArray, split: Split, max_items: int) -> Queries:
    """What each user's targets of the split are predicted from: the last `max_items` items before them."""
    return histories(users, [dataset.history(int(user), split) for user in users], max_items)


def histories(users: IntArray, items: list[IntArray], max_items: int) -> Queries:
    """Histories of any people (user row 0: a stranger) as a batch."""
    recent = [row[-max_items:] for row in items]
    width = max([1, *map(len, recent)])
    history_BT = np.full((len(recent), width), PADDING, np.int64)
    for row, values in zip(history_BT, recent, strict=True):
        row[: len(values)] = values
    return Queries(user_B=_int64(users), history_BT=torch.from_numpy(history_BT))


def _gather(values: IntArray, start: IntArray, lengths: IntArray, width: int) -> IntArray:
    """(rows, width) values[start + t] where t < length, else padding."""
    time = np.arange(width)
    inside = time < lengths[:, None]
    place = np.where(inside, start[:, None] + time, 0)
    return np.where(inside, values[place], PADDING)


def _int64(values: IntArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
