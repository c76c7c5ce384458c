"""The exact cross-entropy over a catalogue whose rows lie on several ranks: each rank scores its own rows.

For tables that no rank could hold whole. N positions of this rank, A of all ranks, S rows of this rank, C of all, D
width. Every rank sees all A queries and computes the partition over its S rows; the partitions are put together, by a
maximum and a sum over ranks, which makes Z exact. Backward needs one sum over ranks, of the queries' gradients; the
gradient of a row is whole on the rank that has it, and goes nowhere. The products are those of one process, divided.

Equations and tiles are those of `rec.nn.catalogue`; what talks to other ranks is handed in.
"""

import math
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rec.nn.catalogue import expect, log2_partition, tile


class Exchange(Protocol):
    """How ranks talk. Every rank calls the same in the same order."""

    @property
    def rank(self) -> int:
        """Of this process, from 0."""

    @property
    def world(self) -> int:
        """How many there are."""

    def sum(self, values: Tensor) -> Tensor:
        """Element-wise over ranks; may overwrite `values`."""

    def maximum(self, values: Tensor) -> Tensor:
        """Likewise the largest."""

    def rows(self, own: Tensor) -> tuple[Tensor, slice]:
        """(N, ...) of each rank, of any N -> (A, ...) in rank order, and where this rank's are."""


def sharded_cross_entropy(
    query_ND: Tensor,
    rows_SD: Tensor,
    target_N: Tensor,
    weight_N: Tensor,
    exchange: Exchange,
    *,
    first: int,
    skip: int = 0,
) -> Tensor:
    """-sum_n w_n log softmax(E q_n)[target_n] over the whole catalogue, for the positions of this rank.

    The losses of all ranks have to be differentiated together: the gradient of `rows_SD` is that of their sum.

    Args:
        query_ND: (N, D) of this rank; N may differ from rank to rank, and be 0.
        rows_SD: (S, D) this rank's rows of the table, `first` to `first + S`; each row is on one rank.
        target_N: (N) int64 rows of the whole table.
        weight_N: (N), which no gradient reaches.
        exchange: with the other ranks.
        first: row of the whole table that `rows_SD` begins with.
        skip: leading rows of the whole table that are no classes, such as padding: their gradient is 0.
    """
    here = min(max(skip - first, 0), len(rows_SD))
    loss: Tensor = _ShardedCrossEntropy.apply(query_ND, rows_SD, target_N, weight_N, exchange, first + here, here)
    return loss


class _ShardedCrossEntropy(torch.autograd.Function):
    """See the module's text."""

    @staticmethod
    def forward(
        ctx: Any,
        query_ND: Tensor,
        rows_SD: Tensor,
        target_N: Tensor,
        weight_N: Tensor,
        exchange: Exchange,
        first: int,
        skip: int,
    ) -> Tensor:
        classes_SD = rows_SD[skip:]
        query_AD, own = exchange.rows(query_ND)
        here_A, place_A = places(exchange.rows(target_N)[0] - first, len(classes_SD))
        part_A = log2_partition(query_AD, classes_SD, tile(rows_SD))
        top_A = exchange.maximum(part_A.clone())
        score_A = (query_AD * taken(classes_SD, place_A, here_A)).sum(1)
        rest_A, score_A = exchange.sum(torch.stack([(part_A - top_A).exp2(), score_A]))
        total_A = top_A + rest_A.log2()
        ctx.save_for_backward(query_AD, rows_SD, here_A, place_A, weight_N, total_A)
        ctx.exchange, ctx.own, ctx.skip = exchange, own, skip
        return (weight_N * (total_A[own] * math.log(2) - score_A[own])).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query_AD, rows_SD, here_A, place_A, weight_N, total_A = ctx.saved_tensors
        classes_SD = rows_SD[ctx.skip :]
        weight_A1 = ctx.exchange.rows(weight_N * gradient)[0][:, None]
        weighted_AD = weight_A1 * query_AD
        mean_AD, grad_SD = torch.zeros_like(query_AD), None
        if ctx.needs_input_grad[1]:
            grad_SD = torch.empty_like(rows_SD)
            grad_SD[: ctx.skip] = 0
        scored_SD = None if grad_SD is None else grad_SD[ctx.skip :]
        expect(query_AD, classes_SD, total_A, weighted_AD, tile(rows_SD), mean_AD, scored_SD)
        mean_AD -= taken(classes_SD, place_A, here_A)
        if scored_SD is not None and len(scored_SD):
            scored_SD.index_add_(0, place_A, weighted_AD * here_A[:, None], alpha=-1)
        query_grad_ND = ctx.exchange.sum(mean_AD.mul_(weight_A1))[ctx.own]
        return query_grad_ND, grad_SD, None, None, None, None, None


def places(place_A: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """(A) bool, which of them are among this rank's rows, and (A) their places; the others get one that is there."""
    return (place_A >= 0) & (place_A < rows), place_A.clamp(0, max(rows - 1, 0))


def taken(rows_SD: Tensor, place_A: Tensor, here_A: Tensor) -> Tensor:
    """(A, D) the rows that are here, and zeros for all others: without asking a device how many there are."""
    if not len(rows_SD):
        return rows_SD.new_zeros(len(place_A), rows_SD.shape[1])
    return rows_SD[place_A].masked_fill_(~here_A[:, None], 0)
