"""Rows of a table on several ranks, against `nn.Embedding` on one."""

import pytest
import torch
from torch import Tensor, nn

from rec.nn import shards
from rec.nn.shards import Shard, each
from rec.nn.tables import Tables, mean_square, rows_of
from rec.ranks import Ranks
from tests.ranks import run_ranks

C, D = 11, 3
ASKED = [[4, 0, 4, 10], [], [0, 1, 9, 9, 4], [10]]
"""Rows that each rank looks up: of different numbers, one without any, row 0 and rows of others among them."""


@pytest.mark.parametrize("rows", [1, 3, 15, 16, 17, 31, 32, 40])
@pytest.mark.parametrize("world", [1, 3, 5])
def test_each_rank_begins_with_its_rows_of_what_one_process_draws(
    rows: int, world: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shards, "CHUNK", 16)
    torch.manual_seed(7)
    whole, after = Tables(rows, rows, D, 0.5), torch.rand(())
    parts = []
    for rank in range(world):
        torch.manual_seed(7)
        parts.append(Tables(rows, rows, D, 0.5, Ranks(rank, world)))
        assert torch.equal(torch.rand(()), after), "what is drawn next must be the same, too"
    assert torch.equal(torch.cat([part.user.weight for part in parts]), whole.user.weight)
    assert torch.equal(torch.cat([part.item.weight for part in parts]), whole.item.weight)
    assert not whole.item.weight[0].any()
    assert max(len(part.item.weight) for part in parts) == -(-(rows + 1) // world)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_tables_start_from_features_and_forget_users_as_whole_ones_do(world: int):
    features, known = torch.randn(12, 4), torch.arange(8) % 3 > 0
    tables = []
    for exchange in (None, *(Ranks(rank, world) for rank in range(world))):
        torch.manual_seed(1)
        tables.append(Tables(8, 11, 6, 0.5, exchange))
        tables[-1].start_items_from(features, 0.5)
        tables[-1].forget_users(known)
    whole, *parts = tables
    assert torch.equal(torch.cat([part.item.weight for part in parts]), whole.item.weight)
    assert torch.equal(torch.cat([part.user.weight for part in parts]), whole.user.weight)
    assert not whole.user.weight[0].any()


def _table(world: int) -> Tensor:
    return torch.randn(C, D, dtype=torch.float64, generator=torch.Generator().manual_seed(world))


def _shard(ranks: Ranks, padding: int | None = None) -> Shard:
    shard = Shard(C, D, ranks, padding).double()
    with torch.no_grad():
        shard.weight.copy_(_table(ranks.world)[shard.own])
    return shard


@pytest.mark.parametrize("padding", [None, 0])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_look_up_and_its_gradient_are_those_of_an_embedding(world: int, padding: int | None):
    def on(ranks: Ranks) -> tuple[Tensor, Tensor]:
        shard = _shard(ranks, padding)
        found = shard(torch.tensor([ASKED[ranks.rank]], dtype=torch.int64))  # of any shape
        (found * (ranks.rank + 1)).square().sum().backward()
        return found.detach(), shard.weight.grad

    results = run_ranks(on, world)
    whole = nn.Embedding(C, D, padding_idx=padding, _weight=_table(world))
    for rank, (found, _) in enumerate(results):
        expected = whole(torch.tensor([ASKED[rank]], dtype=torch.int64))
        assert torch.equal(found, expected)
        (expected * (rank + 1)).square().sum().backward()
    torch.testing.assert_close(torch.cat([gradient for _, gradient in results]), whole.weight.grad)


def test_rows_may_be_fewer_than_ranks():
    def on(ranks: Ranks) -> tuple[int, Tensor, Tensor]:
        torch.manual_seed(0)
        shard = Shard(2, D, ranks)
        found = shard(torch.tensor([1, 0]))
        found.sum().backward()
        return len(shard.weight), found.detach(), shard.weight.grad

    results = run_ranks(on, 4)
    torch.manual_seed(0)
    whole = nn.Embedding(2, D).weight
    assert [rows for rows, *_ in results] == [1, 1, 0, 0]
    assert all(torch.equal(found, whole[[1, 0]]) for _, found, _ in results)
    assert torch.equal(torch.cat([gradient for *_, gradient in results]), torch.full((2, D), 4.0))


def test_several_look_ups_at_once_are_those_of_a_whole_table():
    def on(ranks: Ranks) -> list[Tensor]:
        return rows_of(_shard(ranks), torch.tensor([[1, 2], [3, ranks.rank]]), torch.tensor([9]))

    for rank, (several, one) in enumerate(run_ranks(on, 2)):
        assert torch.equal(several, _table(2)[[1, 2, 3, rank]].view(2, 2, D))
        assert torch.equal(one, _table(2)[[9]])


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_mean_square_and_its_gradient_are_those_of_the_whole_table(world: int):
    def on(ranks: Ranks) -> tuple[Tensor, Tensor]:
        shard = _shard(ranks)
        mean = mean_square(shard)
        (mean * (ranks.rank + 1)).backward()
        return mean.detach(), shard.weight.grad

    results, whole = run_ranks(on, world), _table(world)
    assert all(mean.item() == pytest.approx(whole.square().mean().item(), rel=1e-12) for mean, _ in results)
    expected = 2 * whole / whole.numel() * sum(range(1, world + 1))
    torch.testing.assert_close(torch.cat([gradient for _, gradient in results]), expected)


def test_tensors_of_all_ranks_have_their_shapes_and_types():
    def some(rank: int) -> list[Tensor]:
        return [torch.arange(rank * 2).view(rank, 2), torch.ones(2, 3 - rank) > 0, torch.zeros(4, 0)]

    for parts in run_ranks(lambda ranks: [each(one, ranks) for one in some(ranks.rank)], 3):
        for place, everywhere in enumerate(parts):
            assert all(map(torch.equal, everywhere, [some(rank)[place] for rank in range(3)]))
            assert [one.dtype for one in everywhere] == [some(0)[place].dtype] * 3
