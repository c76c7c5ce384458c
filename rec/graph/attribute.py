"""Items that share a value: the same brand, a category in common."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from rec.data.dataset import IntArray


@dataclass(frozen=True, eq=False)
class Attribute:
    """The values of each item as codes 0, 1, ...; an item has none, one or several."""

    offsets: IntArray = field(repr=False)
    """(items + 2) int64: item i has the codes offsets[i] .. offsets[i + 1]; row 0 has none."""
    codes: IntArray = field(repr=False)
    """(held) int32, ascending within an item."""
    counts: IntArray = field(repr=False)
    """(values) int32: items that have each value."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Maps the three arrays of a folder into memory."""
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in NAMES))

    def shared(self, left: npt.ArrayLike, right: npt.ArrayLike) -> IntArray:
        """(...) item rows i and j, broadcast against each other -> (...) int64: how many values both have."""
        one, other = np.broadcast_arrays(np.asarray(left), np.asarray(right))
        i, j = one.reshape(-1), other.reshape(-1)
        lengths = self.offsets[i + 1] - self.offsets[i]
        pair = np.repeat(np.arange(len(i)), lengths)
        within = np.arange(len(pair)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        wanted = j[pair] * np.int64(len(self.counts)) + self.codes[self.offsets[i][pair] + within]
        place = np.searchsorted(self._held, wanted)
        both = self._held[np.minimum(place, len(self._held) - 1)] == wanted if len(wanted) else np.empty(0, np.bool_)
        return np.bincount(pair[both], minlength=len(i)).reshape(one.shape)

    @cached_property
    def _held(self) -> IntArray:
        """(held) int64, ascending: item x values + code of everything that any item has."""
        items = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        return items * np.int64(len(self.counts)) + self.codes


NAMES = ("offsets", "codes", "counts")
"""Files of an attribute."""
