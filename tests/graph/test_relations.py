"""Counts, cosines, PMI and what follows, against their definitions."""

import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.graph import edges, relations, strongest
from rec.graph.edges import Histories
from rec.graph.graph import Graph
from tests.graph import oracle
from tests.graph.logs import ITEMS, LOGS, all_for_training, graph_of

EVERY = np.arange(ITEMS + 1)


def table(values: dict[tuple[int, int], Fraction] | dict[tuple[int, int], float]) -> np.ndarray:
    dense = np.zeros((ITEMS + 1, ITEMS + 1))
    for pair, value in values.items():
        dense[pair] = float(value)
    return dense


@settings(max_examples=60)
@given(LOGS)
def test_strengths_and_weights_of_all_pairs_are_those_of_the_definitions(log: list[list[int]]):
    with graph_of(log) as graph:
        left, right = EVERY[:, None], EVERY[None]
        assert np.array_equal(graph.together.strengths(left, right), table(oracle.together(log)))
        assert graph.together.weights(left, right) == pytest.approx(table(oracle.cosine(log)), rel=1e-6)
        assert graph.following.strengths(left, right) == pytest.approx(table(oracle.following(log)), rel=1e-6)
        assert graph.following.weights(left, right) == pytest.approx(table(oracle.shares(log)), rel=1e-6)


@settings(max_examples=60)
@given(LOGS, st.integers(1, 5))
def test_totals_are_those_of_all_pairs_kept_or_not(log: list[list[int]], kept: int):
    with graph_of(log, top=kept) as graph:
        assert np.array_equal(graph.together.total_I, table(oracle.together(log)).sum(1))
        assert graph.following.total_I == pytest.approx(table(oracle.following(log)).sum(1), rel=1e-12)


@settings(max_examples=60)
@given(LOGS, st.integers(1, 5))
def test_the_lists_are_cut_as_exact_fractions_rank_them(log: list[list[int]], kept: int):
    with graph_of(log, top=kept) as graph:
        assert oracle.listed(graph.together) == oracle.top_together(log, ITEMS, kept)
        assert oracle.listed(graph.following) == oracle.top_following(log, ITEMS, kept)


@settings(max_examples=40)
@given(LOGS)
def test_edges_are_the_distinct_pairs_in_both_directions(log: list[list[int]]):
    with graph_of(log) as graph:
        users = [graph.user_items[a:b].tolist() for a, b in pairwise(graph.user_offsets)]
        items = [graph.item_users[a:b].tolist() for a, b in pairwise(graph.item_offsets)]
        assert users == [[], *(sorted(set(row)) for row in log)]
        assert items == [sorted(u for u, row in enumerate(log, 1) if i in row) for i in range(ITEMS + 1)]
        assert graph.degrees.tolist() == [len(of_item) for of_item in items]


def test_pmi_by_hand():
    """4 users, one of whom has nothing: items 1 and 2 have 2 and 3 users, both have 2; 3 is with 2 once."""
    with graph_of([[1, 2], [2, 1, 1], [2, 3], []]) as graph:
        found = graph.pmi([1, 2, 2, 1, 1, 0], [2, 1, 3, 3, 9, 0])
    assert found == pytest.approx([math.log(2 * 3 / 6), math.log(2 * 3 / 6), math.log(1 * 3 / 3), 0, 0, 0])
    with graph_of([[1, 2], [1, 2], [3, 4], [4, 5]]) as graph:
        assert graph.pmi(1, 2) == pytest.approx(math.log(2 * 4 / (2 * 2)))
        assert graph.pmi(3, 4) == pytest.approx(math.log(1 * 4 / (1 * 2)))


def test_repetitions_follow_at_every_place_and_count_once_as_company():
    log = [[1, 2, 1, 2, 2]]
    with graph_of(log) as graph:
        assert graph.together.strengths(1, 2) == 1
        # 1 at 0 and 2 at 1, 3, 4; 1 at 2 and 2 at 3, 4
        assert graph.following.strengths(1, 2) == pytest.approx(1 + 1 / 3 + 1 / 4 + 1 + 1 / 2)
        assert graph.following.strengths(2, 1) == pytest.approx(1)
        assert graph.following.strengths(1, 1) == graph.following.strengths(2, 2) == 0


