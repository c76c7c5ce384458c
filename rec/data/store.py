"""Writes a prepared dataset: beside, whole, then renamed, so that a half-written one never exists."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rec.data.dataset import SCHEMA, FloatArray, IntArray
from rec.errors import DatasetError


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
    """Writes a dataset from arrays in the layout of `rec.data.dataset`; ids are given without the padding row."""
    if root.exists():
        raise DatasetError(f"{root} exists; choose another folder or remove it")
    arrays = {"sequences/offsets": offsets.astype(np.int64), "sequences/items": items.astype(np.int32),
              "sequences/times": times.astype(np.int64), "sequences/ratings": ratings.astype(np.float32),
              "split": bounds.astype(np.int32)}  # fmt: skip
    beside = root.with_name(root.name + ".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    (beside / "sequences").mkdir(parents=True)
    for name, array in arrays.items():
        np.save(beside / f"{name}.npy", array)
    rows = {"user": user_ids, "item": item_ids}
    for kind, ids in rows.items():
        table = pa.table({"row": pa.array(range(1, len(ids) + 1), pa.int32()), kind: pa.array(ids, pa.string())})
        pq.write_table(table, beside / f"{kind}s.parquet")
    digest = hashlib.sha256(f"schema {SCHEMA}".encode())
    for ids in rows.values():
        digest.update("\n".join(ids).encode())
    for name in sorted(arrays):
        digest.update(arrays[name].tobytes())
    full = {
        "schema": SCHEMA,
        "fingerprint": digest.hexdigest(),
        "users": len(user_ids),
        "items": len(item_ids),
        "interactions": len(items),
        "has_times": has_times,
        "split": {"name": split, "hash": hashlib.sha256(arrays["split"].tobytes()).hexdigest()},
        **(manifest or {}),
    }
    (beside / "dataset.json").write_text(json.dumps(full, indent=1))
    os.replace(beside, root)
