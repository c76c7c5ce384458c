"""Item-kNN: items are neighbours by the cosine of the sets of their users (Sarwar et al., WWW 2001).

    cosine(i, j) = |U_i and U_j| / sqrt(|U_i| |U_j|)
    score(j)     = sum over the items i of the history that have j as neighbour of decay^later(i) cosine(i, j)

U_i are the users that have i in training, later(i) counts the items of the history after i. Only the
`neighbours` most similar items of each item are kept, and the product is made for a range of items at a time,
bounded by the work it takes: no items x items matrix, dense or not.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from rec.data.batch import Queries
from rec.data.dataset import Dataset, IntArray
from rec.models.counting import Floats, backoff, recency, scored, training

WORK = 2**24
"""Multiplications of a range of items, and so at most as many cells of its product: 200 MB."""


@dataclass(frozen=True)
class ItemKnn:
    similar: sp.csr_array
    """(items + 1, items + 1) cosines of the neighbours kept."""
    popularity: Floats
    decay: float

    @classmethod
    def fit(cls, dataset: Dataset, *, neighbours: int = 100, decay: float = 1.0) -> Self:
        log = training(dataset)
        ones = np.ones(len(log.users))
        users = sp.csr_array((ones, (log.users, log.items)), shape=(dataset.users + 1, dataset.items + 1))
        users.sum_duplicates()
        users.data[:] = 1
        return cls(_similar(users, neighbours), backoff(dataset), decay)

    def vary(self, *, neighbours: int, decay: float) -> Self:
        """The same fit with another decay and no more neighbours than it has."""
        return replace(self, similar=_strongest(self.similar, neighbours), decay=decay)

    def score(self, queries: Queries) -> Tensor:
        history = recency(queries, self.decay, queries.history_BT.shape[1], self.similar.shape[0] - 1)
        return scored(history @ self.similar, self.popularity, queries.history_BT.device)


def _similar(users: sp.csr_array, neighbours: int) -> sp.csr_array:
    """(users + 1, items + 1) of ones -> the cosines of the neighbours of each item."""
    length = np.sqrt(np.maximum(np.asarray(users.sum(0)), 1))
    unit = users @ sp.diags_array(1 / length)
    by_item = sp.csr_array(unit.T)
    parts = []
    for items in _ranges(by_item, np.diff(users.indptr)):
        together = by_item[items.start : items.stop] @ unit
        together.data[_rows(together) + items.start == together.indices] = 0
        parts.append(_strongest(together, neighbours))
    return sp.csr_array(sp.vstack(parts))


def _ranges(by_item: sp.csr_array, lengths: IntArray) -> Iterator[range]:
    """Consecutive items whose product takes about WORK multiplications, and at least one item."""
    work = np.add.reduceat(np.append(lengths[by_item.indices], 0), by_item.indptr[:-1])
    work[np.diff(by_item.indptr) == 0] = 0
    total, start = np.cumsum(work), 0
    while start < len(work):
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + WORK, side="right")))
        yield range(start, stop)
        start = stop


def _strongest(matrix: sp.csr_array, kept: int) -> sp.csr_array:
    """The `kept` largest positive values of each row; of equal values, those of lower columns."""
    keep = matrix.data > 0
    for row in np.flatnonzero(np.diff(matrix.indptr) > kept):
        begin, end = matrix.indptr[row], matrix.indptr[row + 1]
        values = matrix.data[begin:end]
        least = np.partition(values, end - begin - kept)[end - begin - kept]
        keep[begin:end] &= values >= least
        equal = begin + np.flatnonzero(values == least)
        spare = np.count_nonzero(keep[begin:end]) - kept
        if spare > 0:
            keep[equal[np.argsort(matrix.indices[equal])[-spare:]]] = False
    starts = np.concatenate([[0], np.cumsum(keep)])[matrix.indptr]
    strongest = sp.csr_array((matrix.data[keep], matrix.indices[keep], starts), shape=matrix.shape)
    strongest.sort_indices()
    return strongest


def _rows(matrix: sp.csr_array) -> IntArray:
    """(stored values) the row of each."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
