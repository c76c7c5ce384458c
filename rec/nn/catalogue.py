"""Cross-entropy over a whole catalogue, exactly, in tiles of logits that stay in a processor's cache.

N positions, C items, D width; c and n, those of a tile. In base 2, in which powers are faster than in base e, and
with weights w_n:

    l_nc = log2(e) q_n . e_c          Z_n = log2 sum_c 2^l_nc          p_nc = 2^(l_nc - Z_n)
    loss = sum_n w_n (ln(2) Z_n - q_n . e_target(n))
    d loss / d q_n = w_n (sum_c p_nc e_c - e_target(n))
    d loss / d e_c = sum_n w_n p_nc q_n - sum_(n: target(n) = c) w_n q_n

Forward makes the logits once, for Z; backward makes them again, for p: four products of N x C x D altogether, one more
than with all N x C logits in memory. What is held besides the gradients is one tile. Decision 0012 has the figures.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from rec.nn import fused

TILES = {"cpu": (1024, 1024)}
"""Items x positions whose logits exist at one time: 4 MB, which the caches of two cores hold."""
LARGE_TILE = (8192, 2048)
"""On other devices, where starting an operation takes as long as a billion multiplications: 64 MB."""


def catalogue_cross_entropy(
    query_ND: Tensor, table_CD: Tensor, target_N: Tensor, weight_N: Tensor | None = None, *, skip: int = 0
) -> Tensor:
    """-sum_n w_n log softmax(E q_n)[target_n] over the whole catalogue, exactly, without N x C logits in memory.

    Queries in half precision go to `rec.nn.fused` where it takes them; all else is done here, in the table's type.

    Args:
        query_ND: (N, D).
        table_CD: (C, D).
        target_N: (N) int64 rows of the table.
        weight_N: (N), which no gradient reaches; None weighs every position 1.
        skip: leading rows of the table that are no classes, such as padding: their gradient is 0.
    """
    if weight_N is None:
        weight_N = table_CD.new_ones(len(query_ND))
    if fused.takes(query_ND):
        return fused.fused_cross_entropy(query_ND, table_CD[skip:], target_N - skip, weight_N)
    loss: Tensor = _CatalogueCrossEntropy.apply(query_ND.to(table_CD.dtype), table_CD, target_N, weight_N, skip)
    return loss


class _CatalogueCrossEntropy(torch.autograd.Function):
    """See the module's text."""

    @staticmethod
    def forward(ctx: Any, query_ND: Tensor, table_CD: Tensor, target_N: Tensor, weight_N: Tensor, skip: int) -> Tensor:
        total_N = log2_partition(query_ND, table_CD[skip:], tile(table_CD))
        ctx.save_for_backward(query_ND, table_CD, target_N, weight_N, total_N)
        ctx.skip = skip
        own_N = (query_ND * F.embedding(target_N, table_CD)).sum(1)
        return (weight_N * (total_N * math.log(2) - own_N)).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query_ND, table_CD, target_N, weight_N, total_N = ctx.saved_tensors
        weight_N1 = (weight_N * gradient)[:, None]
        weighted_ND = weight_N1 * query_ND
        mean_ND = torch.zeros_like(query_ND) if ctx.needs_input_grad[0] else None
        grad_CD = torch.empty_like(table_CD) if ctx.needs_input_grad[1] else None
        scored_CD = None if grad_CD is None else grad_CD[ctx.skip :]
        expect(query_ND, table_CD[ctx.skip :], total_N, weighted_ND, tile(table_CD), mean_ND, scored_CD)
        if mean_ND is not None:
            mean_ND.sub_(F.embedding(target_N, table_CD)).mul_(weight_N1)
        if grad_CD is not None:
            grad_CD[: ctx.skip] = 0
            grad_CD.index_add_(0, target_N, weighted_ND, alpha=-1)
        return mean_ND, grad_CD, None, None, None


def tile(like: Tensor) -> Tensor:
    """Memory for the logits of one tile, however many positions there are: what it takes does not grow with them."""
    height, width = TILES.get(like.device.type, LARGE_TILE)
    return like.new_empty(height * width)


# Operations of their own, so that a plan can rehearse them on tensors without data, however many tiles there are.


@torch.library.custom_op("kindling::log2_partition", mutates_args=("logits",))
def log2_partition(query_ND: Tensor, table_CD: Tensor, logits: Tensor) -> Tensor:
    """Z, (N): one pass with a running maximum, so that scores of any size neither overflow nor vanish."""
    scaled_ND = query_ND * math.log2(math.e)
    top_N = query_ND.new_full((len(query_ND),), -torch.inf)
    rest_N = torch.zeros_like(top_N)
    for items, places, logits_cn in tiles(table_CD, scaled_ND, logits):
        torch.mm(table_CD[items], scaled_ND[places].t(), out=logits_cn)
        before_n, rest_n = top_N[places], rest_N[places]
        top_n = torch.maximum(before_n, logits_cn.amax(0))
        powers_cn = logits_cn.sub_(top_n).exp2_()
        rest_n.mul_((before_n - top_n).exp2_()).add_(powers_cn.sum(0))
        before_n.copy_(top_n)
    return top_N + rest_N.log2()


@log2_partition.register_fake
def _(query_ND: Tensor, table_CD: Tensor, logits: Tensor) -> Tensor:
    return query_ND.new_empty(len(query_ND))


@torch.library.custom_op("kindling::expect", mutates_args=("logits", "mean_ND", "grad_CD"))
def expect(
    query_ND: Tensor,
    table_CD: Tensor,
    total_N: Tensor,
    weighted_ND: Tensor,
    logits: Tensor,
    mean_ND: Tensor | None,
    grad_CD: Tensor | None,
) -> None:
    """Adds sum_c p_nc e_c to `mean_ND`, and overwrites `grad_CD` with sum_n p_nc (w q)_n; None leaves one out."""
    scaled_ND = query_ND * math.log2(math.e)
    if grad_CD is not None and not len(query_ND):
        grad_CD.zero_()
    for items, places, logits_cn in tiles(table_CD, scaled_ND, logits):
        # the product begins with -Z: no pass of its own subtracts it
        torch.addmm(-total_N[places], table_CD[items], scaled_ND[places].t(), out=logits_cn)
        share_cn = logits_cn.exp2_()
        if mean_ND is not None:
            mean_ND[places].addmm_(share_cn.t(), table_CD[items])
        if grad_CD is not None:
            # what is there before the first positions is no number yet, and times 0 it is not read
            grad_CD[items].addmm_(share_cn, weighted_ND[places], beta=0 if places.start == 0 else 1)


@expect.register_fake
def _(*_: Any) -> None:
    return None


def tiles(table_CD: Tensor, query_ND: Tensor, logits: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """All positions for some items, then for the next ones: rows of both, and `logits` in their shape, (c, n)."""
    height, width = TILES.get(query_ND.device.type, LARGE_TILE)
    for first in range(0, len(table_CD), height):
        items = slice(first, min(first + height, len(table_CD)))
        for place in range(0, len(query_ND), width):
            places = slice(place, min(place + width, len(query_ND)))
            rows, columns = items.stop - first, places.stop - place
            yield items, places, logits[: rows * columns].view(rows, columns)
