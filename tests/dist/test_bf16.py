"""bf16 under every strategy, and DeepSpeed's own bf16.

Products are rounded to 8 bits, and a sum over ranks, or over micro-batches, rounds in another order: measured, losses
and gradient norms differ from those of one process by up to 5e-4 of their value. Metrics of a ranking may differ by a
place, so they are not compared. DeepSpeed's own bf16 keeps parameters in bf16, too: up to 1.2e-3.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.command import DONE, STOPPED
from rec.config.tree import Run
from rec.data.dataset import Dataset
from tests.dist.runs import STEPS, Curve, a_random_run, assert_close, curve_of, execute_on
from tests.small import saved_tensors

pytest.importorskip("deepspeed.runtime.zero.muon.muon_optimizer", reason="install kindling[deepspeed]")

WITHIN, OWN_WITHIN = 2e-3, 5e-3
"""Relative difference of a loss, and of the norm, from one process that computes in bf16."""


def losses_of(run: Run) -> Curve:
    """What was measured in training."""
    lines = curve_of(run)
    return [{key: value for key, value in line.items() if not key.startswith("valid/")} for line in lines]


def assert_same(run: Run, other: Run) -> None:
    tensors, reference = saved_tensors(run, STEPS), saved_tensors(other, STEPS)
    assert tensors.keys() == reference.keys()
    assert all(torch.equal(tensors[key], reference[key]) for key in reference)
    assert curve_of(run) == curve_of(other)


@pytest.fixture(scope="module")
def alone(mixed: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One process in bf16."""
    run = a_random_run(mixed, tmp_path_factory.mktemp("alone"), "qwen3", precision="bf16")
    assert execute_on(run, 1) == DONE
    return run


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3", "fsdp2"])
def test_two_ranks_train_like_one_and_go_on_bit_for_bit(
    mixed: Dataset, tmp_path: Path, alone: Run, strategy: str, stop_after: Callable[[int], None]
):
    whole = a_random_run(mixed, tmp_path / "whole", "qwen3", 3, precision="bf16")
    assert execute_on(whole, 2, strategy) == DONE
    assert_close(losses_of(whole), losses_of(alone), strategy, rel=WITHIN)
    assert all(value.dtype == torch.float32 for value in saved_tensors(whole, STEPS).values())
    if strategy in ("zero2", "fsdp2"):
        broken = a_random_run(mixed, tmp_path / "broken", "qwen3", 3, precision="bf16")
        for looks, code in ((3, STOPPED), (100, DONE)):
            stop_after(looks)
            assert execute_on(broken, 2, strategy) == code
        assert_same(broken, whole)


@pytest.mark.parametrize(
    "settings",
    [
        {"zero_optimization": {"stage": 2}, "data_types": {"grad_accum_dtype": "fp32"}},
        {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 100}},
    ],
    ids=["zero2", "zero3"],
)
def test_deepspeeds_own_bf16_trains_goes_on_bit_for_bit_and_hands_over_fp32(
    mixed: Dataset, tmp_path: Path, alone: Run, settings: dict[str, Any], stop_after: Callable[[int], None]
):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({**settings, "bf16": {"enabled": True}}))
    runs = [a_random_run(mixed, tmp_path / name, "qwen3", 3, precision="bf16") for name in ("whole", "broken", "moving")]
    whole, broken, moving = runs
    assert execute_on(whole, 2, str(file)) == DONE
    assert_close(losses_of(whole), losses_of(alone), file, rel=OWN_WITHIN)
    saved = saved_tensors(whole, STEPS)
    frozen = {key for key, value in saved.items() if value.dtype != torch.float32}
    assert frozen == {"backbone.embed_tokens.weight"}  # masters and moments are fp32; what has no master is as it is
    stop_after(3)
    assert execute_on(broken, 2, str(file)) == STOPPED
    shutil.copytree(broken.folder, moving.folder)
    stop_after(100)
    assert execute_on(broken, 2, str(file)) == execute_on(moving, 2, "ddp") == DONE
    assert_same(broken, whole)
    assert_close(losses_of(moving), losses_of(alone), "ddp", rel=OWN_WITHIN)
