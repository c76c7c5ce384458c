"""Which documents there are: for each template the interactions, items, values or users that it can speak of.

Nothing is tokenised here, and texts are not read but for their size. Of interactions only those that train are known.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rec.config.graph_llm import Template
from rec.data.dataset import TRAIN_STOP, Dataset, IntArray
from rec.data.texts import Texts
from rec.errors import ConfigError
from rec.graph.values import COLUMNS, shared_by

LETTERS = 4
"""Bytes of text that are taken for a token where nothing hangs on it."""


@dataclass(frozen=True)
class Source:
    """The documents of one template, numbered 0, 1, ..."""

    user_D: IntArray
    """Row of the user whom a document is about; 0 where there is none."""
    length_D: IntArray
    """About how many tokens it has."""

    def items(self, document: int) -> IntArray:
        """(n) distinct item rows that it is about, in stored order where there is one."""
        return np.empty(0, np.int64)

    def text(self, document: int) -> str:
        """The text that is predicted."""
        return ""


@dataclass(frozen=True)
class Interactions(Source):
    """Training interactions with a text."""

    dataset: Dataset
    texts: Texts
    position_D: IntArray

    def items(self, document: int) -> IntArray:
        return self.dataset.item_rows[self.position_D[document]].astype(np.int64).reshape(1)

    def text(self, document: int) -> str:
        return self.texts[int(self.position_D[document])]


@dataclass(frozen=True)
class Items(Source):
    """Items with a value in a column."""

    column: pa.ChunkedArray
    item_D: IntArray

    def items(self, document: int) -> IntArray:
        return self.item_D[document : document + 1]

    def text(self, document: int) -> str:
        return str(self.column[int(self.item_D[document]) - 1])


@dataclass(frozen=True)
class Groups(Source):
    """Values that several items share."""

    values: Sequence[str]
    members: Sequence[IntArray]

    def items(self, document: int) -> IntArray:
        return self.members[document]

    def text(self, document: int) -> str:
        return self.values[document]


@dataclass(frozen=True)
class Histories(Source):
    """Users with enough training interactions."""

    dataset: Dataset

    def items(self, document: int) -> IntArray:
        row = self.dataset.train_items(int(self.user_D[document]))
        _, first = np.unique(row, return_index=True)
        return row[np.sort(first)].astype(np.int64)


def require_field(dataset: Dataset, name: str, template: Template) -> None:
    """Raises ConfigError if the dataset has no such text as a template asks for; reads none of it."""
    field = template.field
    match template.use:
        case "interaction":
            present, remedy = list(dataset.texts), "prepare it with --keep-text (reason: --reason-column)"
            found = field in present
        case "item" | "group":
            present, remedy = _columns(dataset), "prepare it with --items FILE"
            found = _named(field, present) is not None
        case _:
            return
    if not found:
        near = difflib.get_close_matches(field, [*present, "review", "reason"], n=1, cutoff=0.6)
        meant = f"did you mean '{near[0]}'? Else " if near and near[0] != field else ""
        raise ConfigError(
            f"model.prompts.{name} asks for '{field}', which {dataset.root} has not "
            f"(there: {', '.join(present) or 'none'}); {meant}{remedy}, or add '{name}' to model.leave_out"
        )


def source(dataset: Dataset, name: str, template: Template) -> Source:
    """The documents of a template.

    Raises:
        ConfigError: if the dataset has no such text, or none of it.
    """
    require_field(dataset, name, template)
    match template.use:
        case "history" | "predictive":
            return _histories(dataset, 1 if template.use == "history" else 2)
        case "interaction":
            found: Source = _interactions(dataset, template.field)
        case "item":
            found = _items(dataset, template.field)
        case "group":
            found = _groups(dataset, template.field)
    if not len(found.user_D):
        raise ConfigError(
            f"model.prompts.{name} finds no '{template.field}' in {dataset.root}; add '{name}' to model.leave_out"
        )
    return found


def _histories(dataset: Dataset, least: int) -> Histories:
    lengths = dataset.bounds[:, TRAIN_STOP].astype(np.int64)
    users = np.flatnonzero(lengths >= least)
    if least > 1:  # repetitions are no items of their own
        users = np.array([user for user in users if len(np.unique(dataset.train_items(int(user)))) >= least], np.int64)
    return Histories(users, lengths[users], dataset)


def _interactions(dataset: Dataset, field: str) -> Interactions:
    texts = Texts(dataset.root / "texts", field)
    positions = np.flatnonzero(dataset.train_positions())
    sizes = texts.sizes(positions)
    positions, sizes = positions[sizes > 0], sizes[sizes > 0]
    owners = np.searchsorted(dataset.offsets, positions, side="right") - 1
    return Interactions(owners, sizes // LETTERS, dataset, texts, positions)


def _items(dataset: Dataset, field: str) -> Items:
    column, _ = _column(dataset, field)
    sizes = pc.binary_length(column).fill_null(0).to_numpy()
    rows = np.flatnonzero(sizes) + 1
    return Items(np.zeros(len(rows), np.int64), sizes[rows - 1] // LETTERS, column, rows)


def _groups(dataset: Dataset, field: str) -> Groups:
    column, named = _column(dataset, field)
    values, members = shared_by(named, column.fill_null("").to_pylist())
    lengths = np.array([len(rows) for rows in members], np.int64)
    return Groups(np.zeros(len(values), np.int64), lengths, values, members)


def _column(dataset: Dataset, field: str) -> tuple[pa.ChunkedArray, str]:
    """The column of a field that is there, and its name."""
    found = _named(field, _columns(dataset))
    assert found is not None
    return pq.read_table(dataset.root / "items.parquet", columns=[found])[found].cast(pa.string()), found


def _columns(dataset: Dataset) -> list[str]:
    """What is known of items."""
    return [name for name in pq.read_schema(dataset.root / "items.parquet").names if name not in ("row", "item")]


def _named(field: str, present: Sequence[str]) -> str | None:
    """The column of a field: {category} and {brand} are found under any name that shops give them."""
    return next((column for column in (field, *COLUMNS.get(field, ())) if column in present), None)
