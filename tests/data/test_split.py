"""Splits are views: every interaction is in one part, and the parts stand in order."""

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.data import split
from rec.data.dataset import TEST_START, TEST_STOP, TRAIN_STOP, VALID_START, VALID_STOP, Dataset
from tests.data.logs import csv, prepared, sequences

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=30)


def of(folder: Path, rows: list[Any], out: str = "dataset", **options: Any) -> Dataset:
    return prepared(csv(folder, rows), out, format="csv", **options)


def users(lengths: list[int]) -> list[tuple[str, str, int, int]]:
    return [(f"u{user}", f"i{item}", 1, 10 * item + user) for user, many in enumerate(lengths) for item in range(many)]


def parts(dataset: Dataset) -> list[tuple[int, int, int]]:
    """(users) sizes of train, valid, test."""
    found = [dataset.bounds[1:, TRAIN_STOP]]
    for start, stop in ((VALID_START, VALID_STOP), (TEST_START, TEST_STOP)):
        found.append(dataset.bounds[1:, stop] - dataset.bounds[1:, start])
    return [tuple(row) for row in np.stack(found, axis=1).tolist()]


def test_leave_one_out_gives_short_users_to_training(tmp_path: Path) -> None:
    dataset = of(tmp_path, users([1, 2, 3, 6]))
    assert parts(dataset) == [(1, 0, 0), (2, 0, 0), (1, 1, 1), (4, 1, 1)]
    assert dataset.split_name.startswith("leave_one_out:")
    assert dataset.history(4, "test").tolist() == [1, 2, 3, 4, 5]


def test_ratio_cuts_each_user_at_eight_and_nine_tenths(tmp_path: Path) -> None:
    dataset = of(tmp_path, users([1, 2, 3, 5, 10, 20]), split="ratio")
    assert parts(dataset) == [(1, 0, 0), (1, 0, 1), (2, 0, 1), (4, 0, 1), (8, 1, 1), (16, 2, 2)]
    half = of(tmp_path, users([10]), "half", split="ratio", split_at="0.5,0.7")
    assert parts(half) == [(5, 2, 3)]
    odd = of(
        tmp_path, users([100]), "odd", split="ratio", split_at="0.29,0.57"
    )  # 0.29 x 100 is 28.999... to a computer
    assert parts(odd) == [(29, 28, 43)]


def test_random_draws_at_least_one_of_each_user_for_valid_and_test_and_keeps_time_within_the_parts(
    tmp_path: Path,
) -> None:
    dataset = of(tmp_path, users([1, 2, 3, 5, 10, 25]), split="random")
    assert parts(dataset) == [(1, 0, 0), (2, 0, 0), (1, 1, 1), (3, 1, 1), (8, 1, 1), (21, 2, 2)]
    assert dataset.manifest["split"]["seed"] == 0
    for user in range(1, 7):
        row, bounds = sequences(dataset)[dataset.user_ids[user]], dataset.bounds[user]
        assert sorted(row, key=lambda item: int(item[1:])) == [f"i{item}" for item in range(len(row))]
        for start, stop in ((0, bounds[0]), (bounds[1], bounds[2]), (bounds[3], bounds[4])):
            ages = [int(item[1:]) for item in row[start:stop]]
            assert ages == sorted(ages)
    assert dataset.manifest["report"]["users_not_in_time_order"] > 0


def test_a_random_split_depends_on_seed_and_ids_alone_and_is_even(tmp_path: Path) -> None:
    rows = users([20] * 150)
    first = of(tmp_path, rows, split="random", seed=3)
    again = of(tmp_path, rows[::-1], "again", split="random", seed=3)
    other = of(tmp_path, rows, "other", split="random", seed=4)
    assert sequences(first) == sequences(again)
    assert sequences(first) != sequences(other)
    tested = [int(item[1:]) for row in sequences(first).values() for item in row[18:]]
    counts = np.bincount(tested, minlength=20)  # 300 draws over 20 places: 15 each, standard deviation 3.8
    assert counts.min() > 2
    assert counts.max() < 31


def test_time_cuts_are_moments_or_shares_of_the_whole_log(tmp_path: Path) -> None:
    rows = [("u", "a", 1, 100), ("u", "b", 1, 300), ("v", "a", 1, 200), ("v", "b", 1, 200), ("v", "c", 1, 400)]
    assert parts(of(tmp_path, rows, "moments", split="time", split_at="200,400")) == [(1, 1, 0), (0, 2, 1)]
    shares = of(tmp_path, rows, "shares", split="time", split_at="0.2,0.8")
    assert shares.manifest["split"]["at"] == [200_000, 400_000]
    assert parts(shares) == [(1, 1, 0), (0, 2, 1)]
    dates = of(tmp_path, rows, "dates", split="time", split_at="1970-01-01T00:03:20,1970-01-01T00:06:40")
    assert dates.fingerprint == shares.fingerprint


