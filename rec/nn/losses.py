"""Loss terms. Each returns a sum over positions, so that a batch may be cut anywhere without changing the result.

N positions, K negatives each, C items. The exact cross-entropy over all items has `rec.nn.catalogue` for itself.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


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
