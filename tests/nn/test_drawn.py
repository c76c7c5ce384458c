"""Propagation over drawn neighbours: against the whole graph, against loops over lists, and on average."""

import pytest
import torch
from torch import Tensor

from rec.nn.propagate import Means, Propagation
from tests.nn.test_propagate import edges_of, random_graph, vectors

HIDDEN = torch.tensor([3, 7, 11])


def propagation(adjacency_UI: Tensor, fan_out: int, layers: int = 3) -> Propagation:
    return Propagation(edges_of(adjacency_UI), edges_of(adjacency_UI.t()), layers=layers, fan_out=fan_out)


def drawn(block: Propagation, tables: tuple[Tensor, Tensor], rows: Tensor, key: int, hidden: Tensor = HIDDEN) -> Tensor:
    means: Means = block(*tables, hidden, torch.tensor(key), want_users=False, item_N=rows)
    return means.item_ID


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_a_fan_out_of_the_largest_degree_gives_the_whole_graphs_vectors_and_gradients(layers: int, seed: int):
    adjacency = random_graph(20, 15, 0.3, seed)
    block, tables = propagation(adjacency, 20, layers), vectors(adjacency)
    rows = torch.tensor([4, 2, 9, 4, 0, 1])
    ours, whole = drawn(block, tables, rows, 5), block(*tables, HIDDEN).item_ID
    torch.testing.assert_close(ours[rows], whole[rows], rtol=1e-5, atol=1e-6)
    others = [row for row in range(15) if row not in rows]
    assert not ours[others].any()
    weight = torch.randn(15, 3)
    weight[others] = 0
    given_back = torch.autograd.grad((weight * ours).sum(), tables)
    for one, other in zip(given_back, torch.autograd.grad((weight * whole).sum(), tables), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_users_are_drawn_for_as_items_are():
    adjacency = random_graph(20, 15, 0.3, seed=2)
    block, tables = propagation(adjacency, 20), vectors(adjacency)
    users, items = torch.tensor([5, 6, 5]), torch.tensor([8, 2])
    ours, whole = block(*tables, key=torch.tensor(1), user_N=users, item_N=items), block(*tables)
    torch.testing.assert_close(ours.user_UD[users], whole.user_UD[users], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.item_ID[items], whole.item_ID[items], rtol=1e-5, atol=1e-6)


def test_on_average_over_keys_the_vectors_are_those_of_the_whole_graph():
    """Within five standard errors, and nearly all within two; three hops, where the same node is drawn for twice."""
    adjacency = random_graph(30, 20, 0.5, seed=4)
    block, tables, rows = propagation(adjacency, 3), vectors(adjacency), torch.arange(2, 20)
    with torch.no_grad():
        samples = torch.stack([drawn(block, tables, rows, key * 7919)[rows] for key in range(600)]).double()
        whole = block(*tables, HIDDEN).item_ID[rows]
    errors = (samples.mean(0) - whole).abs() / (samples.std(0) / len(samples) ** 0.5)
    assert errors.max() < 5
    assert (errors < 2).double().mean() > 0.85
    assert samples.std(0).min() > 0.01


def test_one_hop_by_hand():
    """Item 1 has five users, of whom the second is hidden: of the four others, two are drawn, one of each half."""
    adjacency = torch.zeros(5, 2)
    adjacency[:, 1] = 1
    tables = torch.tensor([[1.0], [1000.0], [10.0], [100.0], [0.5]]), torch.zeros(2, 1)
    seen = set()
    for key in range(60):
        mean = drawn(propagation(adjacency, 2, layers=1), tables, torch.tensor([1]), key, torch.tensor([1]))
        seen.add(round(2 * mean[1, 0].item(), 3))  # each of two weighs 4 / 2 (4 x 1)^(-1/2) = 1
    assert seen == {one + other for one in (1, 10) for other in (100, 0.5)}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_edges_hidden_users_have_no_bit_of_anything_changes(seed: int):
    adjacency = random_graph(12, 9, 0.6, seed)
    rewired = adjacency.clone()
    hidden = torch.tensor([1, 4, 11])
    rewired[hidden] = random_graph(12, 9, 0.6, seed + 100)[hidden]
    tables, rows, results = vectors(adjacency), torch.arange(9), []
    for graph in (adjacency, rewired):
        means = drawn(propagation(graph, 2), tables, rows, seed, hidden)
        results.append([means, *torch.autograd.grad(means.square().sum(), tables)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_vector_hangs_on_the_key_and_not_on_what_else_is_asked_for():
    adjacency = random_graph(30, 20, 0.5, seed=4)
    block, tables = propagation(adjacency, 2), vectors(adjacency)
    alone, together = drawn(block, tables, torch.tensor([6]), 3), drawn(block, tables, torch.arange(20), 3)
    assert torch.equal(alone[6], together[6])
    assert not torch.equal(alone[6], drawn(block, tables, torch.tensor([6]), 4)[6])


def test_a_graph_without_edges_gives_layer_0():
    adjacency = torch.zeros(12, 5)
    tables = vectors(adjacency)
    torch.testing.assert_close(drawn(propagation(adjacency, 2), tables, torch.arange(5), 1), tables[1] / 4)
