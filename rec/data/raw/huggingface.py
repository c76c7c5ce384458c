"""Hugging Face data sets, by name or from a local folder. The only file that imports `datasets`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from rec.data.raw.chunk import Raw, Role
from rec.errors import DatasetError

ROWS = 1 << 17


def load(name: str) -> dict[str, Any]:
    """Split name -> rows of a data set, given as `NAME`, `NAME:SUBSET`, or a folder; splits as the set orders them."""
    import datasets

    folder = Path(name)
    try:
        if folder.is_dir() and any((folder / mark).is_file() for mark in ("dataset_dict.json", "dataset_info.json")):
            found = datasets.load_from_disk(str(folder))
        else:
            path, _, subset = (name, "", "") if folder.exists() else name.partition(":")
            found = datasets.load_dataset(path, subset or None)
    except Exception as error:  # a hub, a builder and a file system can each fail in ways of their own
        said = " ".join(str(error).split())[:200]
        raise DatasetError(
            f"the Hugging Face data set {name} cannot be loaded ({type(error).__name__}: {said}); "
            "check its name, or give the folder of a local copy"
        ) from None
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}


def columns_of(found: Mapping[str, Any]) -> list[str]:
    return list(next(iter(found.values())).column_names)


def read(name: str, found: Mapping[str, Any], columns: Mapping[Role, str], by_name: bool) -> Iterator[Raw]:
    """The wanted columns of all splits; with `by_name`, the name of the split is a column, too."""
    for split, rows in found.items():
        table = rows.with_format("arrow")
        for start in range(0, len(rows), ROWS):
            part = table[start : start + ROWS]
            values: dict[Role, pa.Array] = {
                role: part.column(column).combine_chunks() for role, column in columns.items()
            }
            if by_name:
                values["split"] = pa.array([split] * part.num_rows, pa.string())
            yield Raw(values, lambda row, at=start, of=split: f"{name} {of} row {at + row + 1}")  # type: ignore[misc]
