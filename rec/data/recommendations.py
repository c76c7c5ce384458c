"""Files of what was recommended, written a block of rows at a time and there when all of them are."""

import csv
import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from rec.errors import DatasetError
from rec.files import sync

FORMATS = (".csv", ".parquet", ".jsonl")
GROUP = 2**17
"""Rows of a Parquet file that are compressed together, at least; fewer at its end."""


class Row(NamedTuple):
    """A line of the file."""

    user: str | None
    """External id; None for a person with no name."""
    rank: int
    """From 1."""
    item: str
    score: float
    title: str


SCHEMA = pa.schema(
    {"user": pa.string(), "rank": pa.int64(), "item": pa.string(), "score": pa.float64(), "title": pa.string()}
)


class Recommendations:
    """A new *.csv, *.parquet or *.jsonl file, which gets its name when a `with` around it ends without an error."""

    def __init__(self, file: Path) -> None:
        """Begins beside the file.

        Raises:
            DatasetError: if the format is unknown, or the disk refuses, here and whenever rows are written.
        """
        require_format(file)
        self.file, self.beside = file, file.with_name(file.name + ".tmp")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.is_dir():  # else it is told when all is written
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            self._begin()
        except OSError as error:
            raise self._refused(error) from None

    def _begin(self) -> None:
        self.waiting: list[Row] = []
        if self.file.suffix == ".parquet":
            self.parquet = pq.ParquetWriter(self.beside, SCHEMA)
            return
        self.out: IO[str] = self.beside.open("w", newline="" if self.file.suffix == ".csv" else None, encoding="utf-8")
        if self.file.suffix == ".csv":
            csv.writer(self.out).writerow(Row._fields)

    def write(self, rows: list[Row]) -> None:
        """Adds rows to the end."""
        try:
            match self.file.suffix:
                case ".csv":
                    csv.writer(self.out).writerows(rows)
                case ".jsonl":
                    self.out.writelines(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rows)
                case _:
                    self.waiting += rows
                    if len(self.waiting) >= GROUP:
                        self._write_group()
        except OSError as error:
            raise self._refused(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            self._close()
            self.beside.unlink(missing_ok=True)
            return
        try:
            if self.waiting:
                self._write_group()
            self._close()
            sync(self.beside)
            self.beside.replace(self.file)
        except OSError as failure:
            raise self._refused(failure) from None

    def _write_group(self) -> None:
        columns: list[Any] = list(zip(*self.waiting, strict=True))
        self.parquet.write_table(pa.table(columns, schema=SCHEMA))
        self.waiting = []

    def _close(self) -> None:
        (self.parquet if self.file.suffix == ".parquet" else self.out).close()

    def _refused(self, error: OSError) -> DatasetError:
        with suppress(OSError):  # there may be no such folder
            self.beside.unlink()
        return DatasetError(f"cannot write {self.file}: {error.strerror or error}; choose another place")


def require_format(file: Path) -> None:
    """Raises DatasetError for a name that says no format."""
    if file.suffix not in FORMATS:
        raise DatasetError(f"cannot tell the format of {file}; end its name in .csv, .parquet or .jsonl")
