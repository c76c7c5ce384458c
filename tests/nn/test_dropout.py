"""Dropout that belongs to the sample."""

import math

import numpy as np
import pytest
import torch

from rec.data.keys import keys
from rec.nn.dropout import KeyedDropout, Keys, keep

COUNT = 20_000


def _keys(count: int, step: int = 0) -> torch.Tensor:
    return torch.from_numpy(keys(0, step, np.arange(count)).view(np.int64).copy())


@pytest.mark.parametrize("p", [0.0, 0.05, 0.1, 0.5, 0.9, 0.999])
def test_the_share_that_is_kept_is_the_one_asked_for(p: float):
    kept = keep(_keys(50), 3, COUNT, p).double().mean().item()
    assert abs(kept - (1 - p)) < 5 * math.sqrt(p * (1 - p) / (50 * COUNT)) + 1e-12


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_rows_salts_steps_and_places_are_independent(p: float):
    """The correlation of two masks is 0, within five standard errors of 1 / sqrt(count)."""

    def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack([one.double(), other.double()]))[0, 1])

    base = keep(_keys(8), 1, COUNT, p)
    limit = 5 / math.sqrt(COUNT)
    assert all(abs(correlation(base[row], base[0])) < limit for row in range(1, 8))
    for salt in (-1, 0, 2, 3, 4, 25):
        assert abs(correlation(keep(_keys(1), salt, COUNT, p)[0], base[0])) < limit, salt
    assert abs(correlation(keep(_keys(1, step=1), 1, COUNT, p)[0], base[0])) < limit
    for lag in (1, 2, 16, 32, 64, 768):
        assert abs(correlation(base[0, :-lag], base[0, lag:])) < 5 / math.sqrt(COUNT - lag), lag


def test_one_place_is_fair_over_many_rows_and_salts():
    first = keep(_keys(5000), 2, 3, 0.3).double().mean(0)
    assert ((first - 0.7).abs() < 5 * math.sqrt(0.21 / 5000)).all()
    over_salts = torch.stack([keep(_keys(1), salt, 50, 0.3)[0] for salt in range(400)]).double().mean()
    assert abs(over_salts.item() - 0.7) < 5 * math.sqrt(0.21 / 20_000)


def _module(p: float, salt: int = 1) -> KeyedDropout:
    module = KeyedDropout(p, salt, Keys())
    module.keys.key_B = _keys(4)
    return module


def test_a_row_is_dropped_alike_at_any_length_in_any_company():
    x = torch.randn(4, 9, 8)
    whole = _module(0.4)(x)
    short = _module(0.4)(x[:, :5])
    assert torch.equal(short, whole[:, :5])
    alone = _module(0.4)
    alone.keys.key_B = _keys(4)[2:3]
    assert torch.equal(alone(x[2:3]), whole[2:3])


def test_what_is_kept_is_scaled_so_that_the_mean_stays():
    dropped = _module(0.25)(torch.ones(4, 100, 100))
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)


def test_drawing_again_draws_the_same():
    module, x = _module(0.5), torch.randn(4, 6, 8)
    assert torch.equal(module(x), module(x))


def test_in_evaluation_and_at_probability_0_it_is_the_identity_and_needs_no_keys():
    x = torch.randn(4, 6, 8)
    for module in (KeyedDropout(0.5, 1, Keys()).eval(), KeyedDropout(0.0, 1, Keys())):
        assert module(x) is x


def test_the_hash_is_murmurs_finaliser():
    """Golden: the reference arithmetic on unsigned integers, for one row."""
    key, salt, p = 0x123456789ABCDEF0, 5, 0.3

    def reference(place: int) -> bool:
        row = (key ^ (key >> 32) ^ (salt * 0x9E3779B97F4A7C15 & 0x7FFFFFFFFFFFFFFF)) & 0x7FFFFFFF
        x = (place * 0x9E3779B9) % 2**32 ^ row
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            x = (x ^ (x >> shift)) * factor % 2**32
        x ^= x >> 16
        signed = x - 2**32 if x >= 2**31 else x
        return signed >= int(p * 2**32) - 2**31

    ours = keep(torch.tensor([key]), salt, 500, p)[0].tolist()
    assert ours == [reference(place) for place in range(500)]
