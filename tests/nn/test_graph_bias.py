"""The learned bias against one look-up for each kind and pair, in fp64."""

import pytest
import torch
from torch import Tensor

from rec.nn import graph_bias
from rec.nn.graph_bias import LearnedBias

SIZES = {"node": 5, "together": 9, "following": 9, "followed": 9, "brand": 2, "time": 25, "position": 16}
B, T, HEADS = 3, 11, 4


def random_ids(seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        kind: torch.randint(size, (T, T) if kind == "position" else (B, T, T), generator=random, dtype=torch.int32)
        for kind, size in SIZES.items()
    }


def filled(layers: int) -> LearnedBias:
    torch.manual_seed(1)
    bias = LearnedBias(SIZES, HEADS, layers)
    for table in bias.tables.values():
        torch.nn.init.normal_(table)
    return bias


def looked_up(tables: dict[str, Tensor], ids: dict[str, Tensor]) -> Tensor:
    """(B, layers x heads, T, T): the definition."""
    return (
        torch.stack([table[ids[kind].long()].expand(B, T, T, -1) for kind, table in tables.items()])
        .sum(0)
        .movedim(3, 1)
    )


@pytest.mark.parametrize("combinations", [1, 100, 4096, 10**9])
@pytest.mark.parametrize("layers", [1, 3])
def test_values_and_gradients_are_those_of_one_look_for_each_kind(
    layers: int, combinations: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(graph_bias, "COMBINATIONS", min(combinations, 60_000))
    bias, ids = filled(layers), random_ids()
    ours = bias(ids)
    assert isinstance(ours, tuple) == (layers > 1)
    whole = torch.cat(ours, 1) if isinstance(ours, tuple) else ours
    exact = {kind: table.detach().double().requires_grad_() for kind, table in bias.tables.items()}
    theirs = looked_up(exact, ids)
    torch.testing.assert_close(whole.double(), theirs, rtol=1e-5, atol=1e-5)
    weight = torch.randn(theirs.shape)
    (whole * weight).sum().backward()
    (theirs * weight).sum().backward()
    for kind, table in bias.tables.items():
        torch.testing.assert_close(table.grad.double(), exact[kind].grad, rtol=1e-4, atol=1e-4, msg=kind)


def test_it_starts_at_nothing():
    assert not LearnedBias(SIZES, HEADS)(random_ids()).any()


def test_the_way_of_a_gpu_adds_the_same_numbers():
    gradient, code = torch.randn(HEADS, 500), torch.randint(9, (500,))
    dense = torch.ops.aten.embedding_dense_backward(gradient.t().contiguous(), code, 9, -1, False).t()
    torch.testing.assert_close(graph_bias._sums(gradient, code, 9), dense)
