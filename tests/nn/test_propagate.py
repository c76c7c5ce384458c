"""Propagation against a dense reference in double precision, built from the edges as a matrix."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rec.nn.mean_over_layers import Edges, Half, mean_over_layers
from rec.nn.propagate import Means, Propagation

D = 3
Pairs = Sequence[tuple[int, int]]


def edges_of(adjacency: Tensor) -> Edges:
    """(N, M) of 0 and 1 -> its rows as lists."""
    offsets = torch.cat([torch.zeros(1), adjacency.sum(1).cumsum(0)]).int()
    return Edges(offsets, adjacency.nonzero()[:, 1].int())


def propagation(adjacency_UI: Tensor, **options) -> Propagation:
    return Propagation(edges_of(adjacency_UI), edges_of(adjacency_UI.t()), **options)


def random_graph(users: int, items: int, share: float, seed: int) -> Tensor:
    """(U, I) of 0 and 1; item 0 is padding and has no user, and user 0 and item 1 have nobody."""
    generator = torch.Generator().manual_seed(seed)
    adjacency = (torch.rand(users, items, generator=generator) < share).double()
    adjacency[0], adjacency[:, :2] = 0, 0
    return adjacency


def dense(adjacency_UI: Tensor, user_UD: Tensor, item_ID: Tensor, layers: int) -> Means:
    """The published equations on the whole (U + I) x (U + I) matrix."""
    users = len(user_UD)
    whole = torch.zeros(users + len(item_ID), users + len(item_ID), dtype=torch.float64)
    whole[:users, users:], whole[users:, :users] = adjacency_UI, adjacency_UI.t()
    degrees = whole.sum(1)
    power = torch.where(degrees > 0, degrees**-0.5, 0.0)
    normalised = power[:, None] * whole * power
    layer = torch.cat([user_UD, item_ID]).double()
    total = layer
    for _ in range(layers):
        layer = normalised @ layer
        total = total + layer
    return Means(*(total / (layers + 1)).split([users, len(item_ID)]))


def vectors(adjacency: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    user_UD, item_ID = (torch.randn(size, D, generator=generator) for size in adjacency.shape)
    return user_UD.requires_grad_(), item_ID.requires_grad_()


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@given(users=st.integers(1, 12), items=st.integers(2, 12), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_means_and_gradients_are_those_of_the_dense_matrix(
    layers: int, users: int, items: int, share: float, seed: int
):
    adjacency = random_graph(users, items, share, seed)
    tables = vectors(adjacency)
    means, expected = propagation(adjacency, layers=layers)(*tables), dense(adjacency, *tables, layers)
    torch.testing.assert_close(means.user_UD.double(), expected.user_UD, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(means.item_ID.double(), expected.item_ID, rtol=1e-5, atol=1e-6)
    weights = [torch.randn_like(mean) for mean in means]
    given_back = torch.autograd.grad(sum((w * mean).sum() for w, mean in zip(weights, means, strict=True)), tables)
    wanted = torch.autograd.grad(sum((w * mean).sum() for w, mean in zip(weights, expected, strict=True)), tables)
    for gradient, reference in zip(given_back, wanted, strict=True):
        torch.testing.assert_close(gradient, reference.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_one_side_passes_the_numerical_check_of_gradients(layers: int):
    adjacency = random_graph(5, 7, 0.4, seed=2)
    halves = [
        Half(edges_of(matrix), torch.rand(int(matrix.sum()), dtype=torch.float64))
        for matrix in (adjacency, adjacency.t())
    ]
    by_user, by_item = halves
    order = torch.argsort(edges_of(adjacency).neighbours_E, stable=True)
    by_item = by_item._replace(values_E=by_user.values_E[order])  # an edge has one value, whoever asks
    tables = [table.double().detach().requires_grad_() for table in vectors(adjacency)]
    assert torch.autograd.gradcheck(lambda u, i: mean_over_layers(u, i, by_user, by_item, layers), tables)
    assert torch.autograd.gradcheck(lambda u, i: mean_over_layers(i, u, by_item, by_user, layers), tables)


def test_two_layers_by_hand():
    """One user with the items 1 and 2, of which another user has the second: degrees 2, 1 for users, 1, 2 for items.

    The first layer of item 1 is u1 / sqrt(2); its second (i1 / sqrt(2) + i2 / 2) / sqrt(2).
    """
    adjacency = torch.tensor([[0.0, 1, 1], [0, 0, 1]])
    user, item = torch.tensor([[2.0], [4.0]]), torch.tensor([[0.0], [8.0], [6.0]])
    means = propagation(adjacency, layers=2)(user, item)
    first, second = 2 / 2**0.5, (8 / 2**0.5 + 6 / 2) / 2**0.5
    assert means.item_ID[1].item() == pytest.approx((8 + first + second) / 3)


def test_hiding_users_is_a_graph_without_their_edges_bit_for_bit():
    adjacency, hidden = random_graph(20, 15, 0.3, seed=5), torch.tensor([3, 7, 0])
    without = adjacency.clone()
    without[hidden] = 0
    tables = vectors(adjacency)
    shown, rebuilt = propagation(adjacency, layers=3)(*tables, hidden), propagation(without, layers=3)(*tables)
    for one, other in zip(shown, rebuilt, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(shown.item_ID, propagation(adjacency, layers=3)(*tables).item_ID)


@given(seed=st.integers(0, 99))
def test_whatever_edges_hidden_users_have_no_bit_of_anybodys_vector_changes(seed: int):
    adjacency, hidden = random_graph(12, 9, 0.4, seed), torch.tensor([1, 4, 11])
    rewired = adjacency.clone()
    rewired[hidden] = random_graph(12, 9, 0.6, seed + 100)[hidden]
    tables, key = vectors(adjacency), torch.tensor(seed)
    results = []
    for graph in (adjacency, rewired):
        means = propagation(graph, layers=3, dropout=0.3)(*tables, hidden, key)
        gradients = torch.autograd.grad(sum(mean.square().sum() for mean in means), tables)
        results.append([*means, *gradients])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_hidden_users_and_isolated_nodes_keep_their_own_layer_only():
    adjacency, hidden = random_graph(8, 6, 0.7, seed=1), torch.tensor([3])
    tables = vectors(adjacency)
    means = propagation(adjacency, layers=3)(*tables, hidden)
    for user in (0, 3):
        torch.testing.assert_close(means.user_UD[user], tables[0][user] / 4)
    torch.testing.assert_close(means.item_ID[:2], tables[1][:2] / 4)


def test_a_graph_without_edges_has_no_neighbours():
    adjacency = torch.zeros(4, 5)
    tables = vectors(adjacency)
    means = propagation(adjacency, layers=2, dropout=0.5)(*tables, torch.tensor([1]), torch.tensor(3))
    torch.testing.assert_close(means.item_ID, tables[1] / 3)


def test_edge_dropout_takes_an_edge_out_in_both_directions_and_depends_on_the_step_alone():
    adjacency = random_graph(40, 30, 0.5, seed=3)
    drops = propagation(adjacency, layers=1, dropout=0.3)
    whole_UI, whole_IU = matrices(propagation(adjacency, layers=1), None)
    masks = []
    for key in (torch.tensor(5), torch.tensor(5), torch.tensor(6)):
        dense_UI, dense_IU = matrices(drops, key)
        assert torch.equal(dense_UI, dense_IU.t())
        dropped = dense_UI == 0
        torch.testing.assert_close(dense_UI, (whole_UI / 0.7).masked_fill(dropped, 0))
        assert dropped[adjacency > 0].any()
        masks.append(dense_UI)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert torch.equal(matrices(drops.eval(), None)[1], whole_IU)


def matrices(block: Propagation, key: Tensor | None) -> list[Tensor]:
    """The halves of S of a step, (U, I) and (I, U)."""
    halves = block.halves(None, key)
    sizes = [len(half.edges.offsets) - 1 for half in halves]
    return [
        torch.sparse_csr_tensor(*half.edges, half.values_E, size, check_invariants=True).to_dense()
        for half, size in zip(halves, (sizes, sizes[::-1]), strict=True)
    ]


def test_edge_dropout_keeps_the_expected_sum():
    """Over 400 keys, the mean value of each of 500 edges, all (20 x 25)^(-1/2), is that within five standard errors."""
    adjacency = torch.ones(20, 25)
    drops = propagation(adjacency, layers=1, dropout=0.3)
    mean_E = torch.stack([drops.halves(None, torch.tensor(key))[0].values_E for key in range(400)]).mean(0) * 500**0.5
    assert (mean_E - 1).abs().max() < 5 * (0.3 / 0.7 / 400) ** 0.5
    assert abs(mean_E.mean() - 1) < 5 * (0.3 / 0.7 / 400 / 500) ** 0.5


def test_vectors_stay_fp32_under_mixed_precision():
    adjacency = random_graph(8, 6, 0.7, seed=1)
    block, tables = propagation(adjacency, layers=2), vectors(adjacency)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = block(*tables, torch.tensor([1]))
    assert torch.equal(mixed.item_ID, block(*tables, torch.tensor([1])).item_ID)
    half = block(*(table.bfloat16() for table in tables))
    assert half.item_ID.dtype == torch.float32
