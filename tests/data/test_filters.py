"""What filters keep, in which order they act, and what they report."""

import collections
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.data import ordered
from rec.data.dataset import Dataset
from tests.data.logs import csv, json_lines, prepared, sequences

Pairs = list[tuple[int, int]]
LOGS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


def of(rows: list[Any], **options: Any) -> Dataset:
    return prepared(csv(Path(tempfile.mkdtemp()), rows), format="csv", **options)


def rows_of(pairs: Pairs) -> list[tuple[str, str, int, int]]:
    return [(f"u{user}", f"i{item}", 1, 100 + index) for index, (user, item) in enumerate(pairs)]


def naive_core(pairs: Pairs, users: int, items: int) -> Pairs:
    while True:
        of_user, of_item = (collections.Counter(pair[side] for pair in pairs) for side in (0, 1))
        left = [pair for pair in pairs if of_user[pair[0]] >= users and of_item[pair[1]] >= items]
        if left == pairs:
            return left
        pairs = left


@settings(max_examples=40, deadline=None)
@given(pairs=LOGS, users=st.integers(1, 4), items=st.integers(1, 4), limit=st.integers(1, 20))
def test_the_core_is_the_fixed_point_of_leaving_out(pairs: Pairs, users: int, items: int, limit: int) -> None:
    left = naive_core(pairs, users, items)
    if not left:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordered.sort, "__defaults__", (limit,))
        dataset = of(rows_of(pairs), core_users=users, core_items=items)
    expected = collections.defaultdict(list)
    for user, item in left:
        expected[f"u{user}"].append(f"i{item}")
    assert sequences(dataset) == dict(expected)


def test_one_side_of_the_core_leaves_the_other_alone() -> None:
    pairs = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 3), (2, 4)]
    assert sequences(of(rows_of(pairs), core_users=2)) == {"u0": ["i0", "i1", "i2"], "u1": ["i0", "i3"]}
    assert sequences(of(rows_of(pairs), core_items=2)) == {"u0": ["i0"], "u1": ["i0"]}


def test_the_first_or_the_last_of_repeated_pairs_is_kept() -> None:
    rows = [("u", "a", 1, 9), ("u", "b", 2, 2), ("u", "a", 3, 1), ("v", "a", 4, 5), ("u", "a", 5, 9)]
    assert of(rows).ratings.tolist() == [3, 2, 1, 5, 4]
    assert of(rows, duplicates="first").ratings.tolist() == [3, 2, 4]
    assert of(rows, duplicates="last").ratings.tolist() == [2, 5, 4]


@settings(max_examples=30, deadline=None)
@given(pairs=LOGS, most=st.integers(1, 5), which=st.sampled_from(["first", "last"]))
def test_filters_in_order_equal_their_plain_definition(pairs: Pairs, most: int, which: str) -> None:
    kept: dict[str, list[str]] = {}
    for user in dict.fromkeys(user for user, _ in pairs):
        items = [item for owner, item in pairs if owner == user]
        once = list(dict.fromkeys(items)) if which == "first" else list(dict.fromkeys(items[::-1]))[::-1]
        kept[f"u{user}"] = [f"i{item}" for item in once[-most:]]
    assert sequences(of(rows_of(pairs), duplicates=which, last=most)) == kept


def test_filters_act_in_the_documented_order_and_report_what_is_left() -> None:
    rows = [*(("u", f"i{index}", 5, 1000 + index) for index in range(6)), ("u", "i5", 5, 2000), ("u", "x", 1, 1500),
            ("v", "i0", 5, 1000), ("v", "i1", 5, 5000), ("w", "i0", 5, 1), ("w", "i0", 5, 1001), ("w", "i1", 4, 1002),
            ("y", "i0", 3, 1003), ("y", "i1", 3, 1004)]  # fmt: skip
    dataset = of(rows, min_rating=3, since="1000", until="3000", duplicates="first", core_users=2, last=3, sample=2)
    funnel = [tuple(entry.values()) for entry in dataset.manifest["report"]["funnel"]]
    assert funnel[:-1] == [
        ("read", 15, 4, 7), ("min-rating 3", 14, 4, 6), ("since 1000", 13, 4, 6), ("until 3000", 12, 4, 6),
        ("duplicates first", 11, 4, 6), ("core-users 2", 10, 3, 6), ("last 3", 7, 3, 5),
    ]  # fmt: skip
    assert funnel[-1][:3] == ("sample 2 seed 0", dataset.interactions, 2)


def test_words_are_counted_between_white_space() -> None:
    texts = [None, "", "  ", "one", " one\ttwo \n three ", "vier fünf sechs sieben"]
    records = [{"user": "u", "item": f"{index}", "review": text} for index, text in enumerate(texts)]
    source = json_lines(Path(tempfile.mkdtemp()), records)
    for fewest, left in ((1, ["3", "4", "5"]), (3, ["4", "5"]), (4, ["5"])):
        dataset = prepared(source, f"{fewest}", format="jsonl", text_column="review", min_words=fewest)
        assert sequences(dataset) == {"u": left}


def test_the_bounds_of_dates_are_a_day_in_utc() -> None:
    rows = [("u", "a", 1, "2012-12-31 23:59:59"), ("u", "b", 1, "2013-01-01"), ("u", "c", 1, "2014-01-01")]
    assert sequences(of(rows, since="2013-01-01", until="2014-01-01")) == {"u": ["b"]}
    assert sequences(of(rows, since="1356998400", until="1388534400000")) == {"u": ["b"]}


def test_a_sample_depends_on_the_seed_and_the_ids_and_not_on_the_order_of_the_log() -> None:
    rows = [(f"u{user}", "i", 1, 5) for user in range(200)]
    first, again = of(rows, sample=20, seed=1), of(rows[::-1], sample=20, seed=1)
    assert first.users == 20
    assert set(first.user_ids) == set(again.user_ids)
    assert set(first.user_ids) != set(of(rows, sample=20, seed=2).user_ids)
    assert of(rows, sample=1000).users == 200
