"""What the counting baselines share: the training interactions, the weights of a history, the back-off.

A baseline only knows a few items of the catalogue to follow a history. All others are put in order of
popularity, far below the least score that was counted: with ties counted against the model, that is worth a
good deal.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from rec.data.batch import Queries
from rec.data.dataset import Dataset, IntArray

Floats = npt.NDArray[np.float64]

EPSILON = 1e-9
"""Score of the most popular item by popularity alone; counted scores are larger by orders of magnitude."""


class Training(NamedTuple):
    """All training interactions, by user and then in order."""

    users: IntArray
    """(n) user rows."""
    items: IntArray
    """(n) item rows."""
    after: IntArray
    """(n) training interactions of the user that come later."""
    positions: IntArray
    """(n) where they are stored."""


def training(dataset: Dataset) -> Training:
    positions = np.flatnonzero(dataset.train_positions())
    users = np.searchsorted(dataset.offsets, positions, side="right") - 1
    later = np.bincount(users, minlength=dataset.users + 1)
    ends = np.cumsum(later)
    return Training(users, dataset.item_rows[positions], ends[users] - 1 - np.arange(len(users)), positions)


def backoff(dataset: Dataset) -> Floats:
    """(items + 1) popularity in training, at most EPSILON."""
    counts = dataset.train_counts.astype(np.float64)
    counts[0] = 0
    return np.asarray(EPSILON * counts / max(counts.max(), 1))


def recency(queries: Queries, decay: float, last: int, items: int) -> sp.csr_array:
    """Queries -> (B, items + 1): decay ^ (items that come later) for the `last` items of each history.

    An item that occurs more than once has the weight of its last occurrence.
    """
    history = queries.history_BT.cpu().numpy()
    lengths = (history > 0).sum(1)
    after = lengths[:, None] - 1 - np.arange(history.shape[1])
    query, time = np.nonzero((after >= 0) & (after < last))
    weights = np.power(float(decay), after[query, time])
    return _largest(query, history[query, time], weights, (len(history), items + 1))


def scored(counted: sp.csr_array, popularity: Floats, device: torch.device) -> Tensor:
    """(B, items + 1) float64: what was counted, and the back-off of every item."""
    counted = counted.tocoo()
    scores_BC = torch.from_numpy(popularity).to(device).repeat(counted.shape[0], 1)
    flat = counted.coords[0].astype(np.int64) * counted.shape[1] + counted.coords[1]
    scores_BC.view(-1).index_add_(0, torch.from_numpy(flat).to(device), torch.from_numpy(counted.data).to(device))
    return scores_BC


def _largest(rows: IntArray, columns: IntArray, values: Floats, shape: tuple[int, int]) -> sp.csr_array:
    """A sparse matrix that keeps the largest of the values of a cell."""
    order = np.lexsort((values, columns, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    cell = rows.astype(np.int64) * shape[1] + columns
    kept = np.append(cell[1:] != cell[:-1], True)[: len(cell)]
    return sp.csr_array((values[kept], (rows[kept], columns[kept])), shape=shape)
