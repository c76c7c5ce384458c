"""Dataset rows -> batches. Pure functions."""

import numpy as np
import torch
from torch import Tensor

from rec.data.batch import PADDING, Queries, Sequences
from rec.data.dataset import Dataset, IntArray, Split
from rec.data.keys import Keys
from rec.data.negatives import Negatives
from rec.data.windows import Windows


def next_items(
    dataset: Dataset, windows: Windows, rows: IntArray, keys: Keys, negatives: Negatives, count: int
) -> Sequences:
    """The windows `rows` as a batch, with `count` negatives each."""
    start, lengths = windows.start[rows], windows.lengths[rows]
    width = max(1, int(lengths.max()))
    items_BT = _gather(dataset.item_rows, start, lengths, width)
    targets_BT = _gather(dataset.item_rows, start + 1, lengths, width)
    first_B = np.where(windows.first[rows], dataset.item_rows[start], PADDING)
    negatives_BK, log_q_BK = negatives.sample(windows.user[rows], keys, count)
    return Sequences(
        user_B=_int64(windows.user[rows]),
        items_BT=_int64(items_BT),
        targets_BT=_int64(targets_BT),
        first_B=_int64(first_B),
        negatives_BK=_int64(negatives_BK),
        log_q_BK=torch.from_numpy(log_q_BK),
        key_B=torch.from_numpy(keys.view(np.int64).copy()),
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
