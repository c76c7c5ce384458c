"""What a rank holds, and what it copies for a save."""

import dataclasses
import gc
import json
import warnings
from pathlib import Path

import pytest
import torch

from launch.strategy import named
from launch.train import made
from rec.config.tree import Backbone, Run
from rec.data.dataset import Dataset
from rec.ranks import Ranks
from rec.train.pieces import copy
from rec.train.strategies import build
from tests.dist.runs import a_random_run
from tests.ranks import run_ranks
from tests.small import SHAPES

pytest.importorskip("deepspeed.runtime.zero.muon.muon_optimizer", reason="install kindling[deepspeed]")

WORLD = 4
WIDE = {**SHAPES["qwen3"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4}
ZERO3 = {"stage": 3, "stage3_param_persistence_threshold": 0, "reduce_bucket_size": 1000}


def alive() -> int:
    """Bytes behind all tensors made since `gc.freeze`, none counted twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # looking at all objects touches deprecated ones, too
        tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    local = [one.to_local() if hasattr(one, "to_local") else one for one in tensors]
    return sum({one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in local}.values())


def held_and_copied(ranks: Ranks, run: Run, dataset: Dataset, strategy: str) -> tuple[float, float]:
    """Bytes after `prepare`, and bytes of the copy that a save begins with, in sizes of the model's parameters."""
    engine = build(named(strategy), run, ranks)
    model = made(run, dataset, Ranks(), fresh=True)
    size = sum(parameter.numel() * 4 for parameter in model.parameters())
    engine.prepare(model, run.optim)
    del model
    gc.collect()
    return alive() / size, sum(value.nbytes for value in copy(engine.pieces()).tensors.values()) / size


@pytest.mark.parametrize(
    ("strategy", "held"),
    [
        ("ddp", 4),  # parameters, gradients, two moments
        ("zero2", 1 + 3 / WORLD),  # parameters; a share of masters and moments
        ("zero3.json", 5 / WORLD),  # a share of parameters, masters, moments and gradients
        ("fsdp2", 3 / WORLD),  # a share of parameters and moments
    ],
)
def test_a_rank_holds_its_share_and_no_whole_copy_and_copies_its_share_to_save(
    mixed: Dataset, tmp_path: Path, strategy: str, held: float
):
    if strategy.endswith(".json"):
        (tmp_path / strategy).write_text(json.dumps({"zero_optimization": ZERO3}))
        strategy = str(tmp_path / strategy)
    run = a_random_run(mixed, tmp_path, "qwen3", 3)
    model = dataclasses.replace(run.model, dim=64, backbone=Backbone(architecture="qwen3", config=WIDE))
    run = dataclasses.replace(run, model=model)
    gc.freeze()  # what is here before has not to be looked at in every rank
    try:
        found = run_ranks(lambda ranks: held_and_copied(ranks, run, mixed, strategy), WORLD)
    finally:
        gc.unfreeze()
    for seen, copied in found:
        assert seen == pytest.approx(held, rel=0.03)
        assert copied == pytest.approx(3 / WORLD, rel=0.03)
