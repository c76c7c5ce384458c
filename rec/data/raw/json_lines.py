"""Logs with one record a line: JSON, or Python literals as in the Amazon files of 2014."""

import ast
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as arrow_json

from rec.data.raw.chunk import BadLines, Raw, Role
from rec.data.raw.files import Source, blocks, first_line, not_utf8

KINDS = {str: pa.string(), int: pa.int64(), float: pa.float64()}


def record(line: str) -> dict[str, Any]:
    """One line as a record. ValueError if it is neither a JSON object nor a Python dictionary."""
    try:
        value = json.loads(line)
    except ValueError:
        try:
            value = ast.literal_eval(line)
        except (SyntaxError, MemoryError, RecursionError, TypeError):
            raise ValueError("not a record") from None
    if not isinstance(value, dict):
        raise ValueError("not a record")
    return value


def keys_of(file: Path) -> dict[str, Any]:
    """The first record of the file; empty if its first line is none."""
    try:
        return record(first_line(file))
    except ValueError:
        return {}


def read(file: Path, columns: Mapping[Role, str], bad: BadLines) -> Iterator[Raw]:
    """The wanted keys, block by block: by Arrow while every line is alike, else line by line."""
    schema = _schema(keys_of(file), columns)
    with Source(file) as source:
        for block, line in blocks(source):
            table = _by_arrow(block, schema)
            if table is None:
                yield replace(_by_line(file, block, line, columns, bad), done=source.done / source.size)
                continue
            found = {role: table.column(name).combine_chunks() for role, name in columns.items()}
            yield Raw(found, _Where(file, block, line), source.done / source.size)


def _schema(first: Mapping[str, Any], columns: Mapping[Role, str]) -> pa.Schema:
    """Types as in the first record; a block in which they differ is read line by line."""
    kinds = {name: KINDS.get(type(first.get(name)), pa.string()) for name in columns.values()}
    if kinds.get(columns.get("rating", "")) == pa.int64():
        kinds[columns["rating"]] = pa.float64()  # 5 here may be 4.5 further on
    return pa.schema(list(kinds.items()))


def _by_arrow(block: bytes, schema: pa.Schema) -> pa.Table | None:
    try:
        block.decode()  # Arrow takes broken UTF-8 without a word
        table = arrow_json.read_json(
            io.BytesIO(block),
            read_options=arrow_json.ReadOptions(block_size=1 << 22),
            parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
        return None
    return table if table.num_rows == sum(1 for _ in _lines(block)) else None


def _by_line(file: Path, block: bytes, first: int, columns: Mapping[Role, str], bad: BadLines) -> Raw:
    values: dict[Role, list[str | None]] = {role: [] for role in columns}
    numbers = []
    for number, line in _lines(block, first):
        try:
            found = record(line.decode())
        except UnicodeDecodeError:
            if not bad.skip:
                raise not_utf8(file, number) from None
            bad.skipped += 1
        except ValueError:
            bad.found(lambda at=number: f"{file} line {at}", "neither a JSON object nor a Python dictionary")  # type: ignore[misc]
        else:
            numbers.append(number)
            for role, name in columns.items():
                values[role].append(_plain(found.get(name)))
    arrays = {role: pa.array(found, pa.string()) for role, found in values.items()}
    return Raw(arrays, lambda row: f"{file} line {numbers[row]}")


def _plain(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def _lines(block: bytes, first: int = 1) -> Iterator[tuple[int, bytes]]:
    """(number, line) of the lines that hold anything."""
    return ((number, line) for number, line in enumerate(block.split(b"\n"), first) if line.strip())


@dataclass(frozen=True)
class _Where:
    file: Path
    block: bytes
    first: int

    def __call__(self, row: int) -> str:
        return f"{self.file} line {[number for number, _ in _lines(self.block, self.first)][row]}"
