"""The files of a dataset, and what its fingerprint covers and does not."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.data import ordered, spool, store
from rec.data.dataset import Dataset
from rec.errors import DatasetError
from tests.data.logs import csv, prepared, text

ROWS = [(f"u{row * 7 % 11}", f"i{row * 5 % 13}", row % 5 + 1, 1000 - row * 3 % 50) for row in range(80)]


def test_the_files_say_the_same_to_people_and_to_training(tmp_path: Path) -> None:
    dataset = prepared(csv(tmp_path, ROWS), format="csv")
    table = pq.read_table(dataset.root / "interactions.parquet").to_pydict()
    owners = np.repeat(np.arange(dataset.users + 1), np.diff(dataset.offsets))
    assert table["user"] == [dataset.user_ids[row] for row in owners]
    assert table["item"] == [dataset.item_ids[row] for row in dataset.item_rows]
    assert [round(time.timestamp() * 1000) for time in table["timestamp"]] == dataset.times.tolist()
    assert table["rating"] == dataset.ratings.tolist()
    assert dataset.user_ids[1:4] == ["u0", "u7", "u3"]
    assert pq.read_table(dataset.root / "users.parquet")["row"].to_pylist() == list(range(1, dataset.users + 1))
    assert len(dataset.offsets) == dataset.users + 2
    assert dataset.bounds.shape == (dataset.users + 1, 5)
    assert {file.name for file in dataset.root.iterdir()} == {
        "dataset.json", "users.parquet", "items.parquet", "interactions.parquet", "sequences", "split.npy"}  # fmt: skip


def test_the_fingerprint_does_not_depend_on_pieces_or_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = csv(tmp_path, ROWS)
    first = prepared(file, "first", format="csv").fingerprint
    monkeypatch.setattr(spool, "BLOCK_ROWS", 7)
    monkeypatch.setattr(ordered.sort, "__defaults__", (11,))
    monkeypatch.setattr("rec.data.raw.delimited.BLOCK", 100)
    threads = pa.cpu_count()
    pa.set_cpu_count(1)
    try:
        assert prepared(file, "second", format="csv").fingerprint == first
    finally:
        pa.set_cpu_count(threads)


def test_the_fingerprint_is_the_same_on_every_machine(tmp_path: Path) -> None:
    items = text(tmp_path, "item,year,score,title\ni1,1999,0.5,One\ni2,,,\n", "items.csv")
    dataset = prepared(csv(tmp_path, ROWS), format="csv", items=items)
    assert dataset.fingerprint.startswith("66eb4c181852364a")


def test_the_fingerprint_covers_ids_order_ratings_times_split_and_attributes(tmp_path: Path) -> None:
    items, other = text(tmp_path, "item,year\ni1,1999\n", "a.csv"), text(tmp_path, "item,year\ni1,2000\n", "b.csv")
    users = text(tmp_path, "user,age\nu1,30\n", "c.csv")
    user, item, rating, time = ROWS[5]
    changed = [("x", item, rating, time), (user, "x", rating, time), (user, item, 2.5, time), (user, item, rating, 7)]
    logs = [ROWS, *([*ROWS[:5], row, *ROWS[6:]] for row in changed), [*ROWS[1:], ROWS[0]]]
    options: list[dict[str, Any]] = [{"split": "held-out"}, {"items": items}, {"items": other}, {"users": users}]
    asked = [(rows, {}) for rows in logs] + [(ROWS, chosen) for chosen in options]
    prints = {
        prepared(csv(tmp_path, rows), f"{index}", format="csv", **chosen).fingerprint
        for index, (rows, chosen) in enumerate(asked)
    }
    assert len(prints) == len(asked)


def small(root: Path, **change: Any) -> Dataset:
    values: dict[str, Any] = {
        "user_ids": ["u"], "item_ids": ["a", "b"], "offsets": np.array([0, 0, 2]), "items": np.array([1, 2]),
        "times": np.array([5, 6]), "ratings": np.ones(2), "bounds": np.array([[0] * 5, [2] * 5]),
        "split": "leave_one_out",
    }  # fmt: skip
    store.write(root, **{**values, **change})
    return Dataset.open(root)


def test_arrays_written_at_once_equal_those_prepared_from_a_log(tmp_path: Path) -> None:
    file = text(tmp_path, "user,item,timestamp\nu,a,0.005\nu,b,0.006\n", "log.csv")
    dataset = prepared(file, format="csv")
    assert small(tmp_path / "small").fingerprint == dataset.fingerprint


def test_ids_cannot_run_into_each_other_in_the_fingerprint(tmp_path: Path) -> None:
    one, two = small(tmp_path / "a", item_ids=["ab", "c"]), small(tmp_path / "b", item_ids=["a", "bc"])
    assert one.fingerprint != two.fingerprint


def test_a_dataset_is_never_overwritten(tmp_path: Path) -> None:
    small(tmp_path / "small")
    with pytest.raises(DatasetError, match="small exists"):
        small(tmp_path / "small")


def test_the_rest_of_a_killed_run_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "small.tmp" / "spool").mkdir(parents=True)
    text(tmp_path / "small.tmp", "half", "users.parquet")
    assert small(tmp_path / "small").users == 1
    assert not (tmp_path / "small.tmp").exists()


def test_a_folder_that_cannot_be_made_is_the_users_to_solve(tmp_path: Path) -> None:
    text(tmp_path, "a file", "file")
    with pytest.raises(DatasetError, match=r"cannot write .*file/small: Not a directory; make room there or choose"):
        small(tmp_path / "file" / "small")
