"""Runs whose tables lie on several ranks, `model.shard_tables`, against the same run on one process that has them whole."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rec
from launch import evaluate
from launch.command import DONE, STOPPED
from launch.launch import check
from launch.strategy import named
from launch.train import execute, made
from rec.config.tree import LightGcnPart, LossWeights, Run, Sasrec
from rec.data.dataset import Dataset
from rec.errors import ConfigError
from rec.ranks import Ranks
from rec.train.pieces import copy
from rec.train.strategies import build
from tests.dist.runs import STEPS, a_random_run, assert_close, curve_of, execute_on
from tests.ranks import run_ranks
from tests.small import EVERYTHING, graph_for, saved_tensors, soft_token

CLIP = 0.05
"""A norm that the gradients of every step exceed."""
LOSSES = {
    "exact": LossWeights(),
    "sampled": LossWeights(cross_entropy=0.0, sampled_softmax=1.0),
    "everything": EVERYTHING,
}


def sharded(run: Run, **changes: Any) -> Run:
    return dataclasses.replace(run, model=dataclasses.replace(run.model, shard_tables=True), **changes)


def a_run_with(loss: LossWeights, dataset: Dataset, out: Path) -> Run:
    """Dropout and decay are on, and gradients are scaled down in every step."""
    run = a_random_run(dataset, out, "qwen3", micro_batch=3)
    return dataclasses.replace(
        run,
        model=dataclasses.replace(run.model, loss=loss),
        optim=dataclasses.replace(run.optim, clip=CLIP),
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_with_sharded_tables_has_the_curve_of_one_process_with_whole_ones(
    mixed: Dataset, tmp_path: Path, loss: str
):
    whole = a_run_with(LOSSES[loss], mixed, tmp_path / "whole")
    assert execute_on(whole, 1) == DONE
    expected = curve_of(whole)
    assert all(line["train/grad_norm"] > CLIP for line in expected if "train/grad_norm" in line)
    for world, strategy in ((1, None), (2, None), (4, None), (2, "fsdp2"), (4, "fsdp2")):
        run = sharded(a_run_with(LOSSES[loss], mixed, tmp_path / f"{world} {strategy}"))
        assert execute_on(run, world, strategy) == DONE
        assert_close(curve_of(run), expected, f"{world} processes, {strategy}")


def test_a_run_starts_from_the_saved_model_of_another(mixed: Dataset, tmp_path: Path):
    first = a_run_with(LOSSES["exact"], mixed, tmp_path / "first")
    assert execute_on(first, 1) == DONE
    runs = [
        dataclasses.replace(a_run_with(LOSSES["exact"], mixed, tmp_path / str(world)), init_from=first.folder)
        for world in (1, 3)
    ]
    assert execute_on(runs[0], 1) == execute_on(sharded(runs[1]), 3) == DONE
    assert_close(curve_of(runs[1]), curve_of(runs[0]), "three processes")


def test_sasrec_with_a_sharded_table_has_its_curve(mixed: Dataset, tmp_path: Path):
    model = Sasrec(dim=16, positions=6, dropout=0.2, loss=LossWeights(sampled_softmax=0.5, l2=0.1))
    runs = [
        dataclasses.replace(a_random_run(mixed, tmp_path / str(world), "gpt2", 3), model=model) for world in (1, 2)
    ]
    assert execute_on(runs[0], 1) == execute_on(sharded(runs[1]), 2) == DONE
    assert_close(curve_of(runs[1]), curve_of(runs[0]), "two processes")


@pytest.mark.parametrize("frozen", [("tables.*",), ("tables.user.*",), ("backbone.*", "heads.*")])
def test_what_is_frozen_is_so_on_all_ranks(mixed: Dataset, tmp_path: Path, frozen: tuple[str, ...]):
    runs = [a_run_with(LOSSES["exact"], mixed, tmp_path / str(world)) for world in (1, 2)]
    runs = [dataclasses.replace(run, model=dataclasses.replace(run.model, freeze=frozen)) for run in runs]
    assert execute_on(runs[0], 1) == execute_on(sharded(runs[1]), 2) == DONE
    assert_close(curve_of(runs[1]), curve_of(runs[0]), frozen)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_stop_changes_no_bit(mixed: Dataset, tmp_path: Path, strategy: str, stop_after: Callable[[int], None]):
    whole = sharded(a_run_with(LOSSES["sampled"], mixed, tmp_path / "whole"))
    broken = sharded(a_run_with(LOSSES["sampled"], mixed, tmp_path / "broken"))
    assert execute_on(whole, 2, strategy) == DONE
    for looks, code in ((1, STOPPED), (2, STOPPED), (100, DONE)):
        stop_after(looks)
        assert execute_on(broken, 2, strategy) == code
    assert curve_of(broken) == curve_of(whole)
    tensors, reference = saved_tensors(broken, STEPS), saved_tensors(whole, STEPS)
    assert tensors.keys() == reference.keys()
    assert all(torch.equal(tensor, reference[key]) for key, tensor in tensors.items())


def test_a_run_goes_on_with_any_number_of_ranks_and_with_whole_tables_and_back(
    mixed: Dataset, tmp_path: Path, stop_after: Callable[[int], None]
):
    pytest.importorskip("deepspeed.runtime.zero.muon.muon_optimizer", reason="install kindling[deepspeed]")
    alone = a_run_with(LOSSES["exact"], mixed, tmp_path / "alone")
    assert execute_on(alone, 1) == DONE
    moving = a_run_with(LOSSES["exact"], mixed, tmp_path / "moving")
    stages = [(True, 2, None), (True, 3, None), (False, 2, "zero2"), (True, 4, "fsdp2"), (False, 1, None)]
    for place, (apart, world, strategy) in enumerate(stages):
        last = place == len(stages) - 1
        stop_after(100 if last else 1)
        assert execute_on(sharded(moving) if apart else moving, world, strategy) == (DONE if last else STOPPED)
    assert_close(curve_of(moving), curve_of(alone), stages)
    moved, reference = saved_tensors(moving, STEPS), saved_tensors(alone, STEPS)
    assert all(torch.allclose(moved[key], reference[key], rtol=1e-4, atol=1e-6) for key in reference)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_rank_holds_and_saves_its_share_of_the_tables(mixed: Dataset, tmp_path: Path, strategy: str):
    world = 4
    run = sharded(a_run_with(LOSSES["exact"], mixed, tmp_path))

    def on(ranks: Ranks) -> tuple[int, int]:
        engine = build(named(strategy), run, ranks)
        engine.prepare(made(run, mixed, ranks, fresh=True), run.optim)
        tables = {name: one for name, one in engine.bare.named_parameters() if name.startswith("tables.")}
        moments = [value for one in tables.values() for value in engine.optimizer.state[one].values() if value.ndim]
        saved = copy(engine.pieces()).tensors
        of_tables = [value for name, value in saved.items() if name.startswith("tables.") and "/step" not in name]
        return sum(one.nbytes for one in (*tables.values(), *moments)), sum(one.nbytes for one in of_tables)

    held = run_ranks(on, world)
    whole = 3 * 4 * run.model.dim * (mixed.users + mixed.items + 1)  # parameters and two moments
    assert sum(size for size, _ in held) == sum(size for _, size in held) == whole
    rows = -(-mixed.users // world) + -(-(mixed.items + 1) // world)
    assert max(size for size, _ in held) <= 3 * 4 * run.model.dim * rows


def test_the_saved_model_is_whole_and_evaluated_alike_by_any_number_of_ranks(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = sharded(a_run_with(LOSSES["exact"], mixed, tmp_path / "run"))
    assert execute_on(run, 2) == DONE
    tables = load_file(run.folder / "model/model.safetensors")
    best = int(json.loads((run.folder / "model/model.json").read_text())["step"])
    assert torch.equal(tables["tables.item.weight"], saved_tensors(run, best)["tables.item.weight"])
    assert rec.load(run.folder).recommend([["i1", "i2"]], k=3)
    graph_for(mixed)
    following = "model.following={kind: following, weight: 2}"
    for words in ((), ("--protocol", "upstream2"), (following,)):
        found = []
        for world in (1, 2, 4):
            file = tmp_path / f"{world}.json"
            monkeypatch.setattr("sys.argv", ["kindling evaluate", str(run.folder), "--no-baselines", *words, "--json", str(file)])
            assert set(run_ranks(lambda _: evaluate.main(), world)) == {DONE}
            found.append(json.loads(file.read_text())["metrics"])
        assert found[0] == found[1] == found[2], words


@pytest.mark.parametrize(
    ("strategy", "precision", "said"),
    [
        ("zero2", "fp32", "model.shard_tables deals the tables' rows out by itself, and zero2 would .* ddp or fsdp2"),
        ("ddp", "fp16", "train.precision=fp16 is not offered with model.shard_tables; choose bf16"),
    ],
)
def test_what_cannot_be_trained_so_is_refused_before_the_dataset_is_opened(
    mixed: Dataset, tmp_path: Path, strategy: str, precision: str, said: str
):
    run = sharded(a_run_with(LOSSES["exact"], mixed, tmp_path), dataset=tmp_path / "nowhere")
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, precision=precision))
    for refused in (lambda: execute(run, strategy), lambda: check(run, 2, strategy)):
        with pytest.raises(ConfigError, match=said):
            refused()


def test_a_graph_network_beside_sharded_tables_is_refused():
    with pytest.raises(ConfigError, match=r"model.gnn reads whole tables, .* set model.shard_tables=false"):
        soft_token(gnn=LightGcnPart(), shard_tables=True)