def test_shares_of_time_are_exact_for_many_ties(tmp_path: Path) -> None:
    times = np.random.default_rng(3).integers(1, 40, 1000)
    dataset = of(tmp_path, [(f"u{row % 7}", "i", 1, time) for row, time in enumerate(times)], split="time")
    assert dataset.manifest["split"]["at"] == [1000 * int(np.sort(times)[800]), 1000 * int(np.sort(times)[900])]


def test_held_out_users_train_nothing_and_show_four_fifths(tmp_path: Path) -> None:
    dataset = of(tmp_path, users([10] * 50), split="held-out", seed=5)
    kinds = collections.Counter(parts(dataset))
    assert kinds == {(10, 0, 0): 40, (0, 2, 0): 5, (0, 0, 2): 5}
    user = int(dataset.queries("test")[0])
    assert len(dataset.history(user, "test")) == 8
    assert dataset.manifest["split"]["interactions"] == {"train": 400, "valid": 10, "test": 10, "history": 80}
    assert of(tmp_path, users([10] * 50), "again", split="held-out", seed=5).fingerprint == dataset.fingerprint
    other = of(tmp_path, users([10] * 50), "other", split="held-out", seed=6)
    assert other.split_name != dataset.split_name


def test_a_given_split_orders_each_user_by_part_and_reports_users_out_of_time(tmp_path: Path) -> None:
    rows = [("u", "a", 1, 30, "train"), ("u", "b", 1, 10, "test"), ("u", "c", 1, 20, "train"), ("v", "a", 1, 1, "val"),
            ("v", "b", 1, 2, "test"), ("w", "a", 1, 5, "train")]  # fmt: skip
    file = csv(tmp_path, rows, "user,item,rating,timestamp,part")
    dataset = prepared(file, format="csv", split_column="part")
    assert sequences(dataset) == {"u": ["c", "a", "b"], "v": ["a", "b"], "w": ["a"]}
    assert parts(dataset) == [(2, 0, 1), (0, 1, 1), (1, 0, 0)]
    assert dataset.manifest["report"]["users_not_in_time_order"] == pytest.approx(1 / 3)
    assert dataset.manifest["split"]["name"] == "given"
    assert pq.read_table(dataset.root / "interactions.parquet")["split"].to_pylist() == [
        "train", "train", "test", "valid", "test", "train"]  # fmt: skip


def test_the_columns_for_people_give_the_same_dataset_when_prepared_again(tmp_path: Path) -> None:
    dataset = of(tmp_path, users([4, 7, 2]))
    again = prepared(dataset.root / "interactions.parquet", "again", format="parquet", split_column="split")
    assert again.fingerprint == dataset.fingerprint
    assert again.split_name == dataset.split_name.replace("leave_one_out", "given")


def test_ties_and_repeats_are_counted_within_a_user_only(tmp_path: Path) -> None:
    rows = [("u", "a", 1, 1), ("u", "b", 1, 2), ("v", "b", 1, 2), ("v", "a", 1, 2), ("v", "b", 1, 3)]
    report = of(tmp_path, rows).manifest["report"]
    assert report["tied_timestamps"] == pytest.approx(1 / 3, abs=1e-6)
    assert report["repeated_pairs"] == pytest.approx(1 / 5)
    assert report["users_not_in_time_order"] == 0


def test_the_split_changes_the_fingerprint(tmp_path: Path) -> None:
    prints = {
        of(tmp_path, users([10, 20]), kind, split=kind).fingerprint for kind in ("leave-one-out", "ratio", "time")
    }
    assert len(prints) == 3


@settings(deadline=None)
@given(lengths=LENGTHS, first=st.floats(0.05, 0.95), second=st.floats(0.05, 0.95))
def test_ratio_and_leave_one_out_divide_every_sequence_in_order(
    lengths: list[int], first: float, second: float
) -> None:
    many = np.array(lengths)
    for bounds in (split.leave_one_out(many), split.ratio(many, (min(first, second), max(first, second)))):
        train, valid_start, valid_stop, test_start, test_stop = bounds.T
        assert (train == valid_start).all()
        assert (valid_stop == test_start).all()
        assert (test_stop == many).all()
        assert (np.diff(bounds, axis=1) >= 0).all()
        assert ((train > 0) | (many == 0)).all()


@settings(deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 9))
def test_a_held_out_user_is_in_one_part_only(lengths: list[int], seed: int) -> None:
    import pyarrow as pa

    many = np.array(lengths)
    names = pa.array([f"u{user}" for user in range(len(many))])
    bounds = split.held_out(many, names, seed, (0.8, 0.9))
    trains = bounds[:, TRAIN_STOP] > 0
    asked = (bounds[:, VALID_STOP] > bounds[:, VALID_START]) | (bounds[:, TEST_STOP] > bounds[:, TEST_START])
    assert not (trains & asked).any()
    assert (bounds[trains, TRAIN_STOP] == many[trains]).all()
