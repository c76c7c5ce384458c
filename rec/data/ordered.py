"""A log in the order that everything else relies on: by user, then (split,) time, then input position.

The sort is external: rows are dealt out to ranges of users that fit into memory, then every range is sorted by itself.
Both steps are stable, so that equal times keep the order of the input on any machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rec.data.dataset import IntArray
from rec.data.spool import Spool

RANGE_ROWS = 1 << 20
"""Rows of a range of users (more only where one user has more): bounds the memory of a sort."""


class Range(NamedTuple):
    """Users first .. last - 1 own rows start .. stop - 1."""

    first: int
    last: int
    start: int
    stop: int


class Tally(NamedTuple):
    rows: int
    users: int
    items: int


@dataclass
class Ordered:
    """Sorted rows, of which those that filters have left are kept."""

    spool: Spool
    ranges: list[Range]
    users: int
    items: int

    def kept(self, *names: str) -> Iterator[tuple[Range, list[npt.NDArray[Any]]]]:
        """Range by range: the wanted columns of its kept rows."""
        for part in self.ranges:
            keep = self.spool.read("keep", part.start, part.stop)
            yield part, [self.spool.read(name, part.start, part.stop)[keep] for name in names]

    def drop(self, part: Range, gone: npt.NDArray[np.bool_]) -> None:
        """Leaves out some of the rows of a range that are still kept; `gone` has one flag for each of these."""
        if gone.any():
            keep = self.spool.read("keep", part.start, part.stop)
            keep[np.flatnonzero(keep)[gone]] = False
            self.spool.write("keep", part.start, keep)

    def counts(self) -> tuple[IntArray, IntArray]:
        """(users), (items): kept rows of each."""
        users, items = np.zeros(self.users, np.int64), np.zeros(self.items, np.int64)
        for _, (user, item) in self.kept("user", "item"):
            users += np.bincount(user, minlength=self.users)
            items += np.bincount(item, minlength=self.items)
        return users, items

    def tally(self) -> Tally:
        users, items = self.counts()
        return Tally(int(users.sum()), int((users > 0).sum()), int((items > 0).sum()))


def ranges_of(counts: IntArray, rows: int) -> list[Range]:
    """Consecutive users, cut so that each range has about `rows` rows at most."""
    stops = np.cumsum(counts)
    ranges, first, start = [], 0, 0
    while first < len(counts):
        last = max(int(np.searchsorted(stops, start + rows, side="right")), first + 1)
        ranges.append(Range(first, last, start, int(stops[last - 1])))
        first, start = last, int(stops[last - 1])
    return ranges


def sort(unsorted: Spool, ordered: Spool, counts: IntArray, items: int, rows: int = RANGE_ROWS) -> Ordered:
    """Fills `ordered`, which has the columns of `unsorted` and `keep`; `counts` are the rows of each user."""
    ranges = ranges_of(counts, rows)
    _deal(unsorted, ordered, ranges)
    ordered.rows = unsorted.rows
    for part in ranges:
        _sort_range(unsorted, ordered, part)
    return Ordered(ordered, ranges, len(counts), items)


def reorder(log: Ordered, rank: Callable[[IntArray], IntArray]) -> None:
    """Sorts the kept rows of each user anew, stably.

    Args:
        log: what is changed.
        rank: (rows) ascending users of some kept rows, all of theirs -> (rows) what they are sorted by within a user.
    """
    for part in log.ranges:
        kept = np.flatnonzero(log.spool.read("keep", part.start, part.stop))
        user = log.spool.read("user", part.start, part.stop)[kept]
        order = np.lexsort((rank(user), user))
        for name in log.spool.columns:
            values = log.spool.read(name, part.start, part.stop)
            values[kept] = values[kept[order]]
            log.spool.write(name, part.start, values)


def _deal(unsorted: Spool, ordered: Spool, ranges: list[Range]) -> None:
    """Every row to the place of its range, in input order within it."""
    firsts = np.array([part.first for part in ranges])
    free = [part.start for part in ranges]
    for start, stop in unsorted.blocks():
        user = unsorted.read("user", start, stop)
        target = np.searchsorted(firsts, user, side="right") - 1
        order = np.argsort(target.astype(np.min_scalar_type(len(ranges))), kind="stable")
        sizes = np.bincount(target, minlength=len(ranges))
        ends = np.cumsum(sizes)
        for name in unsorted.columns:
            values = unsorted.read(name, start, stop)[order]
            for index in np.flatnonzero(sizes):
                ordered.write(name, free[index], values[ends[index] - sizes[index] : ends[index]])
        free = [place + int(size) for place, size in zip(free, sizes, strict=True)]


def _sort_range(unsorted: Spool, ordered: Spool, part: Range) -> None:
    values = {name: ordered.read(name, part.start, part.stop) for name in unsorted.columns}
    order = _order(values["user"] - part.first, values.get("split"), values["time"])
    for name, column in values.items():
        ordered.write(name, part.start, column[order])
    ordered.write("keep", part.start, np.ones(part.stop - part.start, np.bool_))


def _order(user: IntArray, split: IntArray | None, time: IntArray) -> IntArray:
    """Stable order by (user, split, time): one sort of one number where the three fit into 63 bits."""
    group = user.astype(np.int64) * 4 + (split if split is not None else 0)
    low, high = int(time.min(initial=0)), int(time.max(initial=0))
    bits = (high - low).bit_length()
    if int(group.max(initial=0)).bit_length() + bits <= 62:
        return np.argsort((group << bits) + (time - low), kind="stable")
    return np.lexsort((time, group))
