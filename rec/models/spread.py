"""Scores of items whose rows lie on several ranks: every rank reads the columns that it has, for the queries of all.

B queries of a rank, C item rows of all ranks. What is found in the columns of a rank is put together over ranks: counts
are summed, lists of the best are merged. No rank has more of the scores than a block of its own columns at a time.
"""

from collections.abc import Callable

from torch import Tensor

from rec.models.scores import Added, Product, Scores
from rec.nn.sharded import Exchange, places
from rec.nn.shards import Shard, each
from rec.nn.tables import Table


def product(query_BD: Tensor, items: Table, added: Callable[[], Added] | None = None) -> Scores:
    """fp32 queries times items, wherever their rows are, and what is added to a few cells."""
    if isinstance(items, Shard):
        return Spread(query_BD, items, None if added is None else added())
    return Product(query_BD, items.float(), added)


class Some(Scores):
    """The queries of one rank, which all ranks have here, times the rows of this one; all read them together."""

    def __init__(self, query_BD: Tensor, items: Shard, added: Added | None) -> None:
        self.shape, self.device = (len(query_BD), items.num_embeddings), query_BD.device
        self.items, self.exchange = items, items.exchange
        here = None if added is None else added.between(items.own.start, items.own.stop)
        self.local = Product(query_BD, items.weight, None if here is None else lambda: here)

    @property
    def own(self) -> range:
        return range(self.items.own.start, self.items.own.stop)

    def total(self, values: Tensor) -> Tensor:
        return self.exchange.sum(values)

    def best(self, items_BK: Tensor, scores_BK: Tensor) -> tuple[Tensor, Tensor]:
        both_BX = self._side_by_side(scores_BK)  # by rank, and so by row where they are equal
        order_BK = both_BX.argsort(dim=1, descending=True, stable=True)[:, : scores_BK.shape[1]]
        return self._side_by_side(items_BK).gather(1, order_BK), both_BX.gather(1, order_BK)

    def _side_by_side(self, values_BX: Tensor) -> Tensor:
        """What the ranks have found, one after the other in each row."""
        return self.exchange.rows(values_BX.t().contiguous())[0].t()

    def columns(self, start: int, stop: int) -> Tensor:
        return self.local.columns(start - self.own.start, stop - self.own.start)

    def at(self, rows_BX: Tensor) -> Tensor:
        here_BX, place_BX = places(rows_BX - self.own.start, len(self.own))
        if not self.own:
            return self.total(self.local.query_BD.new_zeros(rows_BX.shape))
        return self.total(self.local.at(place_BX).masked_fill_(~here_BX, 0))

    def dense(self) -> Tensor:
        return self._side_by_side(self.local.dense())


class Spread(Scores):
    """The queries of this rank times items of which each rank has some rows. All ranks have to read them together."""

    def __init__(self, query_BD: Tensor, items: Shard, added: Added | None) -> None:
        self.query_BD, self.items, self.added = query_BD, items, added
        self.shape, self.device = (len(query_BD), items.num_embeddings), query_BD.device

    @property
    def exchange(self) -> Exchange:
        return self.items.exchange

    def everywhere(self) -> list[Some]:
        """The queries of each rank, in rank order, to be read one after the other."""
        queries = each(self.query_BD, self.exchange)
        if self.added is None:
            return [Some(query_BD, self.items, None) for query_BD in queries]
        added = zip(*(each(part, self.exchange) for part in self.added), strict=True)
        return [Some(query_BD, self.items, Added(*parts)) for query_BD, parts in zip(queries, added, strict=True)]

    def columns(self, start: int, stop: int) -> Tensor:
        return self.dense()[:, start:stop].clone()

    def at(self, rows_BX: Tensor) -> Tensor:
        blocks, rows = self.everywhere(), each(rows_BX, self.exchange)
        return [block.at(asked_BX) for block, asked_BX in zip(blocks, rows, strict=True)][self.exchange.rank]

    def dense(self) -> Tensor:
        return [block.dense() for block in self.everywhere()][self.exchange.rank]
