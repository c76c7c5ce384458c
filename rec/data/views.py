"""Dataset rows -> batches. A view is what a kind of recommender sees of a dataset: a pure function of the step."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rec.config.tree import Data
from rec.data.batch import PADDING, Batch, Queries, Sequences, scored_cells
from rec.data.dataset import Dataset, IntArray, Split
from rec.data.keys import keys
from rec.data.negatives import Negatives
from rec.data.windows import R, Windows, cut

ALL = np.array([-1])
"""Stands for all windows of a step, where each has a key of its own: no window has this number."""


class View(Protocol[R]):
    """What the feed asks of a view."""

    dataset: Dataset

    def epoch(self, epoch: int) -> R:
        """The windows of an epoch, as many in every epoch, in no particular order."""

    def batch(self, step: int, windows: R, together: R) -> Batch:
        """Windows of a step as a batch; `together` are all windows of the step, over all ranks."""


class NextItems:
    """Windows of histories, to learn the next item from.

    Args:
        dataset: what is trained on.
        data: sizes of windows, and negatives.
        predict_first: whether the first item of a history is predicted, too, from the user alone.
        seed: of the run.
    """

    def __init__(self, dataset: Dataset, data: Data, *, predict_first: bool, seed: int) -> None:
        self.dataset, self.data, self.predict_first, self.seed = dataset, data, predict_first, seed
        self.negatives = Negatives(dataset, data.negative_sampling)

    def epoch(self, epoch: int) -> Windows:
        return cut(self.dataset, self.data.max_items, predict_first=self.predict_first, seed=self.seed, epoch=epoch)

    def batch(self, step: int, windows: Windows, together: Windows) -> Sequences:
        dataset, width = self.dataset, max(1, int(windows.length.max()))
        key_B = keys(self.seed, step, windows.number)
        step_key = keys(self.seed, step, ALL)
        if self.data.negatives_of == "step":
            negatives_BK, log_q_BK = self.negatives.sample_for_all(step_key, self.data.negatives)
        else:
            negatives_BK, log_q_BK = self.negatives.sample(windows.user, key_B, self.data.negatives)
        place_BX = windows.start[:, None] + np.arange(width + 1)  # what lies beyond a window is read, and left out
        inside_BT = np.arange(width) < windows.length[:, None]
        items_BX = _at(dataset.item_rows, place_BX)
        items_BT = items_BX[:, :-1] * inside_BT
        times_BT = _at(dataset.times, place_BX[:, :-1]) * inside_BT if dataset.has_times else 0 * items_BT
        first_B, targets_BT = _int64(items_BX[:, 0] * windows.first), _int64(items_BX[:, 1:] * inside_BT)
        return Sequences(
            user_B=_int64(windows.user),
            items_BT=_int64(items_BT),
            times_BT=_int64(times_BT),
            targets_BT=targets_BT,
            first_B=first_B,
            negatives_BK=_int64(negatives_BK),
            log_q_BK=torch.from_numpy(log_q_BK),
            key_B=torch.from_numpy(key_B.view(np.int64).copy()),
            step_users_S=_int64(np.unique(together.user)),
            step_key=torch.from_numpy(step_key.view(np.int64).copy())[0],
            scored_N=scored_cells(first_B, targets_BT),
        )


def queries(dataset: Dataset, users: IntArray, split: Split, max_items: int) -> Queries:
    """What each user's targets of the split are predicted from: the last `max_items` items before them."""
    items = [dataset.history(int(user), split) for user in users]
    begin = dataset.offsets[users]
    times = [dataset.times[start : start + len(row)] for start, row in zip(begin, items, strict=True)]
    return histories(users, items, max_items, times if dataset.has_times else None)


def histories(users: IntArray, items: list[IntArray], max_items: int, times: list[IntArray] | None = None) -> Queries:
    """Histories of any people (user row 0: a stranger) as a batch."""
    history_BT = _recent(items, max_items)
    times_BT = torch.zeros_like(history_BT) if times is None else _recent(times, max_items)
    return Queries(user_B=_int64(users), history_BT=history_BT, times_BT=times_BT)


def _recent(rows: list[IntArray], most: int) -> Tensor:
    """int64 (rows, T): the last `most` values of each row, padded."""
    recent = [row[-most:] for row in rows]
    whole = np.full((len(recent), max([1, *map(len, recent)])), PADDING, np.int64)
    for row, values in zip(whole, recent, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(whole)


def _at(values: IntArray, place: IntArray) -> IntArray:
    """values[place], and the last value for places beyond it. A memory map looks its cells up more slowly itself."""
    return np.asarray(values).take(place, mode="clip")


def _int64(values: IntArray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
