"""Item-item relations as lists of fixed length, which say of many pairs at once whether, and how strongly, they hold.

A list keeps the K strongest neighbours of an item and stands in ascending order of rows, so that a pair is found by
bisection: no items x items matrix, and nothing of the lists but the pages that are asked for is read from the disk.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from rec.data.dataset import FloatArray, IntArray

QUANTILES = 8
"""Q: levels of strength that `buckets` tells apart."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The neighbours of each item. Row 0 is padding and has none; no item is its own neighbour."""

    item_IK: IntArray = field(repr=False)
    """(items + 1, K) int32 rows of the neighbours, ascending; behind them items + 1, so that rows stay sorted."""
    strength_IK: FloatArray = field(repr=False)
    """(items + 1, K) float32, beside `item_IK`: how often, in the units of the relation; 0 where filled up."""
    weight_IK: FloatArray = field(repr=False)
    """(items + 1, K) float32 in (0, 1], beside `item_IK`: the strength with popularity taken out; 0 where filled up."""
    total_I: FloatArray = field(repr=False)
    """(items + 1) float64: the strength of each item to all items, of which its list keeps a part."""
    bounds: FloatArray = field(repr=False)
    """(Q - 1) float32, ascending: the weights that cut all kept pairs into Q buckets of about equal size."""
    symmetric: bool
    """Whether i to j is the same relation as j to i; a pair then counts as known if either list has it."""

    @classmethod
    def open(cls, folder: Path, *, symmetric: bool) -> Self:
        """Maps the five arrays `item strength weight total bounds` of a folder into memory."""
        item, strength, weight, total = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in NAMES)
        return cls(item, strength, weight, total, np.load(folder / "bounds.npy"), symmetric)

    @property
    def none(self) -> int:
        """What stands in `item_IK` behind the last neighbour: items + 1."""
        return len(self.item_IK)

    def strengths(self, left: npt.ArrayLike, right: npt.ArrayLike) -> FloatArray:
        """(...) item rows i and j, broadcast against each other -> (...) float32 strengths; 0 where unknown."""
        return self._of(self.strength_IK, left, right)

    def weights(self, left: npt.ArrayLike, right: npt.ArrayLike) -> FloatArray:
        """(...) item rows i and j, broadcast against each other -> (...) float32 weights; 0 where unknown."""
        return self._of(self.weight_IK, left, right)

    def buckets(self, left: npt.ArrayLike, right: npt.ArrayLike) -> IntArray:
        """(...) item rows i and j -> (...) 0 where unknown, else 1 (weak) .. Q (strong), the quantile of the weight."""
        weights = self.weights(left, right)
        return np.where(weights > 0, 1 + np.searchsorted(self.bounds, weights, side="right"), 0)

    def _of(self, table_IK: FloatArray, left: npt.ArrayLike, right: npt.ArrayLike) -> FloatArray:
        one, other = np.broadcast_arrays(np.asarray(left), np.asarray(right))
        found = self._looked_up(table_IK, one, other)
        return np.maximum(found, self._looked_up(table_IK, other, one)) if self.symmetric else found

    def _looked_up(self, table_IK: FloatArray, left: IntArray, right: IntArray) -> FloatArray:
        """Values of the table at the place of `right` in the row of `left`, by bisection of all rows at once."""
        kept, items = self.item_IK.shape[1], np.ravel(self.item_IK)
        first = left.astype(np.int64) * kept
        lower = np.zeros(left.shape, np.int64)  # so many of the row are below `right`
        for bit in reversed(range(kept.bit_length())):
            tried = lower + (1 << bit)
            below = items.take(first + np.minimum(tried, kept) - 1) < right
            lower = np.where((tried <= kept) & below, tried, lower)
        place = first + np.minimum(lower, kept - 1)
        hit = (items.take(place) == right) & (right < self.none)
        found: FloatArray = np.where(hit, np.ravel(table_IK).take(place), np.float32(0))
        return found


NAMES = ("item", "strength", "weight", "total")
"""Files of a relation with a row for each item; `bounds` is the fifth."""