def test_the_horizon_is_ten_positions():
    log = [[1, *[3] * 9, 2], [4, *[3] * 10, 5]]
    with graph_of(log) as graph:
        assert graph.following.strengths(1, 2) == pytest.approx(0.1)
        assert graph.following.strengths(4, 5) == 0
        assert graph.together.strengths(4, 5) == 1


def test_nothing_follows_from_one_user_to_the_next():
    with graph_of([[1, 2], [3, 4]]) as graph:
        assert oracle.listed(graph.following) == [[], [2], [], [4], [], *[[]] * (ITEMS - 4)]


def test_of_equal_cosines_the_larger_count_wins_and_then_the_lower_row():
    """Item 1 has 4 users; item 2 shares 2 of its 4 users, 3, 4 and 5 share their only one: cosine 1/2 each."""
    log = [[1, 2, 5], [1, 2, 4], [1, 3], [1], [2], [2]]
    for kept, expected in ((1, [2]), (2, [2, 3]), (3, [2, 3, 4]), (4, [2, 3, 4, 5])):
        with graph_of(log, top=kept) as graph:
            assert oracle.listed(graph.together)[1] == expected


def test_a_pair_is_known_from_the_list_of_either_item():
    """The list of the hub item 1 has room for one; each of its companions knows it."""
    with graph_of([[1, 2], [1, 3], [1, 4]], top=1) as graph:
        assert graph.together.strengths([1, 1, 1], [2, 3, 4]).tolist() == [1, 1, 1]
        assert graph.following.strengths([1, 1, 1], [2, 3, 4]).tolist() == [1, 0, 0]


def test_the_latest_distinct_items_of_a_long_history_make_pairs(monkeypatch: pytest.MonkeyPatch):
    histories = Histories(np.array([0, 0, 6, 8, 13]), np.array([1, 2, 3, 1, 4, 4, 1, 2, 5, 6, 7, 8, 9], np.int32))
    kept = edges.latest(edges.distinct(histories, ITEMS), histories, 3)
    rows = [kept.indices[a:b].tolist() for a, b in pairwise(kept.indptr)]
    assert rows == [[], [1, 3, 4], [1, 2], [7, 8, 9]]  # user 1 had 2 before 3, 1 and 4; user 3 had 5 and 6 first


def test_a_history_of_more_than_a_thousand_items_keeps_its_edges_and_its_order():
    with graph_of([list(range(1, 1102)), [1, 1101]], items=1101) as graph:
        assert len(graph.user_items) == 1103
        assert graph.degrees[[1, 2, 1101]].tolist() == [2, 1, 2]
        assert graph.together.strengths([102, 1101], [103, 1]).tolist() == [1, 1]  # of user 2 only
        assert graph.together.strengths([1, 100, 101], [2, 101, 102]).tolist() == [0, 0, 0]
        assert graph.following.strengths(1, 2) == 1
        assert not graph.together.item_IK[2, 0] < graph.together.none


@pytest.mark.parametrize("work", [1, 7, 40, 10**6])
@pytest.mark.parametrize("threads", [1, 3])
def test_ranges_and_threads_change_nothing(work: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(5)
    log = [random.integers(1, ITEMS + 1, size=random.integers(1, 15)).tolist() for _ in range(20)]
    whole = fingerprint(tmp_path / "whole", log)
    monkeypatch.setattr(strongest, "WORK", work)
    monkeypatch.setattr(relations, "PLACES", work)
    monkeypatch.setattr("rec.graph.build.THREADS", threads)
    assert fingerprint(tmp_path / "parts", log) == whole


def fingerprint(root: Path, log: list[list[int]]) -> str:
    from rec.graph.build import build

    graph: Graph = build(all_for_training(root, log), top=3)
    return graph.fingerprint


@settings(max_examples=30)
@given(LOGS, st.randoms(use_true_random=False))
def test_the_order_of_users_does_not_matter(log: list[list[int]], random):
    other = random.sample(log, len(log))
    with graph_of(log, top=3) as one, graph_of(other, top=3) as two:
        for left, right in ((one.together, two.together), (one.following, two.following)):
            for name in ("item_IK", "strength_IK", "weight_IK", "total_I", "bounds"):
                assert np.array_equal(getattr(left, name), getattr(right, name))
