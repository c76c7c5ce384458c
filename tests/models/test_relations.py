"""Relations of a batch: ids against loops over pairs, and against graphs that were made without the user."""

import tempfile
from collections.abc import Sequence as Row
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rec.data.batch import Queries, Sequences, scored_cells
from rec.data.dataset import Dataset
from rec.graph.graph import Graph
from rec.models.relations import Paper, rarest, tensors, tokens_of
from rec.nn.relations import Tokens, relation_ids
from tests.graph import oracle
from tests.graph.logs import ITEMS, LOGS, graph_of
from tests.small import batch_of, graph_for, queries

Ids = dict[str, Tensor]


def level(weight: float, bounds: np.ndarray) -> int:
    return 1 + int(np.searchsorted(bounds, np.float32(weight), side="right")) if weight > 0 else 0


def ids_of(graph: Graph, batch: Sequences | Queries, shown: Tensor | None = None) -> Ids:
    return relation_ids(tensors(graph), tokens_of(batch, shown))


def training(user: int, row: Row[int]) -> Sequences:
    """A window that is a whole history: all but the last item are read, all but the first predicted."""
    items, nothing = torch.tensor([row]), torch.zeros(1, dtype=torch.int64)
    return Sequences(
        torch.tensor([user]), items[:, :-1], 0 * items[:, :-1], items[:, 1:], nothing,
        torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0), nothing, torch.tensor([user]), nothing[0],
        scored_cells(nothing, items[:, 1:]),
    )  # fmt: skip


@settings(max_examples=60)
@given(LOGS, st.data())
def test_a_users_own_relations_are_those_of_a_graph_made_without_him(log: list[list[int]], data: st.DataObject):
    """Whatever he trains on, what he is about to do first of all, cannot be read from his relations."""
    if users := [user for user, row in enumerate(log, start=1) if len(row) > 1]:
        check_without(log, data.draw(st.sampled_from(users)))


def test_what_follows_an_item_is_counted_exactly_however_often_it_does():
    """In units of 1 / 2520, twelve items are followed by some 10^8 each, of which float32 would miss some."""
    items = np.random.default_rng(7).integers(1, ITEMS + 1, 250_000)
    expected = np.zeros(ITEMS + 1, np.int64)
    for gap in range(1, 11):
        first, then = items[:-gap], items[gap:]
        expected += 2520 // gap * np.bincount(first[first != then], minlength=ITEMS + 1)
    assert expected[1:].min() > 10**8
    with graph_of([items.tolist()], top=3) as graph:
        assert tensors(graph).out_I.tolist() == expected.tolist()


def test_a_share_that_is_a_bound_reaches_it():
    check_without([[3, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]] * 2, 1)


def check_without(log: list[list[int]], user: int) -> None:
    row = log[user - 1]
    others = [[] if other == user else items for other, items in enumerate(log, start=1)]
    cosine, shares = oracle.cosine(others), oracle.shares(others)
    with graph_of(log) as graph:
        ids = ids_of(graph, training(user, row))
        for (query, one), (key, other) in product(enumerate(row[:-1]), repeat=2):
            pair = [int(ids[kind][0, query, key]) for kind in ("together", "following", "followed")]
            assert pair == [
                level(cosine.get((one, other), 0), graph.together.bounds),
                level(shares.get((other, one), 0), graph.following.bounds),
                level(shares.get((one, other), 0), graph.following.bounds),
            ], (row, query, key)


@settings(max_examples=40)
@given(LOGS, st.lists(st.integers(1, ITEMS), min_size=1, max_size=9), st.integers(1, 4))
def test_a_stranger_sees_the_graph_as_it_is(log: list[list[int]], history: list[int], top: int):
    with graph_of(log, top=top) as graph:
        ids = ids_of(graph, queries([0], [history, [1]][:1], width=11))
        one, other = np.array(history)[:, None], np.array(history)
        size = len(history)
        for kind, expected in {
            "together": graph.together.buckets(one, other),
            "followed": graph.following.buckets(one, other),
            "following": graph.following.buckets(other, one),
        }.items():
            assert ids[kind][0, :size, :size].tolist() == expected.tolist(), kind
            assert not ids[kind][0, size:].any()
            assert not ids[kind][0, :, size:].any()


def test_an_item_that_is_new_to_a_user_is_as_it_is_to_strangers(mixed: Dataset):
    graph = graph_for(mixed)
    user = 8
    own = mixed.train_items(user)
    new = next(item for item in range(1, 31) if item not in own)
    history = [*own[:5].tolist(), new]
    his, theirs = (ids_of(graph, queries([row], [history]))["together"][0] for row in (user, 0))
    degree = graph.degrees
    for place, item in enumerate(history[:-1]):
        count = graph.together.strengths(item, new)
        expected = level(
            float(count / np.sqrt((degree[item] - 1) * degree[new])) if count else 0, graph.together.bounds
        )
        assert his[-1, place] == his[place, -1] == expected
    assert not torch.equal(his[:-1, :-1], theirs[:-1, :-1])


