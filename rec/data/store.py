"""Writes a prepared dataset: beside, whole, then renamed, so that a half-written one never exists.

The fingerprint is taken while writing, from the values and not from the files: it depends neither on the sizes of
the pieces in which they arrive, nor on the version of the library that packs the Parquet files.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rec.data.dataset import SCHEMA, FloatArray, IntArray
from rec.data.spool import Spool, TextSpool
from rec.errors import DatasetError

DIGEST_ROWS = 1 << 16


class Column:
    """One .npy file of known shape, written from the front in pieces."""

    def __init__(self, file: Path, kind: str, shape: tuple[int, ...]):
        self._kind = np.dtype(kind)
        self.digest = hashlib.sha256(f"{kind} {shape}".encode())
        file.parent.mkdir(exist_ok=True)
        self._file = file.open("wb")
        header = {"descr": np.lib.format.dtype_to_descr(self._kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, values: npt.NDArray[Any]) -> None:
        data = np.ascontiguousarray(values, self._kind).view(np.uint8).reshape(-1).data
        self._file.write(data)
        self.digest.update(data)

    def close(self) -> None:
        self._file.close()


class Writer:
    """A dataset in the making, at `ROOT.tmp`; `commit` gives it its name, leaving without that removes it.

    An OSError that leaves the block, such as a full disk, is the user's to solve and becomes a DatasetError.
    """

    def __init__(self, root: Path):
        if root.exists():
            raise DatasetError(f"{root} exists; choose another folder or remove it")
        self.root = root
        self.beside = root.with_name(root.name + ".tmp")
        self._spools: list[Spool | TextSpool] = []
        self._digests: dict[str, str] = {}
        self._columns: dict[str, Column] = {}

    def __enter__(self) -> Self:
        try:
            shutil.rmtree(self.beside, ignore_errors=True)
            self.beside.mkdir(parents=True)
        except OSError as error:
            raise self._unwritable(error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        files: list[Column | Spool | TextSpool] = [*self._columns.values(), *self._spools]
        for file in files:
            try:
                file.close()
            except OSError:  # a full disk may refuse the last bytes, too
                continue
        shutil.rmtree(self.beside, ignore_errors=True)
        if isinstance(error, OSError):
            raise self._unwritable(error) from None

    def spool(self, name: str, columns: Mapping[str, str]) -> Spool:
        """Room for rows that are needed only while writing."""
        spool = Spool(self.beside / "spool" / name, columns)
        self._spools.append(spool)
        return spool

    def text_spool(self, name: str) -> TextSpool:
        """Room for texts that are needed only while writing."""
        spool = TextSpool(self.beside / "spool" / f"{name} texts")
        self._spools.append(spool)
        return spool

    def column(self, name: str, kind: str, *shape: int) -> Column:
        """A new array file; its values are appended to what is returned."""
        column = self._columns[name] = Column(self.beside / f"{name}.npy", kind, shape)
        return column

    def array(self, name: str, kind: str, values: npt.NDArray[Any]) -> str:
        """A whole array at once; returns its digest."""
        column = self.column(name, kind, *values.shape)
        column.append(values)
        return column.digest.hexdigest()

    def table(self, name: str, table: pa.Table) -> None:
        """A Parquet file."""
        self._digests[name] = _digest(table)
        pq.write_table(table, self.beside / f"{name}.parquet")

    def commit(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Writes the manifest, with schema and fingerprint, and renames the folder; returns the manifest."""
        for name, column in self._columns.items():
            column.close()
            self._digests[name] = column.digest.hexdigest()
        whole = "\n".join(f"{name} {self._digests[name]}" for name in sorted(self._digests))
        fingerprint = hashlib.sha256(f"schema {SCHEMA}\n{whole}".encode()).hexdigest()
        full = {"schema": SCHEMA, "fingerprint": fingerprint, **manifest}
        for spool in self._spools:
            spool.close()
        shutil.rmtree(self.beside / "spool", ignore_errors=True)
        (self.beside / "dataset.json").write_text(json.dumps(full, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(self.beside, self.root)
        return full

    def _unwritable(self, error: OSError) -> DatasetError:
        said = error.strerror or " ".join(str(error).split())
        return DatasetError(f"cannot write {self.root}: {said}; make room there or choose another folder with --out")


def write(
    root: Path,
    *,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    offsets: IntArray,
    items: IntArray,
    times: IntArray,
    ratings: FloatArray,
    bounds: IntArray,
    split: str,
    has_times: bool = True,
    manifest: dict[str, Any] | None = None,
) -> None:
    """Writes a small dataset from arrays in the layout of `rec.data.dataset`; ids are given without the padding row."""
    with Writer(root) as writer:
        writer.array("sequences/offsets", "<i8", offsets)
        writer.array("sequences/items", "<i4", items)
        writer.array("sequences/times", "<i8", times)
        writer.array("sequences/ratings", "<f4", ratings)
        digest = writer.array("split", "<i4", bounds)
        writer.table("users", id_table("user", pa.array(user_ids, pa.string())))
        writer.table("items", id_table("item", pa.array(item_ids, pa.string())))
        counts = {"users": len(user_ids), "items": len(item_ids), "interactions": len(items), "has_times": has_times}
        writer.commit({**counts, "split": {"name": split, "hash": digest}, **(manifest or {})})


def id_table(kind: str, ids: pa.StringArray) -> pa.Table:
    """The columns that `users.parquet` and `items.parquet` always have: row, and the external id."""
    return pa.table({"row": pa.array(np.arange(1, len(ids) + 1, dtype=np.int32)), kind: ids})


def _digest(table: pa.Table) -> str:
    """Of the names and values of texts and numbers, whatever the chunks they lie in."""
    digest = hashlib.sha256(f"{table.num_rows}".encode())
    for name in sorted(table.column_names):
        column = table.column(name)
        digest.update(f"{name} {column.type}".encode())
        for start in range(0, len(column), DIGEST_ROWS):
            part = column.slice(start, DIGEST_ROWS)
            digest.update(part.is_valid().to_numpy().tobytes())
            if pa.types.is_string(column.type):
                digest.update(pc.binary_length(part).fill_null(0).to_numpy().astype("<i4").tobytes())
                digest.update("".join(part.fill_null("").to_pylist()).encode())
            else:
                values = part.fill_null(0).to_numpy()
                digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
