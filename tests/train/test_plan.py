"""The plan of a run against what the run then takes: memory of real processes, FLOPs of the real model."""

import copy
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from rec.config.tree import Data, LearnedRelations, PaperRelations
from rec.data.dataset import Dataset
from rec.data.feed import Feed
from rec.graph.outline import outline
from rec.models import build, view
from rec.ranks import Ranks
from rec.train.plan.inventory import count
from rec.train.plan.memory import Step, memory
from rec.train.plan.page import page
from rec.train.plan.plan import ROOM, Machine, Plan
from rec.train.plan.rehearsal import Stage
from rec.train.plan.tracker import Tracker
from rec.train.plan.work import of_counts, of_dataset
from rec.train.strategies import Name
from tests.eval.tiny import write
from tests.small import EVERYTHING, SHAPES, WIDTH, a_run, decoder, graph_for, make_for, soft_token
from tests.train.cases import BUCKET, CASES, DEALT, LAYERS, SHARDED, SHARDS, Case, dealt


def planned(case: Case, strategy: Name, ranks: int) -> float:
    run = case.run(ranks)
    stage = Stage(run, case.users, case.items, ranks=ranks)
    step = Step(stage.rehearse(case.length).of(case.windows), case.accumulated, evaluation=0)
    return memory(strategy, count(stage.model), step, ranks).peak


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    """Name of the case -> bytes of the fullest rank, in processes that have done nothing before."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.cases"], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CASES)
def test_memory_of_one_process_is_as_planned(measured: dict[str, int], name: str):
    assert planned(CASES[name], "single", 1) == pytest.approx(measured[name], rel=0.15)
    assert measured[name] > 80e6, "too small to tell anything"


@pytest.mark.parametrize(("strategy", "accumulated"), DEALT)
def test_memory_of_a_rank_is_as_planned_under_each_strategy(
    measured: dict[str, int], strategy: Name, accumulated: int, monkeypatch: pytest.MonkeyPatch
):
    """A CPU gives memory to what is written only: buckets have to be so small that they are filled."""
    monkeypatch.setattr("rec.train.plan.memory.BUCKET", BUCKET)
    real = measured[f"{strategy}-{accumulated}"]
    assert planned(dealt(accumulated), strategy, 2) == pytest.approx(real, rel=0.15)


@pytest.mark.parametrize(("strategy", "accumulated"), SHARDED)
def test_memory_of_a_rank_with_its_rows_of_the_tables_is_as_planned(
    measured: dict[str, int], strategy: Name, accumulated: int
):
    case = dataclasses.replace(SHARDS, accumulated=accumulated)
    real = measured[f"shards-{strategy}-{accumulated}"]
    assert planned(case, strategy, 2) == pytest.approx(real, rel=0.15)
    whole = dataclasses.replace(case, model=dataclasses.replace(case.model, shard_tables=False))
    assert real < 0.7 * planned(whole, strategy, 2)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("architecture", SHAPES)
def test_every_tensor_that_lives_in_a_real_step_lives_in_the_rehearsal(architecture: str, checkpointing: bool):
    """Byte for byte, at every operation, for every family; the real step has data and the rehearsal has none."""
    backbone = decoder(architecture, gradient_checkpointing=checkpointing)
    model = soft_token(architecture, backbone=backbone, dropout=0.1, user_dropout=0.2, loss=EVERYTHING)
    case = Case(model, users=40, items=50, windows=6, length=9, negatives=5)
    stage = Stage(case.run(1), case.users, case.items)
    rehearsal = stage.rehearse(case.length).of(case.windows)
    real = build(model, users=case.users, items=case.items).train()
    batch = case.batch()
    with Tracker(real) as tracker:
        real(batch).total.backward()
    assert tracker.temporary == rehearsal.temporary.tolist()
    finished = [root + layers for root, layers in zip(tracker.root, tracker.layers, strict=True)]
    assert finished[-1] == rehearsal.root[-1] + rehearsal.layers[-1] == 4 * count(real).whole.trained
    assert sum(tracker.other) + sum(tracker.attention) == sum(dataclasses.astuple(rehearsal.flops))


@pytest.mark.parametrize("architecture", SHAPES)
def test_flops_are_those_that_torch_counts_and_those_of_the_formula(architecture: str):
    """The formula is 6 for each weight of a matrix and position. Torch leaves out attention on a CPU.

    The loss multiplies queries and catalogue four times: forward, again for the softmax, and for each gradient.
    """
    case = Case(soft_token(architecture), users=40, items=500, windows=8, length=20)
    flops = Stage(case.run(1), case.users, case.items).rehearse(case.length).of(case.windows).flops
    model = build(case.model, users=case.users, items=case.items).train()
    with FlopCounterMode(display=False) as counter:
        model(case.batch()).total.backward()
    product = 2 * case.windows * case.length * case.items * case.model.dim
    assert flops.backbone + flops.loss == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert flops.loss == pytest.approx(4 * product, rel=0.02)
    tables_of_text = ("wte", "wpe", "embed_tokens")
    matrices = sum(
        one.numel()
        for name, one in model.backbone.named_parameters()
        if one.ndim == 2 and not any(table in name for table in tables_of_text)
    )
    head = case.model.dim * WIDTH  # W_o at every place, P_i at every item, P_u at every user
    places = (matrices + head) * (case.length + 1) + head * case.length + head
    assert flops.backbone == 6 * case.windows * places


def test_attention_is_counted_over_the_whole_square():
    """Two products forward and five backward (one of them the scores again), 2 x T x T x width each, in two layers."""
    case = Case(soft_token("gpt2"), windows=8, length=20)
    flops = Stage(case.run(1), case.users, case.items).rehearse(case.length).of(case.windows).flops
    assert flops.attention == 2 * (2 + 5) * 8 * 2 * 21 * 21 * 32


def test_parameters_are_counted_by_part_trained_or_not():
    model = soft_token("qwen3", freeze=("backbone.*",))
    inventory = count(Stage(Case(model).run(1), users=100, items=50).model)
    real = build(model, users=100, items=50)
    assert inventory.parts["tables"] == ((100 + 51) * 16,) * 2
    assert inventory.parts["backbone"] == (sum(one.numel() for one in real.backbone.parameters()), 0)
    assert inventory.whole.all == sum(one.numel() for one in real.parameters())
    assert inventory.root.all + 2 * inventory.block.all == inventory.whole.all


WHOLE_AND_DEALT: dict[Name, tuple[int, int, int]] = {
    "ddp": (4, 4, 8), "zero1": (4, 5, 3), "zero2": (4, 2, 3), "zero3": (1, 2, 3), "fsdp2": (1, 1, 2)
}  # fmt: skip
SEVERAL: dict[Name, tuple[int, int, int]] = {
    **WHOLE_AND_DEALT,
    "ddp": (4, 8, 8),
    "zero2": (4, 3, 3),
    "fsdp2": (1, 4, 2),
}


def test_state_is_dealt_out_exactly():
    """Bytes of weights, gradients and moments by hand: fp32, on 4 ranks, one micro-batch a step and several."""
    stage = Stage(LAYERS.run(4), 100, 1000)
    inventory, rehearsal = count(stage.model), stage.rehearse(10)
    whole, tables = inventory.whole, inventory.parts["tables"]
    rest, trained = whole.all - tables.all, whole.trained - tables.trained
    for accumulated, shares in ((1, WHOLE_AND_DEALT), (2, SEVERAL)):
        for strategy, (weight, gradient, moments) in shares.items():
            planned = memory(strategy, inventory, Step(rehearsal, accumulated, 0), 4)
            assert planned.weights == weight * rest, strategy
            assert (planned.gradients, planned.optimizer) == (gradient * trained, moments * trained), strategy
            assert planned.tables == (weight + gradient + moments) * tables.all, strategy


def test_an_epoch_is_counted_as_the_feed_deals_it(mixed: Dataset, tmp_path: Path):
    data = Data(global_batch=6, micro_batch=2, max_items=6)
    run = a_run(mixed, tmp_path, soft_token(), data=data)
    feed = Feed(view(run, mixed), data, seed=run.seed, ranks=Ranks())
    work = of_dataset(mixed, run)
    whole = feed.windows // 6
    batches = [batch for step in range(whole) for batch in feed.step(step).batches]
    feed.close()
    dealt = sum(batch.items_BT.numel() for batch in batches)
    assert work.windows == feed.windows
    assert work.targets == feed.targets
    assert work.longest == max(batch.items_BT.shape[1] for batch in batches) == 6
    assert dealt <= work.padded <= dealt + 6 * (work.windows - 6 * whole)


def test_sizes_alone_tell_what_a_dataset_of_equal_users_does(tmp_path: Path):
    dataset = write(tmp_path / "equal", [[1 + (user + t) % 20 for t in range(12)] for user in range(10)], 20)
    run = a_run(dataset, tmp_path, soft_token(), data=Data(global_batch=5, micro_batch=5, max_items=9))
    assert of_counts(10, 20, 120, run) == of_dataset(dataset, run)


@pytest.fixture(scope="module")
def plan() -> Plan:
    case = dataclasses.replace(CASES["activations"], windows=8, accumulated=4)
    return Plan(case.run(2), of_counts(100, 1000, 100_000, case.run(2)), Machine(1, 2, 240e6, 1e12))


def test_the_largest_micro_batch_fits_and_the_next_one_does_not(plan: Plan):
    for strategy in plan.strategies:
        largest = plan.largest_micro_batch(strategy)
        if largest:
            assert plan.memory(strategy, largest).peak <= ROOM * 240e6
        assert largest == 32 or plan.memory(strategy, 2 * largest or 1).peak > ROOM * 240e6
    assert plan.largest_micro_batch("ddp") == 16
    assert plan.largest_micro_batch("zero3") == 0  # its buffers alone are larger


def test_hours_are_flops_by_speed_unless_the_exchange_takes_longer(plan: Plan):
    computing = plan.flops_of_step / (2 * 0.4 * 1e12)
    assert plan.seconds_of_step("ddp") == pytest.approx(computing)
    slow = copy.copy(plan)
    slow.machine = dataclasses.replace(plan.machine, speed=1e18)
    assert slow.seconds_of_step("ddp") == pytest.approx(plan.inventory.whole.trained * 4 / 300e9)
    assert "Sending takes longer than computing under ddp, zero1" in page(slow)
    assert "Sending" not in page(plan)
    steps = plan.work.windows / plan.run.data.global_batch
    assert plan.hours_of_epoch("ddp") == pytest.approx(computing * steps / 3600)


def test_sharded_tables_are_planned_as_a_rank_has_them():
    case = Case(soft_token(shard_tables=True), users=400, items=1001, windows=2, negatives=0)
    plan = Plan(case.run(4), of_counts(400, 1001, 40_000, case.run(4)), Machine(1, 4, 1e9, 1e12))
    inventory = plan.inventory
    assert plan.strategies == ("ddp", "fsdp2")
    assert inventory.parts["tables"] == inventory.shards == ((400 + 1002) * 16,) * 2
    assert inventory.own == ((100 + 251) * 16,) * 2
    assert inventory.rest.parts["tables"] == (0, 0)
    assert plan.memory("ddp").tables == plan.memory("fsdp2").tables == 16 * inventory.own.all
    # to three others: the number of a row; it is summed (twice its bytes) and its gradient gathered. Of a position: the
    # query, its gradient (twice), target and weight; twice a maximum, a sum of powers and a score
    rows, positions, width = 2 + 2 * 10, 2 * 10, 4 * 16
    of_tables = 3 * (rows * (8 + 3 * width) + positions * (3 * width + 8 + 4 + 2 * 3 * 4))
    assert plan.exchanged("ddp") == of_tables + 2 * 4 * 3 / 4 * inventory.rest.whole.trained
    text = page(plan)
    assert f"{(400 + 1002) * 16:,}" in text
    assert "zero" not in text


def test_the_page_says_what_fits(plan: Plan):
    text = page(plan)
    assert "tables" in text
    assert f"The largest data.micro_batch that fits under ddp is {plan.largest_micro_batch('ddp')}" in text
    for strategy in plan.strategies:
        line = next(line for line in text.splitlines() if line.startswith(strategy))
        assert (" yes " in line) == plan.fits(strategy)


@pytest.mark.parametrize("relations", [LearnedRelations(per_layer=True), PaperRelations()], ids=lambda one: one.kind)
def test_relations_are_planned_with_the_graph_and_before_there_is_one(
    mixed: Dataset, tmp_path: Path, relations: LearnedRelations | PaperRelations
):
    machine = Machine(1, 1, 1e9, 1e12)
    run, plain = (a_run(mixed, tmp_path, soft_token("gpt2", relations=kind)) for kind in (relations, None))
    real = Plan(run, of_dataset(mixed, run), machine)
    assert real.fits("single")
    assert real.rehearsal.activations > Plan(plain, of_dataset(mixed, plain), machine).rehearsal.activations
    model = make_for(run.model, mixed)
    assert real.inventory.whole.all == sum(parameter.numel() for parameter in model.parameters())
    edges = len(graph_for(mixed).user_items)
    stage = Stage(run, mixed.users, mixed.items, outline(mixed.users, mixed.items, edges, top=8))
    assert (stage.rehearse(real.work.longest).temporary == real.rehearsal.temporary).all()
    assert Plan(run, of_counts(500, 600, 10_000, run), machine).fits("single")
