"""Columns of items.parquet -> the values that items share.

What counts as a value of an item:

    brand, author     the whole text
    category          each path `A > B > C`, as far as another item goes along with it (Amazon's go over into
                      sentences), and the last level of that, which other paths may end in, too; of a plain list each
                      entry. Several are separated by commas
    genre             each entry of a list by `|` or by commas; by blanks in a column that has neither (RecBole)

Capitals do not matter. A value that only one item has joins nothing, and one that more than a tenth of the catalogue
has, such as "Beauty" in a shop of beauty, says nothing of two items: both are left out.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rec.data.dataset import Dataset, IntArray, ragged

COLUMNS = {
    "brand": ("brand", "store"),
    "category": ("category", "categories"),
    "author": ("author",),
    "genre": ("genres", "genre", "class"),
}
"""Attribute -> the columns it is taken from, the first one that is there."""
COMMON = 0.1
"""Share of the catalogue above which a value says nothing."""

Values = list[list[str]]
"""(items) distinct values of each item, from row 1 on."""


class Held(NamedTuple):
    """The arrays of an `Attribute`."""

    offsets: IntArray
    codes: IntArray
    counts: IntArray


def shared_values(dataset: Dataset) -> Iterator[tuple[str, Held]]:
    """Name and arrays of each attribute of which any value is left."""
    file = dataset.root / "items.parquet"
    present = pq.read_schema(file).names
    for name, columns in COLUMNS.items():
        column = next((column for column in columns if column in present), None)
        if column is not None:
            texts = pq.read_table(file, columns=[column])[column].cast(pa.string()).fill_null("").to_pylist()
            held = _coded(SPLITS[name]([text.strip().casefold() for text in texts]))
            if len(held.codes):
                yield name, held


def _whole(texts: Sequence[str]) -> Values:
    return [[text] if text else [] for text in texts]


def _lists(texts: Sequence[str]) -> Values:
    if any("|" in text or ", " in text for text in texts):
        return [_parts(text.replace("|", ", ")) for text in texts]
    return [text.split() for text in texts]


def _paths(texts: Iterable[str]) -> Values:
    beginnings = [[_beginnings(path) for path in _of_paths(text)] for text in texts]
    items = Counter(begun for paths in beginnings for begun in {begun for path in paths for begun in path})
    values: Values = []
    for paths in beginnings:
        known = [[begun for begun in path if items[begun] > 1] for path in paths]
        longest = [path[-1] for path in known if path]
        values.append([value for path in longest for value in (path, path.split(" > ")[-1])])
    return values


def _of_paths(text: str) -> list[str]:
    """One path or several; a comma may also belong to a name, as in `Clothing, Shoes & Jewelry > Women`."""
    parts = _parts(text)
    return [text] if " > " in text and not all(" > " in part for part in parts) else parts


def _beginnings(path: str) -> list[str]:
    """`A > B > C` -> A, A > B, A > B > C."""
    levels = path.split(" > ")
    return [" > ".join(levels[:depth]) for depth in range(1, len(levels) + 1)]


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(", ") if part.strip()]


SPLITS: dict[str, Callable[[Sequence[str]], Values]] = {
    "brand": _whole,
    "category": _paths,
    "author": _whole,
    "genre": _lists,
}


def _coded(values: Values) -> Held:
    """Values as codes in the order of their texts, without those of one item and those that are too common."""
    distinct = [sorted(set(of_item)) for of_item in values]
    texts = sorted({text for of_item in distinct for text in of_item})
    place = {text: code for code, text in enumerate(texts)}
    codes, offsets = ragged([np.array([place[text] for text in of_item], np.int32) for of_item in distinct])
    counts = np.bincount(codes, minlength=len(texts))
    keep = (counts > 1) & (counts <= COMMON * len(values))
    renumbered, left = np.cumsum(keep) - 1, keep[codes]
    offsets = np.concatenate([[0], np.concatenate([[0], np.cumsum(left)])[offsets]])
    return Held(offsets, renumbered[codes[left]].astype(np.int32), counts[keep].astype(np.int32))


def shared_by(column: str, texts: Sequence[str]) -> tuple[list[str], list[IntArray]]:
    """Values that several items share, and the rows of the items with each; of a column of no known kind, whole texts.

    The same values that make the graph's attributes, under the same rule for those that are too rare or too common.
    """
    name = next((name for name, columns in COLUMNS.items() if column in columns), None)
    values = (SPLITS[name] if name else _whole)([text.strip().casefold() for text in texts])
    members: dict[str, list[int]] = {}
    for row, of_item in enumerate(values, 1):
        for text in set(of_item):
            members.setdefault(text, []).append(row)
    kept = sorted(text for text, rows in members.items() if 1 < len(rows) <= COMMON * len(texts))
    return kept, [np.array(members[text], np.int64) for text in kept]
