"""The train graph: who had what; which items go together, follow each other, share a value. Immutable, memory-mapped.

    DATASET/graph/
      graph.json                         schema, fingerprints of the graph and of its dataset, options, counts
      user_offsets.npy, user_items.npy   users -> their distinct items
      item_offsets.npy, item_users.npy   items -> their distinct users
      together/NAME.npy                  neighbours by co-interaction: item, strength, weight, total, bounds
      following/NAME.npy                 neighbours by what comes next: the same five
      attributes/COLUMN/NAME.npy         shared values of a column of items.parquet: offsets, codes, counts

All of it is made of training interactions and of item attributes: no validation or test interaction is read.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from rec.data.dataset import FloatArray, IntArray
from rec.errors import DatasetError
from rec.graph.attribute import Attribute
from rec.graph.neighbours import Neighbours

SCHEMA = 2
ARRAYS = ("user_offsets", "user_items", "item_offsets", "item_users")


@dataclass(frozen=True, eq=False)
class Graph:
    folder: Path
    """Where it lies."""
    manifest: dict[str, Any] = field(repr=False)
    """What `graph.json` says."""
    user_offsets: IntArray = field(repr=False)
    """(users + 2) int64: user u's items are user_items[user_offsets[u] : user_offsets[u + 1]]; row 0 has none."""
    user_items: IntArray = field(repr=False)
    """(edges) int32 item rows, distinct and ascending within a user."""
    item_offsets: IntArray = field(repr=False)
    """(items + 2) int64: item i's users are item_users[item_offsets[i] : item_offsets[i + 1]]; row 0 has none."""
    item_users: IntArray = field(repr=False)
    """(edges) int32 user rows, distinct and ascending within an item."""
    together: Neighbours
    """Co-interaction. Strength: users that have both items. Weight: the cosine of the two sets of users."""
    following: Neighbours
    """What comes next. Strength of i to j: the sum of 1 / gap over all places where j stands `gap` positions behind i
    in a user's history, up to the horizon. Weight: the share in the strength of i to all items."""
    attributes: Mapping[str, Attribute]
    """Shared values, by the column of items.parquet: `brand`, `category`, ..."""

    @classmethod
    def open(cls, folder: Path, dataset: str | None = None) -> Self:
        """Maps a graph into memory; reads nothing but `graph.json` and the bounds of the buckets.

        Args:
            folder: DATASET/graph, or the copy of a trained model.
            dataset: fingerprint of the dataset that the graph has to belong to; None where any will do.

        Raises:
            DatasetError: there is no graph, a damaged one, or one of another schema or another dataset.
        """
        remedy = f"make it with `kindling graph {folder.parent}`"
        if (folder.parent / "model.json").is_file():  # the copy of a model, which cannot be made on its own
            remedy = f"remove {folder.parent} and type `kindling train`"
        if not (folder / "graph.json").is_file():
            raise DatasetError(f"{folder.parent} has no graph; {remedy}")
        try:
            manifest = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
            if manifest["schema"] != SCHEMA:
                raise DatasetError(
                    f"{folder} has schema {manifest['schema']}, this version reads {SCHEMA}; {remedy} again"
                )
            if dataset not in (None, manifest["dataset"]):
                raise DatasetError(f"{folder} is the graph of another dataset than the one in use; {remedy} again")
            return cls(
                folder,
                manifest,
                **{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS},
                together=Neighbours.open(folder / "together", symmetric=True),
                following=Neighbours.open(folder / "following", symmetric=False),
                attributes={name: Attribute.open(folder / "attributes" / name) for name in manifest["attributes"]},
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError, EOFError) as error:
            raise DatasetError(f"{folder} is damaged ({type(error).__name__}: {error}); {remedy} again") from None

    def copy(self, folder: Path) -> None:
        """Copies the files, for the folder of a trained model, which needs no dataset then. `folder` must not exist.

        They never change, so that on one disk the copy is a second name of the same file.
        """
        shutil.copytree(self.folder, folder, copy_function=_second_name)

    @property
    def users(self) -> int:
        """Number of users of the dataset, without padding; those who train nothing have no edges."""
        return len(self.user_offsets) - 2

    @property
    def items(self) -> int:
        """Number of items of the dataset, without padding; those that nobody trained on have no edges."""
        return len(self.item_offsets) - 2

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of all arrays: equal training interactions and options give equal fingerprints."""
        return str(self.manifest["fingerprint"])

    @cached_property
    def degrees(self) -> IntArray:
        """(items + 1) int64: distinct users of each item."""
        return np.diff(self.item_offsets)

    def pmi(self, left: npt.ArrayLike, right: npt.ArrayLike) -> FloatArray:
        """(...) item rows -> (...) float64 pointwise mutual information log(c_ij n / (d_i d_j)); 0 where not known.

        c_ij users have both items, d_i the one, n any item; 0 is also what independent items have.
        """
        together = self.together.strengths(left, right).astype(np.float64)
        anyone = np.count_nonzero(np.diff(self.user_offsets))
        expected = self.degrees[np.asarray(left)] * self.degrees[np.asarray(right)] / max(anyone, 1)
        known = together > 0
        return np.log(np.divide(together, expected, where=known, out=np.ones_like(together)))


def _second_name(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that has no such names
        shutil.copy2(source, target)
