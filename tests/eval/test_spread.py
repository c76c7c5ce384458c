"""Scores of items whose rows lie on several ranks, against the same ones as a table on one."""

import pytest
import torch
from torch import Tensor

from rec.eval.ranking import NEVER, Pool, Reading, read
from rec.models import scores as forms
from rec.models.scores import Added, Product, Table
from rec.models.spread import product
from rec.nn.shards import Shard
from rec.ranks import Ranks
from tests.ranks import run_ranks

C, D = 31, 3
QUERIES = [4, 1, 6, 3]
"""Of each rank."""


def _case(rank: int, items: int) -> tuple[Tensor, Tensor, Added, Pool]:
    """Queries of a rank, all items, what is added and what is asked: whole numbers, so that many scores are equal."""
    generator = torch.Generator().manual_seed(rank)
    queries = QUERIES[rank]

    def whole(*shape: int, low: int = -2, high: int = 3) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    query_BD, items_CD = whole(queries, D).float(), torch.arange(items * D).view(items, D).remainder(4).float() - 1
    cells = torch.stack([whole(5, low=0, high=queries), whole(5, low=1, high=items)])
    added = Added.summed(cells[0], cells[1], whole(5).float(), queries)
    picks = torch.rand(queries, items - 1, generator=generator).argsort(1) + 1  # each item once
    targets_BM, seen_BS = picks[:, : 1 + rank], picks[:, rank : rank + 3 + rank]  # the last target is seen, too
    reachable_BM = ~(targets_BM[:, :, None] == seen_BS[:, None]).any(2)
    return query_BD, items_CD, added, Pool(targets_BM, reachable_BM, seen_BS)


def _spread(ranks: Ranks, items: int, bad: bool = False) -> tuple[forms.Scores, Pool]:
    query_BD, items_CD, added, pool = _case(ranks.rank, items)
    shard = Shard(items, D, ranks)
    if bad:
        items_CD[[0, 20]] = torch.nan  # padding may be anything
    with torch.no_grad():
        shard.weight.copy_(items_CD[shard.own])
    return product(query_BD, shard, lambda: added), pool


@pytest.mark.parametrize("items", [C, 6])
@pytest.mark.parametrize("width", [4, 2**20])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_they_are_read_as_the_table_they_stand_for(world: int, width: int, items: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forms, "CACHEFUL", width)
    k = 10  # more than the rows of a rank, and more than there are candidates

    @torch.no_grad()
    def on(ranks: Ranks) -> tuple[Reading, Reading, Tensor, Tensor]:
        scores, pool = _spread(ranks, items)
        sampled = pool._replace(negatives_BN=pool.seen_BS[:, :2])
        return read(scores, pool, k), read(scores, sampled), scores.dense(), scores.at(pool.targets_BM)

    for rank, found in enumerate(run_ranks(on, world)):
        query_BD, items_CD, added, pool = _case(rank, items)
        table = Product(query_BD, items_CD, lambda added=added: added).dense()
        expected = read(Table(table), pool, k), read(Table(table), pool._replace(negatives_BN=pool.seen_BS[:, :2]))
        assert (expected[0].ranks_BM == NEVER).any()
        for reading, wanted in zip(found[:2], expected, strict=True):
            assert all(map(torch.equal, reading, wanted))
        assert torch.equal(found[2], table)
        assert torch.equal(found[3], table.gather(1, pool.targets_BM))


def test_scores_that_are_not_finite_are_counted_wherever_they_are():
    def on(ranks: Ranks) -> list[int]:
        with torch.no_grad():
            return read(*_spread(ranks, C, bad=True)).wrong_B.tolist()

    assert run_ranks(on, 4) == [[1] * queries for queries in QUERIES]


def test_no_rank_reads_more_columns_than_it_has(monkeypatch: pytest.MonkeyPatch):
    def on(ranks: Ranks) -> set[tuple[int, int]]:
        asked, columns = set(), Product.columns
        monkeypatch.setattr(
            Product, "columns", lambda self, start, stop: asked.add(self.shape) or columns(self, start, stop)
        )
        with torch.no_grad():
            read(*_spread(ranks, C), 3)
        return asked

    assert run_ranks(on, 2) == [{(4, 16), (1, 16)}, {(4, 15), (1, 15)}]
