"""The external sort is the stable sort of Python, whatever the size of its pieces."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.data import ordered, spool

ROW = st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 5, 2**42, 2**42 + 1]), st.integers(0, 2))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(ROW, min_size=1, max_size=50), block=st.integers(1, 9), limit=st.integers(1, 9), split=st.booleans()
)
def test_rows_come_out_by_user_then_split_then_time_then_position(
    rows: list[tuple[int, int, int]], block: int, limit: int, split: bool
) -> None:
    names = {"user": "<i4", "time": "<i8", "item": "<i4", **({"split": "<i1"} if split else {})}
    user, time, part = (np.array(column) for column in zip(*rows, strict=True))
    root = Path(tempfile.mkdtemp())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "BLOCK_ROWS", block)
        unsorted, into = spool.Spool(root / "a", names), spool.Spool(root / "b", {**names, "keep": "?"})
        unsorted.append({"user": user, "time": time, "item": np.arange(len(rows)), "split": part})
        ordered.sort(unsorted, into, np.bincount(user, minlength=10), len(rows), rows=limit)
    expected = sorted(range(len(rows)), key=lambda row: (user[row], part[row] if split else 0, time[row]))
    assert into.read("item", 0, len(rows)).tolist() == expected
    assert into.read("time", 0, len(rows)).tolist() == time[expected].tolist()
    unsorted.close()
    into.close()


def test_many_equal_times_keep_the_order_of_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "BLOCK_ROWS", 5000)
    user = np.random.default_rng(0).integers(300, size=20_000)
    names = {"user": "<i4", "time": "<i8", "item": "<i4"}
    unsorted, into = spool.Spool(tmp_path / "a", names), spool.Spool(tmp_path / "b", {**names, "keep": "?"})
    unsorted.append({"user": user, "time": np.zeros(len(user)), "item": np.arange(len(user))})
    ordered.sort(unsorted, into, np.bincount(user), 1, rows=3000)
    assert into.read("item", 0, len(user)).tolist() == sorted(range(len(user)), key=lambda row: user[row])
    unsorted.close()
    into.close()


def test_times_too_far_apart_for_one_number_are_sorted_all_the_same() -> None:
    user, time = np.array([3, 1, 3, 1]), np.array([2**61, 5, -(2**61), 5])
    assert ordered._order(user, None, time).tolist() == [1, 3, 2, 0]


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=30), limit=st.integers(1, 20))
def test_ranges_cover_all_users_and_are_small_unless_one_user_is_large(counts: list[int], limit: int) -> None:
    ranges = ordered.ranges_of(np.array(counts), limit)
    assert [user for part in ranges for user in range(part.first, part.last)] == list(range(len(counts)))
    assert [part.stop - part.start for part in ranges] == [sum(counts[part.first : part.last]) for part in ranges]
    assert all(part.stop - part.start <= limit or part.last - part.first == 1 for part in ranges)
