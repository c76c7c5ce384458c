"""Every strategy trains like one process, stops and goes on as if it had not, and hands over to every other."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from launch.command import DONE, STOPPED
from rec.data.dataset import Dataset
from tests.small import saved_tensors
from tests.dist.runs import a_random_run, assert_close, curve_of, STEPS, execute_on

# before any fork, since these imports take seconds
pytest.importorskip("deepspeed.runtime.zero.muon.muon_optimizer", reason="install kindling[deepspeed]")

STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp2")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("architecture", ["gpt2", "qwen3"])
def test_two_ranks_train_like_one_and_go_on_bit_for_bit(
    mixed: Dataset, tmp_path: Path, strategy: str, architecture: str, stop_after: Callable[[int], None]
):
    alone = a_random_run(mixed, tmp_path / "alone", architecture)
    whole = a_random_run(mixed, tmp_path / "whole", architecture, 3)
    broken = a_random_run(mixed, tmp_path / "broken", architecture, 3)
    assert execute_on(alone, 1) == DONE
    assert execute_on(whole, 2, strategy) == DONE
    assert_close(curve_of(whole), curve_of(alone), strategy)
    for looks, code in ((1, STOPPED), (2, STOPPED), (100, DONE)):  # a resume of a resume
        stop_after(looks)
        assert execute_on(broken, 2, strategy) == code
    assert curve_of(broken) == curve_of(whole)
    assert_equal(saved_tensors(broken, STEPS), saved_tensors(whole, STEPS))


@pytest.mark.parametrize("architecture", ["gpt2", "qwen3"])
def test_every_strategy_goes_on_from_what_any_other_saved(
    mixed: Dataset, tmp_path: Path, architecture: str, stop_after: Callable[[int], None]
):
    alone = a_random_run(mixed, tmp_path / "alone", architecture, steps=12)  # each takes one step, or two
    assert execute_on(alone, 1) == DONE
    moving = a_random_run(mixed, tmp_path / "moving", architecture, steps=12)
    stages = [("zero2", 2), ("zero3", 2), ("fsdp2", 4), ("ddp", 2), ("single", 1), ("zero1", 2)]
    for (strategy, world), looks in zip(stages, [1, 1, 1, 1, 1, 100], strict=True):
        stop_after(looks)
        assert execute_on(moving, world, strategy) == (DONE if looks == 100 else STOPPED)
    assert_close(curve_of(moving), curve_of(alone), stages)


def assert_equal(tensors: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]) -> None:
    assert tensors.keys() == reference.keys()
    for key, tensor in tensors.items():
        assert torch.equal(tensor, reference[key]), key

