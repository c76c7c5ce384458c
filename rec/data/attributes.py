"""Attributes and texts of users and items, from a file of their own, in the order of the dataset's rows."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.raw.chunk import BadLines
from rec.data.raw.columnar import ROWS
from rec.data.raw.delimited import Dialect, header_of
from rec.data.raw.delimited import read as read_delimited
from rec.data.raw.files import Source, blocks, not_utf8
from rec.data.raw.json_lines import record
from rec.errors import DatasetError

Kind = Literal["user", "item"]
Record = dict[str, Any]

ID_NAMES: dict[Kind, tuple[str, ...]] = {
    "user": ("user", "user_id", "userId", "reviewerID", "ReviewerID"),
    "item": ("item", "item_id", "parent_asin", "asin", "movieId", "ProductID"),
}
"""Names of the id, in order of preference; the first column where there is none of them."""
TITLES = ("title", "movie_title", "name", "product_name")
WORDS = ("categories", "category", "main_category", "genres", "genre", "class", "brand", "store", "features",
         "description")  # fmt: skip
"""Columns that follow the title in a derived `text`."""


def attach(table: pa.Table, kind: Kind, file: Path) -> pa.Table:
    """The table of ids with the columns of the file; rows that the file does not know stay empty."""
    places = {text: place for place, text in enumerate(table.column(kind).to_pylist())}
    found: dict[int, Record] = {}
    for entry in _records(file):
        named = next((name for name in ID_NAMES[kind] if name in entry), next(iter(entry), None))
        place = places.get(_text(entry.pop(named))) if named is not None else None
        if place is not None:
            found.setdefault(place, entry)  # the first of several entries counts
    if not found:
        raise DatasetError(
            f"{file} describes none of the {table.num_rows} {kind}s; check that its first column, or one named "
            f"'{kind}' or '{kind}_id', holds the ids of the log"
        )
    if kind == "item":
        for entry in found.values():
            _derive(entry)
    names = list(dict.fromkeys(name for entry in found.values() for name in entry))
    for name in names:
        column = _column([found.get(place, {}).get(name) for place in range(table.num_rows)])
        if column is not None:
            table = _with(table, name if name not in ("row", kind) else f"{name}_given", column)
    return table


def inherit(table: pa.Table, old: pa.Table) -> pa.Table:
    """The table of ids with the attributes of a dataset whose rows are its first ones."""
    for name in old.column_names[2:]:
        column = old.column(name)
        table = table.append_column(
            name, pa.chunked_array([*column.chunks, pa.nulls(len(table) - len(old), column.type)])
        )
    return table


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    """A column added, or laid over the one of that name."""
    if name not in table.column_names:
        return table.append_column(name, column)
    before = table.column(name)
    if before.type != column.type:
        before, column = before.cast(pa.string()), column.cast(pa.string())
    return table.set_column(table.column_names.index(name), name, pc.coalesce(column, before))


def described(table: pa.Table) -> int:
    """How many rows have any attribute."""
    known = np.zeros(len(table), np.bool_)
    for column in table.columns[2:]:
        known |= column.is_valid().to_numpy()
    return int(known.sum())


def _records(file: Path) -> Iterator[Record]:
    """Every entry of the file with its values as found. DatasetError names file and line."""
    name = file.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        yield from _parquet(file)
        return
    with Source(file) as source:
        start = source.read(1 << 12)
    if start.lstrip()[:1] in (b"{", b"["):
        yield from _json(file, name)
        return
    first = start.split(b"\n")[0]
    dialect = Dialect("\t", quotes=b":token" not in first) if b"\t" in first else Dialect()
    header = header_of(file, dialect)
    plain = [column.partition(":")[0] if not dialect.quotes else column for column in header]
    roles: Mapping[Any, str] = {"user": header[0], **dict(zip(header, header, strict=True))}
    for raw in read_delimited(file, dialect, header, roles, BadLines()):
        found: Mapping[Any, pa.Array] = raw.columns
        columns = [_decoded(file, found[column]) for column in header]
        for row in zip(*columns, strict=True):
            yield {key: value or None for key, value in zip(plain, row, strict=True)}


def _decoded(file: Path, column: pa.Array) -> list[str]:
    try:
        return column.cast(pa.string()).to_pylist()
    except pa.ArrowInvalid:
        raise DatasetError(f"{file} is not UTF-8 text; convert it, for example with `iconv -t utf-8`") from None


def _parquet(file: Path) -> Iterator[Record]:
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(file).iter_batches(ROWS):
            yield from batch.to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{file} is not a whole Parquet file ({error}); write it again") from None


def _json(file: Path, name: str) -> Iterator[Record]:
    """JSON lines; or one JSON object: id -> an object, a list or a text."""
    with Source(file) as source:
        for block, first in blocks(source):
            for number, line in enumerate(block.split(b"\n"), first):
                if not line.strip():
                    continue
                try:
                    entry = record(line.decode())
                except UnicodeDecodeError:
                    raise not_utf8(file, number) from None
                except ValueError:
                    if number == 1 and not name.endswith(".jsonl"):
                        yield from _one_object(file)
                        return
                    raise DatasetError(f"{file} line {number} is no JSON object; correct it or remove it") from None
                yield from _entries(entry) if number == 1 and _is_map(entry) else [entry]


def _one_object(file: Path) -> Iterator[Record]:
    with Source(file) as source:
        try:
            whole = json.loads(source.read(-1))
        except ValueError as error:
            raise DatasetError(f"{file} is not JSON ({error}); correct it") from None
    if isinstance(whole, dict):
        yield from _entries(whole)
    elif all(isinstance(entry, dict) for entry in whole):
        yield from whole


def _is_map(entry: Record) -> bool:
    """Whether a record is a table from ids to values rather than one entry."""
    kinds = {type(value) for value in entry.values()}
    return (
        len(kinds) == 1
        and kinds <= {list, dict}
        and not set(entry) & {name for names in ID_NAMES.values() for name in names}
    )


def _entries(entry: Record) -> Iterator[Record]:
    for key, value in entry.items():
        yield {"id": key, **value} if isinstance(value, dict) else {"id": key, "attributes": value}


def _derive(entry: Record) -> None:
    """Adds `title`, `text` and `categories` where the entry has none but something they can be made of.

    A text that was made as ours is, "title | path > of > categories", gives its parts back.
    """
    title = next((text for name in TITLES if (text := _text(entry.get(name)))), "")
    if "text" not in entry:
        parts = [title, *(_text(entry.get(name)) for name in WORDS)]
        if any(parts):
            entry["text"] = " | ".join(part for part in parts if part)
    text = _text(entry.get("text"))
    if "title" not in entry and (title or text):
        entry["title"] = title or text.split(" | ")[0]
    path = text.rpartition(" | ")[2]
    if " > " in path and not set(entry) & {"categories", "category"}:
        entry["categories"] = path


def _column(values: list[Any]) -> pa.Array | None:
    """Whole numbers or numbers where all values are; texts otherwise; None for lists of records, such as images."""
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if any(isinstance(value, list) and any(isinstance(part, dict) for part in value) for value in present):
        return None
    if kinds and kinds <= {int, float}:
        return pa.array(values, pa.int64() if kinds == {int} else pa.float64())
    return pa.array([_text(value) or None for value in values], pa.string())


def _text(value: Any) -> str:
    """A value as a person would write it: lists by commas, paths of categories by `>`, records as JSON."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True) if value else ""
    if isinstance(value, list | tuple):
        return ", ".join(_parts(value))
    return str(value).strip()


def _parts(values: Iterable[Any]) -> list[str]:
    texts = [" > ".join(map(_text, value)) if isinstance(value, list) else _text(value) for value in values]
    return [text for text in texts if text]
