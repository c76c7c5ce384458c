"""Loss terms over sampled items, against dense references in double precision, and against sums done by hand."""

import math

import pytest
import torch
from torch import Tensor

from rec.nn import losses

N, C, K = 7, 23, 4


def _random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator) * 3


def test_sampled_softmax_by_hand():
    """Scores ln 3 for the target, ln 2 and ln 5 for negatives drawn with probability 1/4 and 1/2, K = 2.

    The partition is 3 + 2 / (2 / 4) + 5 / (2 / 2) = 12, of which the target has 3.
    """
    loss = losses.sampled_softmax(
        torch.tensor([math.log(3)]), torch.tensor([[2.0, 5.0]]).log(), torch.tensor([[0.25, 0.5]]).log()
    )
    assert loss.item() == pytest.approx(math.log(4))


def test_sampled_softmax_over_every_other_item_once_is_the_full_softmax():
    scores = _random(N, C)
    others = scores[:, 1:]
    log_q = torch.full_like(others, -math.log(C - 1))
    expected = -torch.log_softmax(scores, 1)[:, 0].sum()
    torch.testing.assert_close(losses.sampled_softmax(scores[:, 0], others, log_q), expected)


def test_gbce_by_hand():
    """101 items, K = 25, so alpha = 1/4; t = 0.6 gives beta = 1/4 * (0.6 * (1 - 4) + 4) = 0.55.

    Target at sigma = 0.8, negatives at sigma = 0.5: -(0.55 ln 0.8 + 25 ln 0.5) / 26.
    """
    positive, negative = torch.tensor([math.log(4)]), torch.zeros(1, 25)
    loss = losses.gbce(positive, negative, 101, 0.6)
    assert loss.item() == pytest.approx(-(0.55 * math.log(0.8) + 25 * math.log(0.5)) / 26)


@pytest.mark.parametrize(("calibration", "beta"), [(0.0, 1.0), (1.0, 4 / 22)])
def test_gbce_without_calibration_is_plain_and_fully_calibrated_weighs_by_the_sampling_rate(
    calibration: float, beta: float
):
    positive, negative = _random(N), _random(N, K)
    expected = -(beta * positive.sigmoid().log().sum() + (1 - negative.sigmoid()).log().sum()) / (K + 1)
    torch.testing.assert_close(losses.gbce(positive, negative, C, calibration), expected)


def test_bpr_by_hand():
    """Differences ln 3 and 0 for the first position, -ln 3 and ln 9 for the second: sigma 3/4, 1/2, 1/4, 9/10."""
    positive = torch.tensor([math.log(3), 0.0])
    negative = torch.tensor([[0.0, math.log(3)], [math.log(3), -math.log(9)]])
    expected = -sum(map(math.log, (3 / 4, 1 / 2, 1 / 4, 9 / 10)))
    assert losses.bpr(positive, negative).item() == pytest.approx(expected)


TERMS = {
    "sampled_softmax": lambda positive, negative: losses.sampled_softmax(positive, negative, _random(N, K) / 9 - 3),
    "gbce": lambda positive, negative: losses.gbce(positive, negative, C, 0.75),
    "bpr": losses.bpr,
}


@pytest.mark.parametrize("term", TERMS)
def test_sampled_terms_pass_the_numerical_check_of_gradients(term: str):
    assert torch.autograd.gradcheck(TERMS[term], (_random(N).requires_grad_(), _random(N, K).requires_grad_()))


@pytest.mark.parametrize("term", ["gbce", "bpr"])
def test_sampled_terms_stay_finite_where_a_plain_logarithm_would_not(term: str):
    positive = torch.tensor([-1e4], requires_grad=True)
    loss = TERMS[term](positive, torch.full((1, K), 1e4))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(positive.grad).all()
