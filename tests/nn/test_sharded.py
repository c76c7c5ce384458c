"""The exact cross-entropy with the rows of the table on several ranks, against the dense one of a single process."""

import pytest
import torch
from torch import Tensor

from rec.nn.sharded import sharded_cross_entropy
from rec.ranks import Ranks
from tests.ranks import run_ranks

C, D = 23, 5
POSITIONS = [5, 0, 3, 9]
"""Of each rank: of different numbers, one without any."""
BOUNDS = [0, 8, 16, 16, 23]
"""Rows of each rank; the third has none."""


def _everything(world: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, table, targets and weights of all ranks together."""
    generator, positions = torch.Generator().manual_seed(world), sum(POSITIONS[:world])
    query = torch.randn(positions, D, dtype=torch.float64, generator=generator) * 2
    table = torch.randn(C, D, dtype=torch.float64, generator=generator) * 2
    target = torch.randint(C, (positions,), generator=generator)
    weight = torch.rand(positions, dtype=torch.float64, generator=generator)
    return query.to(dtype), table.to(dtype), target, weight.to(dtype)


def _dense(world: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N) losses in double precision, and the gradients of 1.7 times their sum."""
    query, table, target, weight = _everything(world, torch.float64)
    query.requires_grad_(), table.requires_grad_()
    losses = -weight * torch.log_softmax(query @ table.t(), 1)[torch.arange(len(query)), target]
    return losses.detach(), *torch.autograd.grad(losses.sum() * 1.7, (query, table))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_loss_and_gradients_are_those_of_one_process(world: int, dtype: torch.dtype, tolerance: float):
    bounds = [*BOUNDS[:world], C]

    def on(ranks: Ranks) -> list[Tensor]:
        query, table, target, weight = _everything(world, dtype)
        start = sum(POSITIONS[: ranks.rank])
        own, first = slice(start, start + POSITIONS[ranks.rank]), bounds[ranks.rank]
        mine, rows = query[own].clone(), table[first : bounds[ranks.rank + 1]].clone()
        mine.requires_grad_(), rows.requires_grad_()
        loss = sharded_cross_entropy(mine, rows, target[own], weight[own], ranks, first=first)
        return [loss.detach(), *torch.autograd.grad(loss * 1.7, (mine, rows))]

    losses, of_query, of_table = _dense(world)
    found = run_ranks(on, world)
    for rank, (loss, *_) in enumerate(found):
        start = sum(POSITIONS[:rank])
        expected = losses[start : start + POSITIONS[rank]].sum().item()
        assert loss.item() == pytest.approx(expected, rel=tolerance, abs=tolerance)
    for place, expected in ((1, of_query), (2, of_table)):
        gradient = torch.cat([one[place] for one in found]).double()
        assert (gradient - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("world", [1, 2, 4])
def test_leading_rows_that_are_no_classes_get_no_gradient(world: int):
    skip, bounds = 9, [*BOUNDS[:world], C]  # more rows than the first rank of four has

    def on(ranks: Ranks) -> list[Tensor]:
        query, table, target, weight = _everything(world, torch.float64)
        start, first = sum(POSITIONS[: ranks.rank]), bounds[ranks.rank]
        own = slice(start, start + POSITIONS[ranks.rank])
        mine, rows = query[own].clone().requires_grad_(), table[first : bounds[ranks.rank + 1]].clone().requires_grad_()
        target = skip + target[own] % (C - skip)
        loss = sharded_cross_entropy(mine, rows, target, weight[own], ranks, first=first, skip=skip)
        return list(torch.autograd.grad(loss, (mine, rows)))

    query, table, target, weight = _everything(world, torch.float64)
    query.requires_grad_(), table.requires_grad_()
    losses = -weight * torch.log_softmax(query @ table[skip:].t(), 1)[torch.arange(len(query)), target % (C - skip)]
    found = zip(*run_ranks(on, world), strict=True)
    for parts, expected in zip(found, torch.autograd.grad(losses.sum(), (query, table)), strict=True):
        torch.testing.assert_close(torch.cat(parts), expected)


def test_what_comes_back_through_the_loss_of_one_rank_is_its_own():
    factors, rows_of_rank, positions_of_rank = (3.0, 0.5), (slice(0, 12), slice(12, C)), (slice(0, 2), slice(2, 5))

    def on(ranks: Ranks) -> Tensor:
        query, table, target, weight = _everything(2, torch.float64)
        mine, held = positions_of_rank[ranks.rank], rows_of_rank[ranks.rank]
        rows = table[held].clone().requires_grad_()
        loss = sharded_cross_entropy(query[mine], rows, target[mine], weight[mine], ranks, first=held.start)
        return torch.autograd.grad(loss * factors[ranks.rank], rows)[0]

    query, table, target, weight = _everything(2, torch.float64)
    table.requires_grad_()
    factor = torch.tensor([factors[0]] * 2 + [factors[1]] * 3)
    losses = -factor * weight * torch.log_softmax(query @ table.t(), 1)[torch.arange(5), target]
    torch.testing.assert_close(torch.cat(run_ranks(on, 2)), torch.autograd.grad(losses.sum(), table)[0])
