"""Writing: the kept rows of an ordered log, range by range, as the files of `rec.data.dataset`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rec.data import split
from rec.data.dataset import IntArray
from rec.data.options import Options, SplitKind
from rec.data.ordered import Ordered
from rec.data.store import Writer


@dataclass(frozen=True)
class Rows:
    """Codes of a log -> rows of the dataset, for the users and items that are in it."""

    user: IntArray
    """(codes) row of each user code; meaningless where the code is not in the dataset."""
    item: IntArray
    users: pa.StringArray
    """External ids by row - 1."""
    items: pa.StringArray
    lengths: IntArray
    """(users) kept interactions of each."""


def rows_of(log: Ordered, users: pa.StringArray, items: pa.StringArray, old: tuple[int, int]) -> Rows:
    """Numbers what is left; the first `old` users and items stay even where nothing of theirs is left."""
    of_user, of_item = log.counts()
    with_user, with_item = of_user > 0, of_item > 0
    with_user[: old[0]] = True
    with_item[: old[1]] = True
    return Rows(np.cumsum(with_user), np.cumsum(with_item), users.filter(pa.array(with_user)),
                items.filter(pa.array(with_item)), of_user[with_user])  # fmt: skip


def bounds_of(log: Ordered, rows: Rows, kind: SplitKind, options: Options) -> tuple[IntArray, dict[str, Any]]:
    """((users + 1, 5) bounds with the padding row, what the manifest says of the split)."""
    said: dict[str, Any] = {"name": kind.replace("-", "_")}
    if kind == "leave-one-out":
        bounds = split.leave_one_out(rows.lengths)
    elif kind == "ratio":
        said["at"] = split.fractions(options)
        bounds = split.ratio(rows.lengths, split.fractions(options))
    elif kind == "random":
        said |= {"at": split.fractions(options), "seed": options.seed}
        bounds = split.random(rows.lengths, split.fractions(options))
    elif kind == "held-out":
        said |= {"at": split.fractions(options), "seed": options.seed}
        bounds = split.held_out(rows.lengths, rows.users, options.seed, split.fractions(options))
    else:
        cuts = (split.moments(options) or _quantiles(log, split.fractions(options))) if kind == "time" else None
        if cuts:
            said["at"] = cuts
        bounds = split.by_counts(*_part_counts(log, rows, cuts))
    return np.concatenate([np.zeros((1, 5), np.int32), bounds]), said


def _part_counts(log: Ordered, rows: Rows, cuts: tuple[int, int] | None) -> list[IntArray]:
    """(users) rows in train, valid and test: before, between and after the cuts, or as the log's split column says."""
    counts: list[IntArray] = [np.zeros(len(rows.lengths), np.int64) for _ in range(3)]
    for _, (user, value) in log.kept("user", "time" if cuts else "split"):
        part = np.searchsorted(cuts, value, side="right") if cuts else value
        for index, count in enumerate(counts):
            count += np.bincount(rows.user[user[part == index]] - 1, minlength=len(count))
    return counts


def _quantiles(log: Ordered, shares: tuple[float, float]) -> tuple[int, int]:
    """The times of the rows at two shares of the log in order of time, by bisection: they need not fit in memory."""
    total = log.tally().rows
    wanted = np.array([int(total * share + 1e-6) for share in shares])
    low, high = np.zeros(2, np.int64), np.full(2, 1 << 43, np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        below = np.zeros(2, np.int64)
        for _, (time,) in log.kept("time"):
            below += (time[:, None] <= middle).sum(axis=0)
        low, high = np.where(below > wanted, low, middle + 1), np.where(below > wanted, middle, high)
    return int(low[0]), int(low[1])


class Interactions:
    """Writes the sequences and `interactions.parquet`, and counts what is worth knowing about their order."""

    def __init__(self, writer: Writer, rows: Rows, has_times: bool):
        total = int(rows.lengths.sum())
        self._rows, self._has_times = rows, has_times
        self._items = writer.column("sequences/items", "<i4", total)
        self._times = writer.column("sequences/times", "<i8", total)
        self._ratings = writer.column("sequences/ratings", "<f4", total)
        fields = {"user": pa.string(), "item": pa.string(), "rating": pa.float32(), "split": pa.string()}
        if has_times:
            fields["timestamp"] = pa.timestamp("ms", tz="UTC")
        self._schema = pa.schema(list(fields.items()))
        self._file = writer.beside / "interactions.parquet"
        self._neighbours = self._tied = self._repeated = self._turned = 0
        self.parts = np.zeros(4, np.int64)
        """Interactions by part of the split."""

    def write(self, log: Ordered, offsets: IntArray, bounds: IntArray) -> None:
        """All kept rows, in order."""
        with pq.ParquetWriter(self._file, self._schema) as parquet:
            for part, (user, item, time, rating) in log.kept("user", "item", "time", "rating"):
                if not len(user):
                    continue
                self._count(user - part.first, item, time, log.items)
                user_row, item_row = self._rows.user[user], self._rows.item[item]
                self._items.append(item_row)
                self._times.append(time)
                self._ratings.append(rating)
                start = int(offsets[user_row[0]])
                within = np.arange(start, start + len(user)) - offsets[user_row]
                of_split = split.row_parts(within, bounds[user_row])
                self.parts += np.bincount(of_split, minlength=4)
                parquet.write_table(self._table(user_row, item_row, time, rating, of_split))

    def _table(
        self, user: IntArray, item: IntArray, time: IntArray, rating: npt.NDArray[np.float32], part: IntArray
    ) -> pa.Table:
        columns = {
            "user": self._rows.users.take(pa.array(user - 1)),
            "item": self._rows.items.take(pa.array(item - 1)),
            "rating": pa.array(rating),
            "split": pa.array(split.NAMES).take(pa.array(part)),
        }
        if self._has_times:
            columns["timestamp"] = pa.array(time).cast(self._schema.field("timestamp").type)
        return pa.table(columns, schema=self._schema)

    def _count(self, user: IntArray, item: IntArray, time: IntArray, items: int) -> None:
        together = user[1:] == user[:-1]
        self._neighbours += int(together.sum())
        self._tied += int((together & (time[1:] == time[:-1])).sum())
        self._turned += len(np.unique(user[1:][together & (time[1:] < time[:-1])]))
        pairs = np.sort(user.astype(np.int64) * items + item)
        self._repeated += int((pairs[1:] == pairs[:-1]).sum())

    def report(self) -> dict[str, Any]:
        """Shares of neighbours within a user with equal times, of repeated pairs, of users whose times go back."""
        total, users = int(self._rows.lengths.sum()), len(self._rows.users)
        return {
            "tied_timestamps": round(self._tied / max(self._neighbours, 1), 6) if self._has_times else None,
            "repeated_pairs": round(self._repeated / total, 6),
            "users_not_in_time_order": round(self._turned / users, 6),
        }