def test_nodes_times_and_places_by_hand():
    minute = 60_000
    tokens = Tokens(
        user_BT=torch.tensor([[7, 0, 0, 0, 0]]),
        item_BT=torch.tensor([[0, 3, 0, 5, 3]]),  # a user, an item, a text, two items
        times_BT=torch.tensor([[0, 1000, 0, 1000 + 59_999, 1000 + 5 * minute]]),
        owner_B=torch.tensor([0]),
        window_BW=torch.tensor([[3, 5, 3]]),
    )
    with graph_of([[1, 2]]) as graph:
        ids = relation_ids(tensors(graph), tokens)
    assert ids["node"][0].tolist() == [
        [1, 2, 4, 2, 2],
        [2, 1, 4, 0, 1],
        [3, 3, 0, 3, 3],
        [2, 0, 4, 1, 0],
        [2, 1, 4, 0, 1],
    ]
    assert ids["time"][0].tril().tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 1, 0, 1, 0],
        [0, 3, 0, 3, 1],
    ]
    gaps = relation_ids(tensors(graph), tokens_of(queries([0], [[1] * 70]), None))["position"][-1].flip(0)
    assert gaps[[0, 1, 7, 8, 15, 16, 31, 32, 63, 64]].tolist() == [0, 1, 7, 8, 8, 9, 9, 10, 10, 11]


def test_shared_values_are_those_of_pairs_and_only_the_rarest_count(mixed: Dataset, tmp_path: Path):
    from rec.graph.attribute import Attribute

    random = np.random.default_rng(3)
    held = [[]] + [sorted(random.choice(12, size=random.integers(0, 4), replace=False)) for _ in range(30)]
    counts = np.bincount(np.concatenate(held).astype(int), minlength=12)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in held])])
    attribute = Attribute(offsets, np.concatenate(held).astype(np.int32), counts)
    graph = tensors(graph_for(mixed))._replace(values={"brand": torch.from_numpy(rarest(attribute))})
    history = random.permutation(30)[:20] + 1
    ids = relation_ids(graph, tokens_of(queries([0], [history.tolist()], width=22), None))["brand"][0]
    assert ids[:20, :20].tolist() == (attribute.shared(history[:, None], history) > 0).astype(int).tolist()
    assert not ids[20:].any()
    assert not ids[:, 20:].any()
    two = rarest(attribute, 2)
    for item, row in enumerate(held):
        rare = sorted(row, key=lambda code: (counts[code], code))[:2]
        assert [code - 1 for code in two[item] if code] == rare


def test_relations_of_a_sequence_do_not_hang_on_its_batch(mixed: Dataset):
    graph, batch = graph_for(mixed), batch_of(mixed, size=12)
    together = ids_of(graph, batch, batch.user_B)
    for row in range(len(batch.user_B)):
        alone = batch.take([row])
        one = ids_of(graph, alone, alone.user_B)
        for kind, ids in one.items():
            assert torch.equal(ids[0] if ids.ndim == 3 else ids, together[kind][row] if ids.ndim == 3 else ids), kind


def test_the_papers_relation_of_a_training_window_takes_three_values(mixed: Dataset):
    graph, batch = graph_for(mixed), batch_of(mixed)
    bias = Paper(graph)(batch, batch.user_B)
    shown = torch.cat([batch.user_B[:, None], batch.items_BT], 1) > 0
    for row, places in enumerate(shown.sum(1).tolist()):
        expected = torch.full((places, places), 4 / 11)
        expected[0] = expected[:, 0] = 1.0
        expected.fill_diagonal_(6 / 11)
        torch.testing.assert_close(bias[row, 0, :places, :places], expected)
        assert not bias[row, 0, places:].any()
    hidden = batch.user_B * (torch.arange(len(batch.user_B)) % 2)
    partly = Paper(graph)(batch, hidden)
    assert torch.equal(partly[1], bias[1])
    assert torch.equal(partly[0, 0, 1:, 1:], bias[0, 0, 1:, 1:])
    assert not partly[0, 0, 0].any()
    assert not partly[0, 0, :, 0].any()
    assert torch.equal(Paper(graph)(batch, None), bias[:, :, 1:, 1:])


def test_the_papers_relation_between_items_of_several_users_by_hand():
    """i1 - u1 - i2 - u2 - i3, i9 alone: 1, 4/11 and 2/11 of the closed form, 3/11 from u1 to i3."""
    with graph_of([[1, 2], [2, 3]]) as graph:
        relation = Paper(graph).relation(torch.tensor([[0, 0, 0, 0, 1, 0]]), torch.tensor([[1, 2, 3, 9, 0, 0]]))
    expected = torch.tensor(
        [
            [6, 4, 2, 0, 11, 0],
            [4, 6, 4, 0, 11, 0],
            [2, 4, 6, 0, 3, 0],
            [0, 0, 0, 6, 0, 0],
            [11, 11, 3, 0, 6, 0],
            [0, 0, 0, 0, 0, 0],
        ]
    )
    torch.testing.assert_close(relation[0], expected / 11)


def test_a_graph_without_edges_relates_nothing():
    with graph_of([[], []]) as graph:
        ids = ids_of(graph, queries([1, 0], [[1, 2], [3]]), torch.tensor([1, 0]))
        assert not any(ids[kind].any() for kind in ("together", "following", "followed"))


@pytest.mark.parametrize("kind", ["together", "followed"])
def test_the_own_share_is_what_makes_the_difference(kind: str):
    """Two items that only one user has: he sees no relation between them, a stranger sees his."""
    with graph_of([[1, 2, 3], [4, 5]]) as graph:
        his, theirs = (ids_of(graph, queries([user], [[1, 2, 3]]))[kind] for user in (1, 0))
    assert not his.any()
    assert theirs[0, 0, 1] > 0


def test_folders_are_not_needed_after_the_graph_is_open(tmp_path: Path):
    """Mapped files stay readable."""
    with tempfile.TemporaryDirectory(dir=tmp_path), graph_of([[1, 2], [1, 2]]) as graph:
        relations = Paper(graph)
    assert relations.relation(torch.tensor([[1, 0]]), torch.tensor([[0, 1]]))[0, 0, 1] == 1
