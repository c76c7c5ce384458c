"""Recommenders beside the plain soft-token one, shared out: graphs, tables outside of any layer, small encoders."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.command import DONE, STOPPED
from launch.train import execute
from rec.config.tree import Group, LearnedRelations, LightGcn, LightGcnPart, LossWeights, Model, Optim, Run, Sasrec
from rec.data.dataset import Dataset
from rec.nn import propagate
from tests.dist.runs import STEPS, a_random_run, assert_close, curve_of, execute_on
from tests.ranks import run_ranks
from tests.small import EVERYTHING, decoder, forget_the_world, graph_for, saved_tensors, soft_token

pytest.importorskip("deepspeed.runtime.zero.muon.muon_optimizer", reason="install kindling[deepspeed]")

SEVERAL = LossWeights(cross_entropy=0.5, bpr_context=0.2, l2=0.01)
GNN = LightGcnPart(edge_dropout=0.2)
RELATED = LearnedRelations(per_layer=True)
MODELS: dict[str, tuple[Model, dict[str, Group]]] = {
    "gnn": (
        soft_token(
            "qwen3", loss=EVERYTHING, dropout=0.2, user_dropout=0.3, predict_first=True, relations=RELATED, gnn=GNN
        ),
        {"gnn.*": Group(lr=1e-2), "relations.*": Group(lr=5e-3)},
    ),
    "drawn": (
        soft_token(
            "gpt2",
            backbone=decoder("gpt2", gradient_checkpointing=True),
            loss=dataclasses.replace(EVERYTHING, cross_entropy=0.0),
            relations=LearnedRelations(),
            gnn=LightGcnPart(layers=3, fan_out=2),
        ),
        {"gnn.*": Group(lr=1e-2)},
    ),
    "lightgcn": (LightGcn(dim=16, edge_dropout=0.2, loss=SEVERAL), {}),
    "sasrec": (Sasrec(dim=16, loss=SEVERAL), {"encoder.*": Group(lr=1e-2)}),
}


def a_model_run(dataset: Dataset, out: Path, name: str, micro_batch: int = 12, **train: str) -> Run:
    graph_for(dataset)
    model, groups = MODELS[name]
    optim = Optim(lr=3e-3, warmup=2, weight_decay=0.01, groups=groups)
    return dataclasses.replace(a_random_run(dataset, out, "gpt2", micro_batch, **train), model=model, optim=optim)


@pytest.fixture(scope="module")
def alone(mixed: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Each model on one process, by name."""
    runs = {name: a_model_run(mixed, tmp_path_factory.mktemp(name), name) for name in MODELS}
    for run in runs.values():
        assert execute_on(run, 1) == DONE
    return runs


@pytest.mark.parametrize(
    ("name", "strategy"),
    [("gnn", strategy) for strategy in ("ddp", "zero1", "zero2", "zero3", "fsdp2")]
    + [(name, strategy) for name in ("drawn", "lightgcn", "sasrec") for strategy in ("ddp", "zero3", "fsdp2")],
)
def test_two_ranks_train_like_one_and_go_on_bit_for_bit(
    mixed: Dataset, tmp_path: Path, alone: dict[str, Run], name: str, strategy: str, stop_after: Callable[[int], None]
):
    """With micro-batches of their own, though the users of all of them are hidden from each."""
    whole, broken = (a_model_run(mixed, tmp_path / folder, name, 3) for folder in ("whole", "broken"))
    assert execute_on(whole, 2, strategy) == DONE
    assert_close(curve_of(whole), curve_of(alone[name]), strategy)
    saved, expected = saved_tensors(whole, STEPS), saved_tensors(alone[name], STEPS)
    assert saved.keys() == expected.keys()
    for looks, code in ((3, STOPPED), (100, DONE)):
        stop_after(looks)
        assert execute_on(broken, 2, strategy) == code
    assert curve_of(broken) == curve_of(whole)
    again = saved_tensors(broken, STEPS)
    assert all(torch.equal(again[key], saved[key]) for key in saved)


@pytest.mark.parametrize("strategy", ["ddp", "zero3", "fsdp2"])
def test_a_graph_beside_a_backbone_in_bf16_trains_like_one_process(mixed: Dataset, tmp_path: Path, strategy: str):
    alone = a_model_run(mixed, tmp_path / "alone", "gnn", precision="bf16")
    shared = a_model_run(mixed, tmp_path / "shared", "gnn", 3, precision="bf16")
    assert execute_on(alone, 1) == DONE
    assert execute_on(shared, 2, strategy) == DONE
    curves = [
        [{key: value for key, value in line.items() if not key.startswith("valid/")} for line in curve_of(run)]
        for run in (shared, alone)
    ]
    assert_close(*curves, strategy, rel=2e-3)


@pytest.mark.parametrize("strategy", ["ddp", "zero3", "fsdp2"])
def test_each_evaluation_propagates_once_under_every_strategy(
    mixed: Dataset, tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
):
    """Though the weights are together in each call only, and each is asked about several blocks."""
    run, found = a_model_run(mixed, tmp_path, "gnn", 3), []
    run = dataclasses.replace(run, eval=dataclasses.replace(run.eval, block=2))
    original = propagate.mean_over_layers

    def counted(*given: Any) -> torch.Tensor:
        found.extend([] if torch.is_grad_enabled() else [given])
        return original(*given)

    monkeypatch.setattr(propagate, "mean_over_layers", counted)
    forget_the_world()
    evaluations = STEPS // run.eval.every
    assert run_ranks(lambda _: (execute(run, strategy), len(found)), 2) == [(DONE, evaluations)] * 2
    assert len(mixed.queries("valid")) > 2 * 2 * run.eval.block  # three blocks for each of two ranks, at least
