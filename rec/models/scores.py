"""The scores of a block of queries, of which only some columns are there at a time.

B queries, C = items + 1 columns by item row (column 0 is padding), D width of queries and items, N cells.

A table of scores over a large catalogue is larger than all else that an evaluation holds, and reading it again from
memory takes as long as a good part of computing it. A model whose score is a product says so, and the columns are
computed when they are read, a cacheful of them at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

CACHEFUL = 2**21
"""Cells that a CPU keeps near while they are read several times."""
DEVICEFUL = 2**26
"""Cells at a time on a GPU, where a small product leaves most of it idle."""

MULTIPLE = 32
"""What a number of columns is a multiple of, for those who look at some at a time."""
WIDEST = 2**24
"""Columns at a time that fp32 can still count."""


class Scores(ABC):
    """(B, C) scores, higher is better."""

    shape: tuple[int, int]
    """(B, C)."""
    device: torch.device

    @abstractmethod
    def columns(self, start: int, stop: int) -> Tensor:
        """(B, stop - start) of them, the caller's own to write to until the next ones are asked for."""

    @abstractmethod
    def at(self, rows_BX: Tensor) -> Tensor:
        """(B, X) the scores of some item rows of each query, computed in the way of `columns`.

        A product may still round a cell in another way where it stands elsewhere: who compares has to look.
        """

    @abstractmethod
    def dense(self) -> Tensor:
        """(B, C) all of them."""

    @property
    def own(self) -> range:
        """The columns that can be read here: all, unless other ranks have the others."""
        return range(self.shape[1])

    def total(self, values: Tensor) -> Tensor:
        """Sums of what was found in the columns that are here -> those of all columns; may overwrite `values`."""
        return values

    def best(self, items_BK: Tensor, scores_BK: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K) the best of the columns that are here, in order -> those of all columns."""
        return items_BK, scores_BK

    @property
    def width(self) -> int:
        """Columns to read at a time."""
        cells = CACHEFUL if self.device.type == "cpu" else DEVICEFUL
        most = min(cells // max(1, self.shape[0]), WIDEST)
        return max(1, min(most - most % MULTIPLE if most > MULTIPLE else most, len(self.own)))

    @property
    def starts(self) -> list[int]:
        """First columns of blocks which are all `width` wide: the last one begins where it ends with what is here.

        A product of another width may round a cell in another way.
        """
        return [min(start, self.own.stop - self.width) for start in self.own[:: self.width]]


class Table(Scores):
    """Scores that are there already."""

    def __init__(self, scores_BC: Tensor) -> None:
        self.scores_BC = scores_BC
        self.shape, self.device = (scores_BC.shape[0], scores_BC.shape[1]), scores_BC.device

    def columns(self, start: int, stop: int) -> Tensor:
        return self.scores_BC[:, start:stop].clone()

    def at(self, rows_BX: Tensor) -> Tensor:
        return self.scores_BC.gather(1, rows_BX)

    def dense(self) -> Tensor:
        return self.scores_BC


class Added(NamedTuple):
    """What is added to a few cells, each of them once."""

    query_N: Tensor
    """int64 rows of the block."""
    item_N: Tensor
    """int64 item rows, ascending."""
    value_N: Tensor

    @classmethod
    def summed(cls, query_N: Tensor, item_N: Tensor, value_N: Tensor, queries: int) -> "Added":
        """From cells in any order; where one stands several times, its values are summed in that order."""
        cell_N, place_N = torch.unique(item_N * queries + query_N, return_inverse=True)
        total_N = value_N.new_zeros(len(cell_N)).index_add_(0, place_N, value_N)
        return cls(cell_N % queries, cell_N // queries, total_N)

    def between(self, start: int, stop: int) -> "Added":
        """What is added to the columns start .. stop, which count from 0 then."""
        first, last = torch.searchsorted(self.item_N, self.item_N.new_tensor([start, stop])).tolist()
        return Added(self.query_N[first:last], self.item_N[first:last] - start, self.value_N[first:last])

    def of(self, items_X: Tensor) -> "Added":
        """What is added to the columns of some items, ascending, which count from 0 then."""
        place_N = torch.searchsorted(items_X, self.item_N).clamp(max=len(items_X) - 1)
        kept_N = items_X[place_N] == self.item_N
        return Added(self.query_N[kept_N], place_N[kept_N], self.value_N[kept_N])

    def to(self, scores: Tensor) -> Tensor:
        """The scores, changed in place."""
        return scores.index_put_((self.query_N, self.item_N), self.value_N, accumulate=True)


class Product(Scores):
    """Queries times items, and what is added to a few cells."""

    def __init__(self, query_BD: Tensor, items_CD: Tensor, added: Callable[[], Added] | None = None) -> None:
        """Computes nothing yet; `added` is asked for when the first scores are read."""
        self.query_BD, self.items_CD, self._added = query_BD, items_CD, added
        self.shape, self.device = (len(query_BD), len(items_CD)), query_BD.device

    @cached_property
    def added(self) -> Added | None:
        return None if self._added is None else self._added()

    @cached_property
    def memory(self) -> Tensor:
        """For the columns that are read at a time: memory that was just written to is near."""
        return self.query_BD.new_empty(self.shape[0] * min(self.width, self.shape[1]))

    def columns(self, start: int, stop: int) -> Tensor:
        scores = self.memory[: self.shape[0] * (stop - start)].view(-1, stop - start)
        torch.mm(self.query_BD, self.items_CD[start:stop].t(), out=scores)
        return scores if self.added is None else self.added.between(start, stop).to(scores)

    def at(self, rows_BX: Tensor) -> Tensor:
        if not rows_BX.numel():
            return self.query_BD.new_empty(rows_BX.shape)
        once_N, place_BX = torch.unique(rows_BX, return_inverse=True)
        width = min(self.width, self.shape[1])  # as many columns at a time as `columns` has, for the same kernel
        padded_N = F.pad(once_N, (0, -len(once_N) % width))
        scores_BN = torch.cat([self.query_BD @ self.items_CD[some_N].t() for some_N in padded_N.split(width)], 1)
        if self.added is not None:
            self.added.of(once_N).to(scores_BN)
        return scores_BN.gather(1, place_BX)

    def dense(self) -> Tensor:
        scores_BC = self.query_BD @ self.items_CD.t()
        return scores_BC if self.added is None else self.added.to(scores_BC)
