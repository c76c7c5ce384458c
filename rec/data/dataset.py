"""The one data format: immutable, memory-mapped, shared by all recommenders.

    DATASET/
      dataset.json              manifest: schema, fingerprint, counts, split, the options and the report of `prepare`
      users.parquet             row, user (the external id) and any attributes; row 0 is absent
      items.parquet             row, item (the external id) and any attributes, `text` among them
      interactions.parquet      user, item, timestamp, rating, split: for people; nothing here reads it
      sequences/offsets.npy     int64 (users + 2): user u owns positions offsets[u] .. offsets[u + 1]; row 0 is empty
      sequences/items.npy       int32 (interactions): item rows in order of (timestamp, input position)
      sequences/times.npy       int64 (interactions): milliseconds since 1970; the input position where no time is known
      sequences/ratings.npy     float32 (interactions): as given; 1 where the log has none
      texts/NAME.npy            where texts are kept: see `rec.data.texts`
      split.npy                 int32 (users + 1, 5): the split as a view, columns TRAIN_STOP .. TEST_STOP
      features/NAME.npy         float32 (items + 1, width), row 0 zeros: dense item features, added later
      graph/                    who had what, which items go together: described in rec/graph/graph.py, added later

Users and items are rows 1, 2, ... in order of first appearance; row 0 of every table is padding.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from rec.errors import DatasetError

IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.floating[Any]]
Split = Literal["train", "valid", "test"]

SCHEMA = 1
TRAIN_STOP, VALID_START, VALID_STOP, TEST_START, TEST_STOP = range(5)
"""Columns of `split.npy`, positions within the user's own sequence.

Trained on: [0, TRAIN_STOP). Targets of a split: [START, STOP). The history of a query: [0, START) of its split.
"""


@dataclass(frozen=True)
class Dataset:
    root: Path
    manifest: dict[str, Any] = field(repr=False)
    offsets: IntArray = field(repr=False)  # (users + 2)
    item_rows: IntArray = field(repr=False)  # (interactions)
    bounds: IntArray = field(repr=False)  # (users + 1, 5)

    @classmethod
    def open(cls, root: Path) -> Self:
        """Maps a prepared dataset into memory; reads nothing but the manifest and the offsets."""
        manifest_file = root / "dataset.json"
        if not manifest_file.is_file():
            raise DatasetError(f"{root} is not a prepared dataset; make it with `kindling prepare SOURCE --out {root}`")
        manifest = json.loads(manifest_file.read_text())
        if manifest["schema"] != SCHEMA:
            raise DatasetError(f"{root} has schema {manifest['schema']}, this version reads {SCHEMA}; prepare it again")
        return cls(
            root=root,
            manifest=manifest,
            offsets=np.load(root / "sequences/offsets.npy", mmap_mode="r"),
            item_rows=np.load(root / "sequences/items.npy", mmap_mode="r"),
            bounds=np.load(root / "split.npy", mmap_mode="r"),
        )

    @property
    def users(self) -> int:
        """Number of users; their rows are 1 .. users."""
        return int(self.manifest["users"])

    @property
    def items(self) -> int:
        """Number of items, the catalogue; their rows are 1 .. items."""
        return int(self.manifest["items"])

    @property
    def interactions(self) -> int:
        return int(self.manifest["interactions"])

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of ids, order, ratings and split: equal input and options give equal fingerprints."""
        return str(self.manifest["fingerprint"])

    @property
    def split_name(self) -> str:
        """Name of the split with its hash, as shown beside every result, for example `leave_one_out:4f1c22a9`."""
        return f"{self.manifest['split']['name']}:{self.manifest['split']['hash'][:8]}"

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the texts that are kept of each interaction."""
        return tuple(self.manifest.get("texts", ()))

    @cached_property
    def times(self) -> IntArray:
        """(interactions) int64 milliseconds since 1970; positions where the log has no time (`has_times`)."""
        return np.load(self.root / "sequences/times.npy", mmap_mode="r")

    @property
    def has_times(self) -> bool:
        return bool(self.manifest["has_times"])

    @cached_property
    def ratings(self) -> FloatArray:
        """(interactions) float32 as given; 1 where the log has none."""
        return np.load(self.root / "sequences/ratings.npy", mmap_mode="r")

    def train_items(self, user: int) -> IntArray:
        """Item rows of the user's training interactions, in order."""
        start = int(self.offsets[user])
        return self.item_rows[start : start + int(self.bounds[user, TRAIN_STOP])]

    def history(self, user: int, split: Split) -> IntArray:
        """Item rows that precede the user's targets of the split: what a query may read, and what is masked as seen."""
        if split == "train":
            return self.train_items(user)
        column = VALID_START if split == "valid" else TEST_START
        start = int(self.offsets[user])
        return self.item_rows[start : start + int(self.bounds[user, column])]

    def targets(self, user: int, split: Split) -> IntArray:
        """Item rows to be found for the user in `valid` or `test`, in order."""
        first, last = (VALID_START, VALID_STOP) if split == "valid" else (TEST_START, TEST_STOP)
        start = int(self.offsets[user])
        return self.item_rows[start + int(self.bounds[user, first]) : start + int(self.bounds[user, last])]

    def queries(self, split: Split) -> IntArray:
        """Rows of the users that have at least one target in the split, ascending."""
        first, last = (VALID_START, VALID_STOP) if split == "valid" else (TEST_START, TEST_STOP)
        return np.flatnonzero(self.bounds[:, last] > self.bounds[:, first])

    def train_positions(self) -> npt.NDArray[np.bool_]:
        """(interactions) which stored positions are trained on; all other interactions stay unseen by any fit."""
        within = np.arange(self.interactions) - np.repeat(self.offsets[:-1], np.diff(self.offsets))
        return within < np.repeat(self.bounds[:, TRAIN_STOP], np.diff(self.offsets))

    @cached_property
    def train_counts(self) -> IntArray:
        """(items + 1) training interactions of each item row."""
        return np.bincount(self.item_rows[self.train_positions()], minlength=self.items + 1)

    @cached_property
    def user_ids(self) -> list[str]:
        """External ids by row; `user_ids[0]` is empty."""
        return ["", *pq.read_table(self.root / "users.parquet", columns=["user"])["user"].to_pylist()]

    @cached_property
    def item_ids(self) -> list[str]:
        """External ids by row; `item_ids[0]` is empty."""
        return ["", *pq.read_table(self.root / "items.parquet", columns=["item"])["item"].to_pylist()]

    def feature(self, name: str) -> FloatArray:
        """(items + 1, width) float32 dense item features; row 0 is zeros."""
        file = self.root / "features" / f"{name}.npy"
        if not file.is_file():
            present = sorted(path.stem for path in (self.root / "features").glob("*.npy")) or ["none"]
            raise DatasetError(
                f"{self.root} has no feature '{name}' (there: {', '.join(present)}); add it with `kindling embed`"
            )
        return np.load(file, mmap_mode="r")


def ragged(sequences: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
    """Sequences -> (values, offsets): the compressed form of rows of different length."""
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    return np.concatenate([*sequences, np.empty(0, np.int32)]).astype(np.int32), offsets
