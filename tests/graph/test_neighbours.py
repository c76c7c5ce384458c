"""Many pairs at once: found by bisection, in buckets of equal size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.graph.neighbours import QUANTILES, Neighbours
from tests.graph.logs import graph_of

ITEMS = 40


def made(kept: int, random: np.random.Generator, symmetric: bool = False) -> Neighbours:
    """Lists of any length up to `kept`, with weights that tell the pair: (100 left + right) / 10,000."""
    item = np.full((ITEMS + 1, kept), ITEMS + 1, np.int32)
    for row in range(1, ITEMS + 1):
        length = random.integers(kept + 1)
        item[row, :length] = np.sort(random.permutation(np.delete(np.arange(1, ITEMS + 1), row - 1))[:length])
    told = np.where(item <= ITEMS, np.arange(ITEMS + 1)[:, None] * 100 + item, 0).astype(np.float32)
    return Neighbours(item, told, told / 10_000, told.sum(1), np.zeros(QUANTILES - 1, np.float32), symmetric)


@given(st.integers(1, 39), st.integers(0, 1000))
def test_every_pair_is_found_where_it_is_and_nowhere_else(kept: int, seed: int):
    neighbours = made(kept, np.random.default_rng(seed))
    every = np.arange(ITEMS + 1)
    expected = np.zeros((ITEMS + 1, ITEMS + 1), np.float32)
    for row in every:
        for column in neighbours.item_IK[row][neighbours.item_IK[row] < neighbours.none]:
            expected[row, column] = row * 100 + column
    assert np.array_equal(neighbours.strengths(every[:, None], every), expected)
    # what fills lists up is no item, even where it is asked for
    assert not neighbours.strengths(every, ITEMS + 1).any()


def test_a_symmetric_relation_is_looked_up_from_both_sides():
    random = np.random.default_rng(0)
    one, both = made(5, random), made(5, np.random.default_rng(0), symmetric=True)
    every = np.arange(ITEMS + 1)
    single = one.weights(every[:, None], every)
    assert np.array_equal(both.weights(every[:, None], every), np.maximum(single, single.T))


def test_buckets_are_eight_and_of_about_equal_size():
    random = np.random.default_rng(1)
    log = [random.integers(1, 200, size=30).tolist() for _ in range(150)]
    with graph_of(log, items=200, top=20) as graph:
        for relation in (graph.together, graph.following):
            known = relation.item_IK < relation.none
            left, _ = np.nonzero(known)
            buckets = relation.buckets(left, relation.item_IK[known])
            counts = np.bincount(buckets, minlength=9)
            assert counts[0] == 0
            assert len(counts) == 9
            # ties of weights go to one bucket
            assert counts[1:] == pytest.approx(known.sum() / 8, rel=0.25)
            weights = relation.weights(left, relation.item_IK[known])
            highest = [weights[buckets == bucket].max() for bucket in range(1, 8)]
            lowest = [weights[buckets == bucket].min() for bucket in range(2, 9)]
            assert all(high < low for high, low in zip(highest, lowest, strict=True))
            assert relation.buckets([1, 0], [1, 5]).tolist() == [0, 0]


def test_answers_have_the_shape_of_the_question():
    with graph_of([[1, 2, 3]]) as graph:
        assert graph.together.strengths(1, 2).shape == ()
        assert graph.together.buckets(np.array([[1], [2]]), np.array([1, 2, 3])).shape == (2, 3)
        assert graph.following.weights(np.empty(0, np.int64), np.empty(0, np.int64)).shape == (0,)
