"""Which queries go to the fused kernel, and how: with a pretended package, since the real one needs a GPU."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rec.nn import fused
from rec.nn.catalogue import catalogue_cross_entropy

TARGET = torch.tensor([1, 4, 4])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the package was asked for; it computes the dense loss, on any device."""
    asked: list[dict[str, Any]] = []

    def linear_cross_entropy(query: Tensor, table: Tensor, target: Tensor, **options: Any) -> Tensor:
        asked.append({"rows": len(table), **options})
        return F.cross_entropy(query.float() @ table.float().t(), target, reduction="none")

    package = ModuleType("cut_cross_entropy")
    vars(package)["linear_cross_entropy"] = linear_cross_entropy
    monkeypatch.setitem(sys.modules, "cut_cross_entropy", package)
    monkeypatch.setattr(fused, "installed", lambda: True)
    monkeypatch.setattr(fused, "DEVICES", ("cpu",))
    return asked


def _inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 6).to(dtype).requires_grad_(), torch.randn(9, 6).requires_grad_()


@pytest.mark.parametrize("dtype", fused.HALVES)
@pytest.mark.parametrize("skip", [0, 1])
def test_queries_in_half_precision_go_there_unfiltered_and_nothing_else_differs(
    calls: list[dict[str, Any]], dtype: torch.dtype, skip: int, monkeypatch: pytest.MonkeyPatch
):
    inputs, weight = _inputs(dtype), torch.tensor([1.0, 0.5, 2.0])
    loss = catalogue_cross_entropy(*inputs, TARGET, weight, skip=skip)
    found = torch.autograd.grad(loss, inputs)
    assert calls == [{"rows": 9 - skip, "reduction": "none", "filter_eps": None}]
    monkeypatch.setattr(fused, "installed", lambda: False)
    reference = catalogue_cross_entropy(*inputs, TARGET, weight, skip=skip)
    torch.testing.assert_close(loss, reference)
    for one, other in zip(found, torch.autograd.grad(reference, inputs), strict=True):
        torch.testing.assert_close(one, other)
    assert len(calls) == 1


def test_fp32_queries_none_at_all_and_other_devices_stay_here(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    query, table = _inputs(torch.float32)
    catalogue_cross_entropy(query, table, TARGET)
    catalogue_cross_entropy(query[:0].bfloat16(), table, TARGET[:0])
    monkeypatch.setattr(fused, "DEVICES", ("cuda",))
    catalogue_cross_entropy(query.bfloat16(), table, TARGET)
    assert calls == []
