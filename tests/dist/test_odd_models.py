"""Models that are awkward to share out: tensors smaller than the ranks are many, frozen parts, groups, no clipping."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from launch.command import DONE, STOPPED
from rec.config.tree import Backbone, Group, Optim, Run, SoftToken
from rec.data.dataset import Dataset
from tests.dist.runs import STEPS, a_random_run, assert_close, curve_of, execute_on
from tests.small import EVERYTHING, SHAPES, saved_tensors

pytest.importorskip("deepspeed.runtime.zero.muon.muon_optimizer", reason="install kindling[deepspeed]")

TINY = {**SHAPES["qwen3"], "hidden_size": 4, "num_attention_heads": 2, "head_dim": 2, "intermediate_size": 6}
"""Norms of 2 elements, and matrices of 2 rows."""


def an_odd_run(dataset: Dataset, out: Path) -> Run:
    """Half of the backbone is frozen and all of it recomputed; three groups with rates of their own; no clipping."""
    model = SoftToken(
        backbone=Backbone(architecture="qwen3", config=TINY, gradient_checkpointing=True),
        dim=2,
        dropout=0.2,
        user_dropout=0.3,
        predict_first=True,
        freeze=("backbone.layers.0.*",),
        loss=EVERYTHING,
    )
    groups = {"tables.*": Group(lr=1e-2, weight_decay=0.1), "heads.*": Group(lr=1e-4)}
    optim = Optim(lr=3e-3, warmup=2, weight_decay=0.01, clip=0, groups=groups)
    return dataclasses.replace(a_random_run(dataset, out, "qwen3"), model=model, optim=optim)


@pytest.fixture(scope="module")
def alone(mixed: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = an_odd_run(mixed, tmp_path_factory.mktemp("alone"))
    assert execute_on(run, 1) == DONE
    return run


@pytest.mark.parametrize(("strategy", "world"), [("ddp", 3), ("ddp", 4), ("zero2", 3), ("zero3", 3), ("fsdp2", 4)])
def test_it_trains_like_one_process_and_goes_on_bit_for_bit(
    mixed: Dataset, tmp_path: Path, alone: Run, strategy: str, world: int, stop_after: Callable[[int], None]
):
    """Three ranks or more, since sums of two are the same in any order."""
    whole, broken = (an_odd_run(mixed, tmp_path / folder) for folder in ("whole", "broken"))
    assert execute_on(whole, world, strategy) == DONE
    assert_close(curve_of(whole), curve_of(alone), strategy)
    saved, expected = saved_tensors(whole, STEPS), saved_tensors(alone, STEPS)
    assert saved.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(saved[key], value, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    frozen = [key for key in saved if key.startswith("backbone.layers.0.")]
    assert frozen
    assert all("/" not in key and torch.equal(saved[key], expected[key]) for key in frozen)

    for looks, code in ((3, STOPPED), (100, DONE)):
        stop_after(looks)
        assert execute_on(broken, world, strategy) == code
    assert curve_of(broken) == curve_of(whole)
    again = saved_tensors(broken, STEPS)
    assert all(torch.equal(again[key], saved[key]) for key in saved)
