"""The property the whole design serves: one curve, whatever runs it.

Losses of every step and all validation metrics are equal for 1, 2 and 3 processes at every micro-batch size, with
everything random switched on; and a run may move between numbers of processes on its way.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from launch.command import DONE, STOPPED
from rec.data.dataset import Dataset
from tests.dist.runs import GLOBAL_BATCH, STEPS, a_random_run, assert_close, curve_of, execute_on


@pytest.mark.parametrize("architecture", ["gpt2", "qwen3"])
def test_any_number_of_ranks_and_any_micro_batch_give_one_curve(mixed: Dataset, tmp_path: Path, architecture: str):
    reference = a_random_run(mixed, tmp_path / "reference", architecture)
    assert execute_on(reference, 1) == DONE
    expected = curve_of(reference)
    steps = [line["step"] for line in expected if "train/loss" in line]
    evaluations = [line["step"] for line in expected if "valid/ndcg@10" in line]
    assert (steps, evaluations) == ([1, 2, 3, 4, 5, 6], [2, 4, 6])
    assert len({line["train/loss"] for line in expected if "train/loss" in line}) == STEPS  # a curve, and not a line
    for world in (1, 2, 3):
        for micro_batch in (size for size in range(1, GLOBAL_BATCH) if GLOBAL_BATCH % (size * world) == 0):
            run = a_random_run(mixed, tmp_path / f"{world}x{micro_batch}", architecture, micro_batch)
            assert execute_on(run, world) == DONE
            assert_close(curve_of(run), expected, f"{world} processes, micro-batches of {micro_batch}")


@pytest.mark.parametrize("worlds", [(1, 2, 1), (2, 1, 3)])
def test_a_run_that_moves_between_numbers_of_ranks_stays_on_itscurve_of(
    mixed: Dataset, tmp_path: Path, worlds: tuple[int, int, int], stop_after: Callable[[int], None]
):
    whole = a_random_run(mixed, tmp_path / "whole", "qwen3", 2)
    assert execute_on(whole, 1) == DONE
    moving = a_random_run(mixed, tmp_path / "moving", "qwen3")
    for world, steps, code in zip(worlds, (2, 1, 100), (STOPPED, STOPPED, DONE), strict=True):
        stop_after(steps)
        assert execute_on(moving, world) == code
    assert_close(curve_of(moving), curve_of(whole), worlds)
