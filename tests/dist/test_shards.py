"""Runs whose tables lie on several ranks, `model.shard_tables`, against the same run on one process that has them whole."""

import dataclasses
from pathlib import Path

import pytest

from launch.command import DONE
from rec.config.tree import LossWeights, Model, Optim, Run
from rec.data.dataset import Dataset
from tests.dist.runs import a_random_run, assert_close, curve_of, execute_on
from tests.small import EVERYTHING

LOSSES = {
    "exact": LossWeights(),
    "sampled": LossWeights(cross_entropy=0.0, sampled_softmax=1.0),
    "everything": EVERYTHING,
}


def sharded(run: Run, **changes: object) -> Run:
    return dataclasses.replace(run, model=dataclasses.replace(run.model, shard_tables=True), **changes)  # type: ignore


def a_run_with(loss: LossWeights, dataset: Dataset, out: Path) -> Run:
    """Dropout and decay are on, and gradients are scaled down in every step."""
    run = a_random_run(dataset, out, "qwen3", micro_batch=3)
    return dataclasses.replace(
        run,
        model=dataclasses.replace(run.model, loss=loss),
        optim=dataclasses.replace(run.optim, clip=0.05),
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_with_sharded_tables_has_the_curve_of_one_process_with_whole_ones(
    mixed: Dataset, tmp_path: Path, loss: str
):
    whole = a_run_with(LOSSES[loss], mixed, tmp_path / "whole")
    assert execute_on(whole, 1) == DONE
    expected = curve_of(whole)
    assert all(line["train/grad_norm"] > 0.05 for line in expected if "train/grad_norm" in line)
    for world in (1, 2, 4):
        run = sharded(a_run_with(LOSSES[loss], mixed, tmp_path / str(world)))
        assert execute_on(run, world) == DONE
        assert_close(curve_of(run), expected, f"{world} processes")
