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

    def sum(self, values: Tensor) -> Tensor:
        """Element-wise over ranks; may overwrite `values`."""

    def maximum(self, values: Tensor) -> Tensor:
        """Likewise the largest."""

    def rows(self, own: Tensor) -> tuple[Tensor, slice]:
        """(N, ...) of each rank, of any N -> (A, ...) in rank order, and where this rank's are."""


def sharded_cross_entropy(
    query_ND: Tensor, rows_SD: Tensor, target_N: Tensor, weight_N: Tensor, exchange: Exchange, *, first: int
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
    """
    loss: Tensor = _ShardedCrossEntropy.apply(query_ND, rows_SD, target_N, weight_N, exchange, first)
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
    ) -> Tensor:
        query_AD, own = exchange.rows(query_ND)
        place_A = exchange.rows(target_N)[0] - first
        part_A = log2_partition(query_AD, rows_SD, tile(rows_SD))
        top_A = exchange.maximum(part_A.clone())
        score_A, here_M = torch.zeros_like(part_A), _here(place_A, len(rows_SD))
        score_A[here_M] = (query_AD[here_M] * rows_SD[place_A[here_M]]).sum(1)
        rest_A, score_A = exchange.sum(torch.stack([(part_A - top_A).exp2(), score_A]))
        total_A = top_A + rest_A.log2()
        ctx.save_for_backward(query_AD, rows_SD, place_A, weight_N, total_A)
        ctx.exchange, ctx.own = exchange, own
        return (weight_N * (total_A[own] * math.log(2) - score_A[own])).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query_AD, rows_SD, place_A, weight_N, total_A = ctx.saved_tensors
        weight_A1 = ctx.exchange.rows(weight_N * gradient)[0][:, None]
        weighted_AD, here_M = weight_A1 * query_AD, _here(place_A, len(rows_SD))
        mean_AD, grad_SD = torch.zeros_like(query_AD), torch.empty_like(rows_SD)
        expect(query_AD, rows_SD, total_A, weighted_AD, tile(rows_SD), mean_AD, grad_SD)
        mean_AD[here_M] -= rows_SD[place_A[here_M]]
        grad_SD.index_add_(0, place_A[here_M], weighted_AD[here_M], alpha=-1)
        query_grad_ND = ctx.exchange.sum(mean_AD.mul_(weight_A1))[ctx.own]
        return query_grad_ND, grad_SD, None, None, None, None


def _here(place_A: Tensor, rows: int) -> Tensor:
    """(M) the positions whose targets are among this rank's rows."""
    return torch.nonzero((place_A >= 0) & (place_A < rows))[:, 0]
