"""Loss terms. Each returns a sum over positions, so that a batch may be cut anywhere without changing the result.

N positions, K negatives each, C items, D width.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 8192
"""Items whose logits exist at one time: the memory of the exact loss is N x BLOCK, whatever the catalogue."""


class _CatalogueCrossEntropy(torch.autograd.Function):
    """Two passes over blocks of items: a running log-sum-exp forward, logits again (and their softmax) backward."""

    @staticmethod
    def forward(ctx: Any, query_ND: Tensor, table_CD: Tensor, target_N: Tensor, weight_N: Tensor) -> Tensor:
        top_N = query_ND.new_full((len(query_ND),), -torch.inf)
        rest_N = torch.zeros_like(top_N)
        for block in table_CD.split(BLOCK):
            logits = query_ND @ block.t()
            higher_N = torch.maximum(top_N, logits.amax(1))
            rest_N = rest_N * (top_N - higher_N).exp() + logits.sub_(higher_N[:, None]).exp_().sum(1)
            top_N = higher_N
        total_N = top_N + rest_N.log()
        ctx.save_for_backward(query_ND, table_CD, target_N, weight_N, total_N)
        return (weight_N * (total_N - (query_ND * table_CD[target_N]).sum(1))).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        query_ND, table_CD, target_N, weight_N, total_N = ctx.saved_tensors
        weighted_ND = weight_N[:, None] * query_ND
        query_grad = -table_CD[target_N]
        table_grad = torch.empty_like(table_CD)
        for block, block_grad in zip(table_CD.split(BLOCK), table_grad.split(BLOCK), strict=True):
            probability = (query_ND @ block.t()).sub_(total_N[:, None]).exp_()
            query_grad.addmm_(probability, block)
            torch.mm(probability.t(), weighted_ND, out=block_grad)
        table_grad.index_add_(0, target_N, weighted_ND, alpha=-1)
        return query_grad * (weight_N[:, None] * gradient), table_grad.mul_(gradient), None, None


def catalogue_cross_entropy(
    query_ND: Tensor, table_CD: Tensor, target_N: Tensor, weight_N: Tensor | None = None
) -> Tensor:
    """-sum_n w_n log softmax(E q_n)[target_n] over the whole catalogue, exactly, without N x C logits in memory.

    All weights are 1 where none are given; no gradient reaches them.
    """
    if weight_N is None:
        weight_N = query_ND.new_ones(len(query_ND))
    loss: Tensor = _CatalogueCrossEntropy.apply(query_ND, table_CD, target_N, weight_N)
    return loss


def sampled_softmax(positive_N: Tensor, negative_NK: Tensor, log_q_NK: Tensor) -> Tensor:
    """Cross-entropy of the target against sampled items that stand for the rest of the catalogue.

    With K samples from Q, sum_k exp(s_k) / (K Q_k) estimates the partition's sum over all items but the user's own, so
    the negatives enter as s_k - log(K Q_k); the target is not sampled and enters as it is. See the discussion of logQ
    correction in Yi et al. 2019 (RecSys, "Sampling-bias-corrected neural modeling"). At equal scores the loss is about
    ln C, as for the exact one.
    """
    corrected = negative_NK - log_q_NK - math.log(negative_NK.shape[1])
    logits = torch.cat([positive_N[:, None], corrected], 1)
    return (logits.logsumexp(1) - positive_N).sum()


def gbce(positive_N: Tensor, negative_NK: Tensor, items: int, calibration: float) -> Tensor:
    """Generalised binary cross-entropy (gSASRec, Petrov and Macdonald 2023, equations 8 and 12).

    beta = alpha (t (1 - 1/alpha) + 1/alpha) with the sampling rate alpha = K / (C - 1); the positive's log-likelihood
    is weighted by beta, which undoes the overconfidence that negative sampling brings. t = 0 is plain BCE.
    """
    count = negative_NK.shape[1]
    rate = count / (items - 1)
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    likelihood = beta * F.logsigmoid(positive_N).sum() + F.logsigmoid(-negative_NK).sum()
    return -likelihood / (count + 1)


def bpr(positive_N: Tensor, negative_NK: Tensor) -> Tensor:
    """-sum_n sum_k log sigma(s_n - s_nk) (Rendle et al. 2009), summed over the negatives, not averaged."""
    return -F.logsigmoid(positive_N[:, None] - negative_NK).sum()
