"""Two ways in which items belong together, as products of sparse matrices of which a range of rows is made at a time.

    together(i, j)  = users that have both i and j; ranked by the cosine of the two sets of users
    following(i, j) = sum of 1 / gap over all places where j stands gap <= 10 behind i; ranked by itself

Strengths are whole numbers here, in units of which sums are exact in any order.
"""

from functools import reduce
from math import lcm
from operator import add
from typing import Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from rec.data.dataset import FloatArray, IntArray
from rec.graph.edges import Histories

HORIZON = 10
"""Positions that a following item may stand behind."""
PLACES = 1 << 18
"""Places whose following items are looked at together: those of an item that is everywhere may not fit in memory."""


class Relation(Protocol):
    unit: int
    """Whole numbers in a strength of 1."""
    work: IntArray
    """(items + 1) multiplications that the row of each item takes, at least the cells it has."""

    def cells(self, start: int, stop: int) -> sp.csr_array:
        """(stop - start, items + 1) whole numbers: the rows of the items start .. stop, in any order of columns."""
        ...

    def ranked_by(self, cells: sp.csr_array) -> FloatArray:
        """(cells) float64 >= 0: what decides, within a row, which are kept; exact, so that equal ones are equal."""
        ...

    def weights(self, left: IntArray, right: IntArray, strength: IntArray, out: IntArray) -> FloatArray:
        """(n) pairs of item rows, their strength, and the sum of strengths of the left one -> (n) float64 in (0, 1]."""
        ...


class Together:
    """Co-interaction. A hub item has one long row; what bounds the work of the others is `latest`."""

    unit = 1

    def __init__(self, edges: sp.csr_array, pairing: sp.csr_array):
        """Takes the edges that count for degrees, and those that count for pairs: (users + 1, items + 1) each."""
        self._degree = np.bincount(edges.indices, minlength=edges.shape[1]).astype(np.float64)
        self._by_user = pairing.astype(np.int32)
        self._by_item = sp.csr_array(self._by_user.T.tocsr())
        lengths = np.diff(pairing.indptr)
        total = np.concatenate([[0], np.cumsum(lengths[self._by_item.indices], dtype=np.int64)])
        self.work = np.diff(total[self._by_item.indptr])

    def cells(self, start: int, stop: int) -> sp.csr_array:
        return self._by_item[start:stop] @ self._by_user

    def ranked_by(self, cells: sp.csr_array) -> FloatArray:
        # c^2 / d_j is in the order of the cosines of i; a quotient of whole numbers rounds equal ones to equal floats
        ranked: FloatArray = cells.data.astype(np.float64)
        ranked *= ranked
        ranked /= self._degree[cells.indices]
        return ranked

    def weights(self, left: IntArray, right: IntArray, strength: IntArray, out: IntArray) -> FloatArray:
        return np.asarray(strength / np.sqrt(self._degree[left] * self._degree[right]))


class Following:
    """What comes next in a user's history, the nearer the more. Every place counts, repetitions too."""

    unit = lcm(*range(1, HORIZON + 1))

    def __init__(self, histories: Histories, items: int):
        self._items, self._shape = histories.items, items + 1
        lengths = np.diff(histories.offsets)
        after = np.repeat(histories.offsets[1:], lengths) - 1 - np.arange(len(histories.items))
        self._after: npt.NDArray[np.int8] = np.minimum(after, HORIZON).astype(np.int8)
        self._places = np.argsort(histories.items, kind="stable")
        counts = np.bincount(histories.items, minlength=self._shape)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self.work: IntArray = counts * HORIZON

    def cells(self, start: int, stop: int) -> sp.csr_array:
        first, last = int(self._starts[start]), int(self._starts[stop])
        begins = range(first, max(last, first + 1), PLACES)
        return reduce(add, (self._behind(begin, min(begin + PLACES, last), start, stop) for begin in begins))

    def _behind(self, begin: int, end: int, start: int, stop: int) -> sp.csr_array:
        """What some of the places add to the cells of a range of items."""
        places = self._places[begin:end]
        lengths = self._after[places].astype(np.int64)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        gap = np.arange(1, ends[-1] + 1) - np.repeat(ends[:-1], lengths)
        behind = self._items[np.repeat(places, lengths) + gap]
        near = sp.csr_array((self.unit // gap, behind, ends), shape=(len(places), self._shape))
        ones = np.ones(len(places), np.int64)
        starts = np.clip(self._starts[start : stop + 1], begin, end) - begin
        occurs = sp.csr_array((ones, np.arange(len(places)), starts), shape=(stop - start, len(places)))
        return occurs @ near

    def ranked_by(self, cells: sp.csr_array) -> FloatArray:
        return np.asarray(cells.data, np.float64)

    def weights(self, left: IntArray, right: IntArray, strength: IntArray, out: IntArray) -> FloatArray:
        return np.asarray(strength / out)
