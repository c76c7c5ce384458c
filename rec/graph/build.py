"""Makes the train graph of a dataset, in bounded memory: beside, whole, then renamed."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rec.data.dataset import Dataset, FloatArray
from rec.data.store import Column
from rec.errors import ConfigError, DatasetError
from rec.files import lock
from rec.graph.edges import LONGEST, Histories, distinct, latest
from rec.graph.graph import SCHEMA, Graph
from rec.graph.neighbours import NAMES, QUANTILES
from rec.graph.relations import HORIZON, Following, Together
from rec.graph.strongest import Lists, strongest
from rec.graph.values import COMMON, shared_values

THREADS = 8
"""At most: each needs some 100 MB."""
DTYPES = {"item": "<i4", "strength": "<f4", "weight": "<f4", "total": "<f8"}


def existing(dataset: Dataset, top: int) -> Graph | None:
    """The graph that `build` would make, if it is there."""
    try:
        graph = Graph.open(dataset.root / "graph", dataset.fingerprint)
    except DatasetError:  # none, or of another dataset: one is to be made
        return None
    return graph if graph.manifest["options"] == _options(top) else None


def require_top(top: int, dataset: Dataset) -> int:
    """The number of neighbours that was asked for; ConfigError for one that no item can have.

    Lists are as long as that whether or not there is anything to keep: on the disk, and in every lookup.
    """
    if top < 1:
        raise ConfigError(f"--top is {top}; choose 1 or more neighbours")
    if top > dataset.items:
        raise ConfigError(
            f"--top is {top:,}, but {dataset.root} has only {dataset.items:,} items; choose {dataset.items:,} "
            "neighbours at most"
        )
    return top


def build(dataset: Dataset, *, top: int = 32, advance: Callable[[int], object] = lambda items: None) -> Graph:
    """Makes DATASET/graph, in the place of one that is there.

    Args:
        top: K, neighbours of an item that are kept.
        advance: told, twice for every item, how many items are done.

    Raises:
        DatasetError: another process makes the same graph.
    """
    folder, file = dataset.root / "graph", dataset.root / "graph.lock"
    held = lock(file)
    if held is None:
        raise DatasetError(f"another process is making {folder}; wait for it, or end it")
    beside, before = folder.with_name("graph.tmp"), folder.with_name("graph.old")
    try:
        shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
        beside.mkdir()
        _write(dataset, _Files(beside), top, advance)
        shutil.rmtree(before, ignore_errors=True)
        if folder.exists():
            folder.rename(before)  # whoever reads it goes on reading it
        beside.rename(folder)
    finally:
        for left in (beside, before):
            shutil.rmtree(left, ignore_errors=True)
        file.unlink(missing_ok=True)
        held.close()
    return Graph.open(folder, dataset.fingerprint)


class _Files:
    """The array files of a graph in the making, and the digest of what they hold."""

    def __init__(self, root: Path):
        self.root = root
        self._digests: dict[str, str] = {}

    def column(self, name: str, kind: str, *shape: int) -> Column:
        """A new array file, to be given to `close` when it is full."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        return Column(self.root / f"{name}.npy", kind, shape)

    def close(self, name: str, column: Column) -> None:
        column.close()
        self._digests[name] = column.digest.hexdigest()

    def array(self, name: str, kind: str, values: npt.NDArray[Any]) -> None:
        """A whole array at once."""
        column = self.column(name, kind, *values.shape)
        column.append(values)
        self.close(name, column)

    def commit(self, manifest: Mapping[str, Any]) -> None:
        """Writes graph.json with schema and fingerprint."""
        whole = "\n".join(f"{name} {self._digests[name]}" for name in sorted(self._digests))
        fingerprint = hashlib.sha256(f"schema {SCHEMA}\n{whole}".encode()).hexdigest()
        text = json.dumps({"schema": SCHEMA, "fingerprint": fingerprint, **manifest}, indent=1)
        (self.root / "graph.json").write_text(text, encoding="utf-8")


def _write(dataset: Dataset, files: _Files, top: int, advance: Callable[[int], object]) -> None:
    histories = Histories.of(dataset)
    edges = distinct(histories, dataset.items)
    by_item = edges.tocsc()
    files.array("user_offsets", "<i8", edges.indptr)
    files.array("user_items", "<i4", edges.indices)
    files.array("item_offsets", "<i8", by_item.indptr)
    files.array("item_users", "<i4", by_item.indices)
    counts = {
        "users": dataset.users,
        "items": dataset.items,
        "edges": int(edges.nnz),
        "isolated_users": int(np.count_nonzero(np.diff(edges.indptr[1:]) == 0)),
        "isolated_items": int(np.count_nonzero(np.diff(by_item.indptr[1:]) == 0)),
    }
    del by_item
    threads = min(THREADS, os.cpu_count() or 1)
    together = strongest(Together(edges, latest(edges, histories)), top, threads)
    counts["together"] = _write_lists(files, "together", dataset.items, top, together, advance)
    following = strongest(Following(histories, dataset.items), top, threads)
    counts["following"] = _write_lists(files, "following", dataset.items, top, following, advance)
    names = []
    for name, held in shared_values(dataset):
        names.append(name)
        files.array(f"attributes/{name}/offsets", "<i8", held.offsets)
        files.array(f"attributes/{name}/codes", "<i4", held.codes)
        files.array(f"attributes/{name}/counts", "<i4", held.counts)
    manifest = {"dataset": dataset.fingerprint, "options": _options(top), "counts": counts, "attributes": names}
    files.commit(manifest)


def _write_lists(
    files: _Files, name: str, items: int, top: int, pieces: Iterable[Lists], advance: Callable[[int], object]
) -> int:
    """Writes the five arrays of a relation as its lists come; returns how many pairs were kept."""
    shapes = {part: (items + 1,) if part == "total" else (items + 1, top) for part in NAMES}
    columns = {part: files.column(f"{name}/{part}", DTYPES[part], *shape) for part, shape in shapes.items()}
    for lists in pieces:
        for part, values in zip(NAMES, lists, strict=True):
            columns[part].append(values)
        advance(len(lists.item_RK))
    for part, column in columns.items():
        files.close(f"{name}/{part}", column)
    weights: FloatArray = np.load(files.root / name / "weight.npy", mmap_mode="r")
    kept = weights[weights > 0]
    files.array(f"{name}/bounds", "<f4", _bounds(kept))
    return len(kept)


def _bounds(weights: FloatArray) -> FloatArray:
    """(Q - 1) of the weights, at the quantiles 1 / Q, 2 / Q, ...; zeros where there are none."""
    if not len(weights):
        return np.zeros(QUANTILES - 1, np.float32)
    return np.asarray(np.quantile(weights, np.arange(1, QUANTILES) / QUANTILES, method="inverted_cdf"))


def _options(top: int) -> dict[str, float]:
    return {"top": top, "horizon": HORIZON, "longest": LONGEST, "quantiles": QUANTILES, "common": COMMON}
