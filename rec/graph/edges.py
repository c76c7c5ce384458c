"""Training interactions as edges: a user and an item are joined once, however often they met."""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from rec.data.dataset import TRAIN_STOP, Dataset, IntArray

LONGEST = 1000
"""Distinct items of a user that make pairs, the latest: a history of d items makes d^2."""


class Histories(NamedTuple):
    """What every user trains on, in order; nothing else of the log."""

    offsets: IntArray
    """(users + 2) int64: user u owns items[offsets[u] : offsets[u + 1]]."""
    items: IntArray
    """(interactions) int32 item rows, with repetitions."""

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Copies the training stretch of every sequence out of the dataset."""
        lengths = dataset.bounds[:, TRAIN_STOP].astype(np.int64)
        return cls(np.concatenate([[0], np.cumsum(lengths)]), dataset.item_rows[dataset.train_positions()])


def distinct(histories: Histories, items: int) -> sp.csr_array:
    """(users + 1, items + 1) of true, columns ascending: the edges."""
    here = np.ones(len(histories.items), np.bool_)
    users = len(histories.offsets) - 1
    # the arrays are copied, since duplicates are summed in place
    edges = sp.csr_array((here, histories.items.copy(), histories.offsets.copy()), shape=(users, items + 1))
    edges.sum_duplicates()
    return edges


def latest(edges: sp.csr_array, histories: Histories, longest: int = LONGEST) -> sp.csr_array:
    """The edges without those of a user's items whose last occurrence lies before that of `longest` others."""
    keep = np.ones(edges.nnz, np.bool_)
    for user in np.flatnonzero(np.diff(edges.indptr) > longest):
        backwards = histories.items[histories.offsets[user] : histories.offsets[user + 1]][::-1]
        _, since = np.unique(backwards, return_index=True)  # distinct items ascending, as the edges are
        keep[edges.indptr[user] : edges.indptr[user + 1]] = _ranks(since) < longest
    starts = np.concatenate([[0], np.cumsum(keep)])[edges.indptr]
    return sp.csr_array((edges.data[keep], edges.indices[keep], starts), shape=edges.shape)


def _ranks(values: IntArray) -> npt.NDArray[np.int64]:
    """Place of each value in ascending order."""
    ranks = np.empty(len(values), np.int64)
    ranks[np.argsort(values)] = np.arange(len(values))
    return ranks
