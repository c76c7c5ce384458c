"""The recommender that reads texts, shared out and interrupted, in both stages."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.command import DONE, STOPPED
from rec.config.tree import PaperRelations, Run
from rec.data.dataset import Dataset
from tests.dist.runs import STEPS, a_random_run, assert_close, curve_of, execute_on
from tests.small import graph_for, saved_tensors
from tests.words import graph_llm, reviews, shared_words

pytest.importorskip("deepspeed.runtime.zero.muon.muon_optimizer", reason="install kindling[deepspeed]")

OPTIONS: dict[str, dict[str, Any]] = {
    "pretrain": {"dropout": 0.2, "user_dropout": 0.3, "dim": 16, "relations": PaperRelations()},
    "pretrain, as upstream": {"regulariser": "upstream_sum", "freeze": ("backbone.*",)},
    "predictive": {"dropout": 0.2, "stage": "predictive", "relations": PaperRelations()},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    made = reviews(tmp_path_factory.mktemp("reviews"))
    graph_for(made)
    return made


def a_text_run(dataset: Dataset, out: Path, name: str, micro_batch: int = 12) -> Run:
    model = graph_llm(shared_words(), **OPTIONS[name])
    return dataclasses.replace(a_random_run(dataset, out, "gpt2", micro_batch), model=model)


@pytest.fixture(scope="module")
def alone(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Each on one process, by name."""
    runs = {name: a_text_run(dataset, tmp_path_factory.mktemp("alone"), name) for name in OPTIONS}
    for run in runs.values():
        assert execute_on(run, 1) == DONE
    return runs


@pytest.mark.parametrize(
    ("name", "strategy"),
    [("pretrain", strategy) for strategy in ("ddp", "zero3", "fsdp2")]
    + [("pretrain, as upstream", "ddp"), ("predictive", "ddp"), ("predictive", "zero2")],
)
def test_two_ranks_read_like_one_and_go_on_bit_for_bit(
    dataset: Dataset, tmp_path: Path, alone: dict[str, Run], name: str, strategy: str, stop_after: Callable[[int], None]
):
    """With micro-batches of their own, and the mean over a document or the sum over a step counted alike."""
    whole, broken = (a_text_run(dataset, tmp_path / folder, name, 3) for folder in ("whole", "broken"))
    assert execute_on(whole, 2, strategy) == DONE
    assert_close(curve_of(whole), curve_of(alone[name]), strategy)
    saved = saved_tensors(whole, STEPS)
    assert saved.keys() == saved_tensors(alone[name], STEPS).keys()
    for looks, code in ((3, STOPPED), (100, DONE)):
        stop_after(looks)
        assert execute_on(broken, 2, strategy) == code
    assert curve_of(broken) == curve_of(whole)
    again = saved_tensors(broken, STEPS)
    assert all(torch.equal(again[key], saved[key]) for key in saved)


def test_one_process_that_is_stopped_goes_on_bit_for_bit(
    dataset: Dataset, tmp_path: Path, alone: dict[str, Run], stop_after: Callable[[int], None]
):
    for name, whole in alone.items():
        broken = a_text_run(dataset, tmp_path / name, name)
        for looks, code in ((4, STOPPED), (100, DONE)):
            stop_after(looks)
            assert execute_on(broken, 1) == code
        assert curve_of(broken) == curve_of(whole)
        again, saved = saved_tensors(broken, STEPS), saved_tensors(whole, STEPS)
        assert all(torch.equal(again[key], saved[key]) for key in saved)
