"""Parquet files: one, or a folder of them read in the order of their names."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rec.data.raw.chunk import Raw, Role
from rec.errors import DatasetError

ROWS = 1 << 19


def parts(source: Path) -> list[Path]:
    """The Parquet files of a source."""
    if not source.is_dir():
        return [source]
    found = sorted(source.glob("*.parquet"))
    if not found:
        raise DatasetError(f"{source} holds no .parquet file; give a file, or a folder of them")
    return found


def columns_of(source: Path) -> list[str]:
    """The column names of the first file."""
    return list(_open(parts(source)[0]).schema_arrow.names)


def read(source: Path, columns: Mapping[Role, str]) -> Iterator[Raw]:
    """The wanted columns, half a million rows at a time."""
    for file in parts(source):
        opened, start = _open(file), 0
        try:
            for batch in opened.iter_batches(ROWS, columns=list(dict.fromkeys(columns.values()))):
                found = {role: batch.column(name) for role, name in columns.items()}
                done = (start + batch.num_rows) / max(opened.metadata.num_rows, 1)
                yield Raw(found, lambda row, at=start, of=file: f"{of} row {at + row + 1}", done)  # type: ignore[misc]
                start += batch.num_rows
        except (pa.ArrowInvalid, KeyError, OSError) as error:
            raise DatasetError(f"{file} cannot be read: {error}; write it again") from None


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        said = str(error).split(". ")[0].rstrip(".")
        raise DatasetError(
            f"{file} is not a whole Parquet file ({said}); write it again or choose another --format"
        ) from None
