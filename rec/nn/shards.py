"""Tables whose rows lie on several ranks: each has an interval of them, with their gradients and moments, and no other.

For tables that no rank could hold whole. Whoever needs rows asks all ranks for them: everybody tells the rows that they
look up, everybody gives those that they have, and the sum over ranks has them all. Backward sends every gradient to
everybody, who adds those of the own rows: the gradient of a row is whole on the rank that has it, and goes nowhere.

S rows of this rank, C of all, D width; N rows that this rank looks up, A those that all ranks look up together.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rec.nn.sharded import Exchange, places, sharded_cross_entropy, taken
from rec.ranks import share

CHUNK = 2**14
"""Rows whose initial values are drawn at a time: a multiple of 16, as torch draws 16 numbers at a time."""


class Shard(nn.Module):
    """Stands for an `nn.Embedding` of which this rank has some rows. All ranks have to call it together."""

    def __init__(self, rows: int, width: int, exchange: Exchange, padding: int | None = None) -> None:
        """`padding` is a row that gets no gradient.

        As many random numbers are drawn as by an `nn.Embedding`: all that is drawn later is what one process draws.
        """
        super().__init__()
        self.num_embeddings, self.embedding_dim = rows, width  # of the whole table, as an `nn.Embedding` calls them
        self.exchange, self.padding = exchange, padding
        self.own = slice(*share(rows, exchange.rank, exchange.world))
        self.weight = nn.Parameter(torch.empty(self.own.stop - self.own.start, width))
        self.normal_(1.0)

    @property
    def shape(self) -> tuple[int, int]:
        """(C, D) of the whole table."""
        return self.num_embeddings, self.embedding_dim

    def normal_(self, std: float) -> None:
        """The values of `nn.init.normal_` for the whole table, some rows at a time; those of other ranks are lost."""
        with torch.no_grad():
            starts = range(
                0, max(1, self.num_embeddings - 15), CHUNK
            )  # no stretch has fewer than 16 rows, but for a tiny table
            for start in starts:
                stop = self.num_embeddings if start == starts[-1] else start + CHUNK
                drawn = self.weight.new_empty(stop - start, self.embedding_dim).normal_(0, std)
                first, last = max(start, self.own.start), min(stop, self.own.stop)
                if first < last:
                    mine = slice(first - self.own.start, last - self.own.start)
                    self.weight[mine] = drawn[first - start : last - start]

    def forward(self, row: Tensor) -> Tensor:
        """(...) rows of the whole table -> (..., D)."""
        found_ND: Tensor = _LookUp.apply(self.weight, row.flatten(), self.exchange, self.own.start, self.padding)
        return found_ND.view(*row.shape, self.embedding_dim)

    def cross_entropy(self, query_ND: Tensor, target_N: Tensor, *, skip: int) -> Tensor:
        """`rec.nn.catalogue.catalogue_cross_entropy` with all weights 1."""
        query_ND, weight_N = query_ND.to(self.weight.dtype), self.weight.new_ones(len(query_ND))
        return sharded_cross_entropy(
            query_ND, self.weight, target_N, weight_N, self.exchange, first=self.own.start, skip=skip
        )

    def mean_square(self) -> Tensor:
        """() of the whole table."""
        squares: Tensor = _Total.apply(self.weight.square().sum(), self.exchange)
        return squares / (self.num_embeddings * self.embedding_dim)

    def extra_repr(self) -> str:
        return f"{self.own.start}:{self.own.stop} of {self.num_embeddings}, {self.embedding_dim}"


class _LookUp(torch.autograd.Function):
    """See the module's text."""

    @staticmethod
    def forward(
        ctx: Any, rows_SD: Tensor, row_N: Tensor, exchange: Exchange, first: int, padding: int | None
    ) -> Tensor:
        row_A, own = exchange.rows(row_N)
        here_A, place_A = places(row_A - first, len(rows_SD))
        ctx.save_for_backward(place_A, here_A if padding is None else here_A & (row_A != padding))
        ctx.exchange, ctx.shape = exchange, rows_SD.shape
        return exchange.sum(taken(rows_SD, place_A, here_A))[own].clone()  # so that those of others can go

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        place_A, trained_A = ctx.saved_tensors
        grad_AD, _ = ctx.exchange.rows(grad_ND)
        grad_SD = grad_ND.new_zeros(ctx.shape)
        if len(grad_SD):
            grad_SD.index_add_(0, place_A, grad_AD * trained_A[:, None])
        return grad_SD, None, None, None, None


class _Total(torch.autograd.Function):
    """Sum over ranks of what each has a summand of: a function of all summands on every rank."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        return exchange.sum(own.clone())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.exchange.sum(gradient.clone()), None


def each(own: Tensor, exchange: Exchange) -> list[Tensor]:
    """The tensors of all ranks, in rank order, of any shapes with equally many dimensions."""
    shapes = exchange.rows(torch.tensor([own.shape], device=own.device))[0].tolist()
    values, _ = exchange.rows(own.reshape(-1))
    return [part.view(shape) for part, shape in zip(values.split(list(map(math.prod, shapes))), shapes, strict=True)]
