"""Hops between the tokens of a batch, against shortest paths between all nodes."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import shortest_path

from rec.data.dataset import IntArray
from rec.graph import hops as searched
from rec.graph.hops import FAR, Edges, Side, hops

ITEM, USER, TEXT = 0, 1, 2


def random_edges(random: np.random.Generator, users: int, items: int, count: int) -> tuple[Edges, IntArray]:
    """A graph, and (users + items + 2) squared hops between all its nodes, users first, by another algorithm."""
    pairs = np.unique(random.integers([1, 1], [users + 1, items + 1], (count, 2)), axis=0)
    matrix = sp.csr_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(users + 1, items + 1))
    other = sp.csr_array(matrix.T)
    both = sp.csr_array(sp.block_array([[None, matrix], [other, None]]))
    dense = np.minimum(shortest_path(both, unweighted=True), FAR).astype(int)
    return Edges(*(Side(side.indptr.astype(np.int64), side.indices) for side in (matrix, other))), dense


def tokens(
    random: np.random.Generator, kinds: list[int], users: int, items: int, more: int = 0
) -> tuple[IntArray, IntArray]:
    """(4, 9) users and items of the given kinds; `more` rows lie beyond the graph."""
    kind = random.choice(kinds, (4, 9))
    user = np.where(kind == USER, random.integers(1, users + 1 + more, kind.shape), 0)
    return user, np.where(kind == ITEM, random.integers(1, items + 1 + more, kind.shape), 0)


def expected(dense: IntArray, user: IntArray, item: IntArray, users: int, items: int) -> IntArray:
    """Pair by pair."""
    result = np.full((*user.shape, user.shape[1]), FAR)
    for (row, left, right), _ in np.ndenumerate(result):
        ends = [(user[row, place], item[row, place]) for place in (left, right)]
        if any(end == (0, 0) for end in ends):
            continue
        if ends[0] == ends[1]:
            result[row, left, right] = 0
        elif all(u <= users and i <= items for u, i in ends):
            one, other = (u or users + 1 + i for u, i in ends)
            result[row, left, right] = dense[one, other]
    return result


@pytest.mark.parametrize("kinds", [[ITEM], [USER], [ITEM, USER], [ITEM, USER, TEXT]], ids=str)
@pytest.mark.parametrize("seed", range(40))
def test_hops_are_the_lengths_of_shortest_paths(kinds: list[int], seed: int):
    random = np.random.default_rng(seed)
    users, items = map(int, random.integers(3, 40, 2))
    edges, dense = random_edges(random, users, items, int(random.integers(3, 80)))
    user, item = tokens(random, kinds, users, items, more=2)
    assert (hops(edges, user, item) == expected(dense, user, item, users, items)).all()


def test_long_paths_are_counted_to_five_and_no_further():
    """A chain u1 - i1 - u2 - i2 - u3 - i3 - u4."""
    offsets = np.array([0, 0, 1, 3, 5, 6]), np.array([0, 0, 2, 4, 6])
    edges = Edges(Side(offsets[0], np.array([1, 1, 2, 2, 3, 3])), Side(offsets[1], np.array([1, 2, 2, 3, 3, 4])))
    user, item = np.array([[1, 0, 0, 0, 2, 3, 4]]), np.array([[0, 1, 2, 3, 0, 0, 0]])
    assert hops(edges, user, item)[0, 0].tolist() == [0, 1, 3, 5, 2, 4, FAR]


def test_more_sources_than_bits_and_lists_longer_than_a_piece(monkeypatch: pytest.MonkeyPatch):
    """A hub of an item that everybody has, 200 different items, and pieces of 7 edges."""
    monkeypatch.setattr(searched, "EDGES", 7)
    random = np.random.default_rng(1)
    edges, dense = random_edges(random, 60, 200, 150)
    item = random.permutation(200)[:180].reshape(2, 90) + 1
    user = np.zeros_like(item)
    assert (hops(edges, user, item) == expected(dense, user, item, 60, 200)).all()


def test_a_prompt_of_a_user_and_his_items_needs_no_search(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(searched, "_from", None)
    random = np.random.default_rng(2)
    edges, _ = random_edges(random, 20, 30, 200)
    own = edges.users.neighbours[edges.users.offsets[5] : edges.users.offsets[6]].astype(np.int64)
    item = np.concatenate([[0], own, own[:1]])[None]
    user = np.where(np.arange(item.shape[1]) == 0, 5, 0)[None]
    found = hops(edges, user, item)[0]
    assert set(found[0, 1:].tolist()) == {1}
    assert found[1, -1] == 0
    assert set(found[1, 2:-1].tolist()) == {2}
