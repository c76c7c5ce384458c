"""Reading: a log, and the dataset it is added to, into a spool of codes; the row filters act on the way."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rec.data import split, texts
from rec.data.dataset import Dataset, IntArray
from rec.data.filters import RowFilter
from rec.data.ids import Ids, Marks
from rec.data.raw.chunk import Chunk
from rec.data.raw.reading import Log
from rec.data.spool import BLOCK_ROWS, Spool, TextSpool
from rec.errors import DatasetError

Funnel = list[dict[str, Any]]
"""One entry for each step: its name and the rows, users and items that are left after it."""


@dataclass
class Intake:
    """Rows in input order, coded."""

    spool: Spool
    users: Ids = field(default_factory=Ids)
    items: Ids = field(default_factory=Ids)
    funnel: Funnel = field(default_factory=list)
    has_times: bool = True
    texts: dict[str, TextSpool] = field(default_factory=dict)
    """Name -> the texts that are kept."""
    positions: int = 0
    """Input position of the next row: stands for its time where a log has none."""

    @property
    def counts(self) -> IntArray:
        """(users) rows of each user in the spool."""
        counts = np.zeros(len(self.users), np.int64)
        for start, stop in self.spool.blocks():
            counts += np.bincount(self.spool.read("user", start, stop), minlength=len(counts))
        return counts


def columns(with_split: bool, with_texts: list[str]) -> dict[str, str]:
    """The columns of a spool."""
    numbers = {"user": "<i4", "item": "<i4", "time": "<i8", "rating": "<f4", **({"split": "<i1"} if with_split else {})}
    return {**numbers, **texts.columns(with_texts)}


def take(intake: Intake, log: Log, filters: list[RowFilter], progress: Callable[[float, int], None]) -> None:
    """Adds a log. DatasetError if it holds no row at all."""
    steps = [_Step(name) for name in ["read", *(name for name, _ in filters)]]
    for chunk, done in log.chunks():
        user, item = intake.users.encode(chunk.user), intake.items.encode(chunk.item)
        keep = np.ones(chunk.rows, np.bool_)
        steps[0].add(user, item, intake)
        for step, (_, passes) in zip(steps[1:], filters, strict=True):
            keep &= passes(chunk)
            step.add(user[keep], item[keep], intake)
        values = {"user": user, "item": item, **_values(chunk, intake)}
        kept = {name: column[keep] for name, column in values.items()}
        for name, spool in intake.texts.items():
            kept |= texts.rows(name, spool, *texts.packed(chunk.texts[name].filter(pa.array(keep))))
        intake.spool.append(kept)
        intake.positions += chunk.rows
        progress(done, steps[0].rows)
    if not steps[0].rows:
        raise DatasetError(f"{log.file} holds no interaction; give a log with at least one")
    intake.funnel += [step.entry() for step in steps]


def _values(chunk: Chunk, intake: Intake) -> dict[str, npt.NDArray[Any]]:
    if intake.has_times and chunk.time is not None:
        time = chunk.time
    else:
        time = np.arange(intake.positions, intake.positions + chunk.rows, dtype=np.int64)
    rating = chunk.rating if chunk.rating is not None else np.ones(chunk.rows, np.float32)
    return {"time": time, "rating": rating, **({"split": split.codes(chunk.split)} if chunk.split is not None else {})}


def take_prepared(intake: Intake, dataset: Dataset) -> None:
    """Adds all that a prepared dataset holds, under its own rows, before anything else."""
    intake.users, intake.items = Ids(dataset.user_ids[1:]), Ids(dataset.item_ids[1:])
    for first, last, start, stop in _users(dataset):
        lengths = np.diff(dataset.offsets[first : last + 1])
        user = np.repeat(np.arange(first, last), lengths)
        within = np.arange(start, stop) - dataset.offsets[user]
        intake.spool.append({
            "user": user - 1, "item": dataset.item_rows[start:stop] - 1, "time": dataset.times[start:stop],
            "rating": dataset.ratings[start:stop], "split": split.row_parts(within, dataset.bounds[user]),
            **_prepared_texts(intake, dataset, start, stop),
        })  # fmt: skip
        if not dataset.has_times:
            intake.positions = max(intake.positions, int(dataset.times[start:stop].max(initial=-1)) + 1)
    entry = {"step": "existing", "rows": dataset.interactions, "users": dataset.users, "items": dataset.items}
    intake.funnel.append(entry)


def _prepared_texts(intake: Intake, dataset: Dataset, start: int, stop: int) -> dict[str, IntArray]:
    """Where the texts at some stored positions lie, once they are added."""
    found: dict[str, IntArray] = {}
    for name, spool in intake.texts.items():
        known = texts.Texts(dataset.root / "texts", name)
        begin, end = known.offsets[start], known.offsets[stop]
        found |= texts.rows(name, spool, known.bytes[begin:end], known.sizes(np.arange(start, stop)))
    return found


def _users(dataset: Dataset) -> Iterator[tuple[int, int, int, int]]:
    """(first user, last + 1, first row, last + 1) of pieces of a prepared dataset."""
    first = 1
    while first <= dataset.users:
        start = int(dataset.offsets[first])
        last = max(int(np.searchsorted(dataset.offsets, start + BLOCK_ROWS, side="right")) - 1, first + 1)
        last = min(last, dataset.users + 1)
        yield first, last, start, int(dataset.offsets[last])
        first = last


class _Step:
    """Counts what has passed one step."""

    def __init__(self, name: str):
        self.name, self.rows, self.users, self.items = name, 0, Marks(), Marks()

    def add(self, user: IntArray, item: IntArray, intake: Intake) -> None:
        self.rows += len(user)
        self.users.add(user, len(intake.users))
        self.items.add(item, len(intake.items))

    def entry(self) -> dict[str, Any]:
        return {"step": self.name, "rows": self.rows, "users": len(self.users), "items": len(self.items)}
