"""The K strongest neighbours of every item, a range of rows at a time: the memory of a few ranges, not of all pairs."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from rec.data.dataset import FloatArray, IntArray
from rec.graph.relations import Relation

WORK = 1 << 21
"""Multiplications of a range of rows, and so at most as many cells of its product; a single row may take more, and has
no more cells than there are items. About 40 bytes a cell are needed at once."""


class Lists(NamedTuple):
    """Rows of `Neighbours` for R items in succession."""

    item_RK: IntArray
    strength_RK: FloatArray
    weight_RK: FloatArray
    total_R: FloatArray


def strongest(relation: Relation, kept: int, threads: int) -> Iterator[Lists]:
    """Lists of all items in their order, in pieces. The result does not depend on `threads`."""
    waiting: deque[Future[Lists]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for start, stop in ranges(relation.work + kept, WORK):
            waiting.append(pool.submit(_lists, relation, start, stop, kept))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def ranges(work: IntArray, most: int) -> Iterator[tuple[int, int]]:
    """Consecutive rows whose work is at most `most`, or a single row."""
    done, start = np.cumsum(work), 0
    while start < len(work):
        before = int(done[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(done, before + most, side="right")))
        yield start, stop
        start = stop


def _lists(relation: Relation, start: int, stop: int, kept: int) -> Lists:
    cells = relation.cells(start, stop)
    row = np.repeat(np.arange(stop - start, dtype=np.int32), np.diff(cells.indptr))
    cells.data[cells.indices == row + start] = 0  # no item is its own neighbour
    out = np.diff(np.concatenate([[0], np.cumsum(cells.data, dtype=np.int64)])[cells.indptr])
    chosen = _largest(cells, row, relation.ranked_by(cells), kept)
    row, column, strength = row[chosen], cells.indices[chosen], cells.data[chosen]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    shape = (stop - start, kept)
    numbers = np.zeros(shape, np.float32), np.zeros(shape, np.float32), out / relation.unit
    lists = Lists(np.full(shape, cells.shape[1], np.int32), *numbers)
    lists.item_RK[row, place] = column
    lists.strength_RK[row, place] = strength / relation.unit
    lists.weight_RK[row, place] = relation.weights(row + start, column, strength, out[row])
    return lists


def _largest(cells: sp.csr_array, row: IntArray, ranked: FloatArray, kept: int) -> IntArray:
    """Cells that are kept, by row and column: of equal rank the stronger ones, then those of lower columns."""
    rows = cells.shape[0]
    least = np.zeros(rows)  # a cell without a neighbour has rank 0
    for long in np.flatnonzero(np.diff(cells.indptr) > kept):
        of_row = ranked[cells.indptr[long] : cells.indptr[long + 1]]
        least[long] = np.partition(of_row, len(of_row) - kept)[len(of_row) - kept]
    limit = least[row]
    keep = ranked > limit
    room = kept - np.bincount(row[keep], minlength=rows)
    tied = np.flatnonzero((ranked == limit) & (ranked > 0))
    ends = np.cumsum(np.bincount(row[tied], minlength=rows))
    keep[tied] = True
    for many in np.flatnonzero(np.diff(ends, prepend=0) > room):
        equal = tied[ends[many - 1] if many else 0 : ends[many]]
        # the stronger, the lower; then by column
        better = cells.indices[equal] - cells.data[equal] * np.int64(cells.shape[1])
        keep[equal[np.argpartition(better, room[many])[room[many] :]]] = False
    left = np.flatnonzero(keep)
    return left[np.argsort(row[left] * np.int64(cells.shape[1]) + cells.indices[left])]
