"""The exact cross-entropy over a catalogue, against the dense one in double precision, and sums done by hand."""

import math

import pytest
import torch
from torch import Tensor

from rec.nn import catalogue
from rec.nn.catalogue import catalogue_cross_entropy

N, C, D = 7, 23, 5
TARGET = torch.tensor([0, 22, 3, 3, 8, 7, 22])


def _random(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator) * 3


def _inputs() -> tuple[Tensor, Tensor]:
    return _random(N, D).requires_grad_(), _random(C, D).requires_grad_()


def _dense(query: Tensor, table: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return -(weight * torch.log_softmax(query @ table.t(), 1)[torch.arange(len(query)), target]).sum()


@pytest.mark.parametrize("tile", [(1, 1), (1, 4), (4, 3), (8, 7), (22, 6), (23, 7), (24, 8), (1024, 1024)])
def test_loss_and_gradients_are_those_of_the_dense_softmax(tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(catalogue.TILES, "cpu", tile)
    (query, table), weight = _inputs(), _random(N)
    dense = _dense(query, table, TARGET, weight)
    expected = torch.autograd.grad(dense * 1.7, (query, table))
    ours = catalogue_cross_entropy(query, table, TARGET, weight)
    torch.testing.assert_close(ours, dense)
    for gradient, reference in zip(torch.autograd.grad(ours * 1.7, (query, table)), expected, strict=True):
        torch.testing.assert_close(gradient, reference)


def test_skipped_rows_are_no_classes_and_get_no_gradient():
    query, table = _inputs()
    padded = torch.cat([_random(2, D) * 9, table])
    expected = torch.autograd.grad(_dense(query, table, TARGET, torch.ones(N)), table)[0]
    loss = catalogue_cross_entropy(query, padded, TARGET + 2, skip=2)
    gradient = torch.autograd.grad(loss, padded)[0]
    assert loss.item() == pytest.approx(_dense(query, table, TARGET, torch.ones(N)).item())
    assert not gradient[:2].any()
    torch.testing.assert_close(gradient[2:], expected)


def test_it_passes_the_numerical_check_of_gradients(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(catalogue.TILES, "cpu", (6, 4))
    assert torch.autograd.gradcheck(lambda q, e: catalogue_cross_entropy(q, e, TARGET), _inputs())


@pytest.mark.parametrize("frozen", [0, 1])
def test_what_is_frozen_changes_nothing_for_the_other(frozen: int):
    inputs = _inputs()
    expected = torch.autograd.grad(catalogue_cross_entropy(*inputs, TARGET), inputs)[1 - frozen]
    inputs[frozen].requires_grad_(False)
    found = torch.autograd.grad(catalogue_cross_entropy(*inputs, TARGET), inputs[1 - frozen])[0]
    assert torch.equal(found, expected)


def test_scores_of_any_size_neither_overflow_nor_vanish(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(catalogue.TILES, "cpu", (3, 1))
    table = torch.eye(8) * 1e4
    query = torch.zeros(2, 8)
    query[0, 2], query[1, 5] = 1.0, -1.0
    loss = catalogue_cross_entropy(query, table, torch.tensor([2, 0]))
    assert loss.item() == pytest.approx(math.log(7))  # sure of 2, and indifferent among all but 5
    wrong = catalogue_cross_entropy(query[:1], table, torch.tensor([3]))
    assert wrong.item() == pytest.approx(1e4)


def test_no_position_has_no_loss_and_no_gradient():
    query, table = torch.zeros(0, D, requires_grad=True), torch.randn(C, D, requires_grad=True)
    loss = catalogue_cross_entropy(query, table, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert not table.grad.any()


def test_in_fp32_the_gradients_are_exact_to_1e_5():
    """At 3,000 items, more than one tile of items and of positions, with scores as far apart as trained ones."""
    generator = torch.Generator().manual_seed(1)
    query, table = torch.randn(1100, 32, generator=generator), torch.randn(3000, 32, generator=generator)
    target = torch.randint(3000, (1100,), generator=generator)
    exact = [tensor.double().requires_grad_() for tensor in (query, table)]
    expected = torch.autograd.grad(_dense(*exact, target, torch.ones(1100)), exact)
    inputs = [tensor.requires_grad_() for tensor in (query, table)]
    found = torch.autograd.grad(catalogue_cross_entropy(*inputs, target), inputs)
    for gradient, reference in zip(found, expected, strict=True):
        assert (gradient - reference).norm() < 1e-5 * reference.norm()


def test_tiles_cover_every_pair_once_in_memory_that_does_not_grow(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(catalogue.TILES, "cpu", (8, 4))
    pairs, table = torch.zeros(C, N), torch.zeros(C, D)
    memory = catalogue.tile(table)
    for items, places, logits in catalogue.tiles(table, torch.zeros(N, D), memory):
        pairs[items, places] += 1
        assert logits.shape == pairs[items, places].shape
        assert logits.data_ptr() == memory.data_ptr()
    assert (pairs == 1).all()
    assert memory.numel() == 8 * 4
