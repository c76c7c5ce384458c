"""Logs with one interaction a line and a separator between the fields: CSV, TSV, `::`, RecBole atomic files."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv as arrow_csv

from rec.data.raw.chunk import BadLines, Raw, Role
from rec.data.raw.files import Source, first_line
from rec.errors import DatasetError

csv.field_size_limit(1 << 30)

BLOCK = 1 << 21
"""Bytes of a chunk. Arrow reads up to 32 of them ahead, whatever the consumer does: they bound the memory."""


@dataclass(frozen=True)
class Dialect:
    """How the fields of a line are told apart."""

    separator: str = ","
    """One character, or `::`."""
    names: tuple[str, ...] = ()
    """The columns of a file without a header line."""
    quotes: bool = True
    """Whether a field may stand in double quotes."""

    @property
    def one(self) -> str:
        """The separator as one character, after reading."""
        return "\t" if self.separator == "::" else self.separator

    @property
    def quoting(self) -> Literal[0, 3]:
        """The same for Python's reader."""
        return csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE

    def open(self, file: Path) -> Source:
        """The bytes of the file, its separator being `one`."""
        return Source(file, replace=(b"::", b"\t") if self.separator == "::" else None)


def read(file: Path, dialect: Dialect, header: list[str], columns: Mapping[Role, str], bad: BadLines) -> Iterator[Raw]:
    """The wanted columns, block by block. `header` names all columns of the file, in order."""
    torn: list[object] = []

    def handle(row: object) -> str:
        torn.append(row)
        return "skip"

    names = [f"{position}" for position in range(len(header))]
    wanted: dict[Role, str] = {role: names[header.index(name)] for role, name in columns.items()}
    with dialect.open(file) as source:
        batches = _open(source, dialect, names, list(dict.fromkeys(wanted.values())), handle)
        start = 0
        while True:
            try:
                batch = batches.read_next_batch()
            except StopIteration:
                batch = None
            except pa.ArrowInvalid as error:
                raise DatasetError(
                    f"{file} cannot be read as lines of fields: {error}; choose another --format"
                ) from None
            if torn:
                bad.found(lambda: f"{file} line {_torn_line(file, dialect, len(names))}",
                          f"not {len(names)} fields separated by {_shown(dialect)}", len(torn))  # fmt: skip
                torn.clear()
            if batch is None:
                return
            where = _Where(file, dialect, len(names), start)
            yield Raw({role: batch.column(name) for role, name in wanted.items()}, where, source.done / source.size)
            start += batch.num_rows


def _open(
    source: Source, dialect: Dialect, names: list[str], wanted: list[str], handle: Callable[[object], str]
) -> Any:
    try:
        return arrow_csv.open_csv(
            pa.PythonFile(source, mode="r"),
            read_options=arrow_csv.ReadOptions(
                block_size=BLOCK, column_names=names, skip_rows=0 if dialect.names else 1
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=dialect.one,
                quote_char='"' if dialect.quotes else False,
                newlines_in_values=dialect.quotes,
                invalid_row_handler=handle,
            ),
            # as bytes: what is no text, number or time is then found row by row, by `values`
            convert_options=arrow_csv.ConvertOptions(
                column_types={name: pa.binary() for name in names}, include_columns=wanted
            ),
        )
    except pa.ArrowInvalid as error:
        raise DatasetError(f"{source.file} holds no lines of fields ({error}); choose another --format") from None


@dataclass(frozen=True)
class _Where:
    """Row of a chunk -> its line, by reading the file once more, slowly: only needed for an error."""

    file: Path
    dialect: Dialect
    width: int
    start: int

    def __call__(self, row: int) -> str:
        seen = -1
        for line, fields in _rows(self.file, self.dialect):
            seen += len(fields) == self.width
            if seen == self.start + row:
                return f"{self.file} line {line}"
        return f"{self.file} row {self.start + row + 1}"


def _torn_line(file: Path, dialect: Dialect, width: int) -> int:
    return next((line for line, fields in _rows(file, dialect) if len(fields) != width), 0)


def _rows(file: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, fields) of every row below the header; empty lines are passed over."""
    with dialect.open(file) as source:
        text = io.TextIOWrapper(io.BufferedReader(source, BLOCK), encoding="utf-8", errors="replace", newline="")
        reader = csv.reader(text, delimiter=dialect.one, quoting=dialect.quoting)
        header, line = not dialect.names, 1
        for fields in reader:
            if fields and not header:
                yield line, fields
            header, line = False, reader.line_num + 1


def header_of(file: Path, dialect: Dialect) -> list[str]:
    """The names in the first line of the file, or those the dialect gives."""
    if dialect.names:
        return list(dialect.names)
    line = first_line(file)
    return next(csv.reader([line], delimiter=dialect.one, quoting=dialect.quoting), [])


def _shown(dialect: Dialect) -> str:
    names = {"\t": "tabs", ",": "commas", " ": "spaces"}
    return names.get(dialect.separator, f"'{dialect.separator}'")
