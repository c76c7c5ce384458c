"""SASRec: the contract, and what is its own."""

import math
from pathlib import Path

import pytest
import torch

from rec.config.tree import LossWeights, Sasrec
from rec.data.dataset import Dataset
from rec.errors import ConfigError
from rec.train.plan.plan import Machine, Plan
from rec.train.plan.work import of_dataset
from tests.contract import RecommenderContract
from tests.small import a_run, batch_of, make, queries

EVERY_TERM = LossWeights(sampled_softmax=0.5, gbce=0.3, bpr_context=0.2, l2=0.01)


class TestSasrec(RecommenderContract):
    config = Sasrec(dim=16, positions=16, dropout=0.2, loss=EVERY_TERM)
    learns = Sasrec(dim=32, positions=12, dropout=0.0)


def test_the_loss_is_a_plain_softmax_of_the_encoders_states_over_the_item_table(mixed: Dataset):
    model, batch = make(Sasrec(dim=16, dropout=0.0), mixed.users, mixed.items), batch_of(mixed)
    table = model.tables.item.weight
    states = model.encoder(table[batch.items_BT] * math.sqrt(16))
    expected = torch.zeros(())
    for row, targets in enumerate(batch.targets_BT):
        for time, target in enumerate(targets.tolist()):
            if target:
                expected = expected - torch.log_softmax(states[row, time] @ table[1:].t(), 0)[target - 1]
    torch.testing.assert_close(model(batch).total, expected, rtol=1e-5, atol=1e-5)


def test_a_history_is_scored_by_the_state_of_its_last_item(mixed: Dataset):
    model = make(Sasrec(dim=16), mixed.users, mixed.items).eval()
    with torch.no_grad():
        scores = model(queries([3, 4], [[4, 5, 6], [7]]))
        states = model.queries(torch.tensor([[4, 5, 6]]))
    torch.testing.assert_close(scores[0], model.tables.item.weight @ states[0, 2])


def test_the_first_loss_is_that_of_ignorance(mixed: Dataset):
    model, batch = make(Sasrec(dim=16, init_std=1e-3), mixed.users, mixed.items), batch_of(mixed)
    assert model(batch).total.item() / int((batch.targets_BT > 0).sum()) == pytest.approx(math.log(30), abs=0.01)


def test_a_history_longer_than_the_positions_is_an_error_that_says_how_many_are_needed():
    with pytest.raises(ConfigError, match=r"data\.max_items is 51 but model\.positions is 50; set .* at least 51"):
        make(Sasrec(), 3, 5).require_room(51)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"heads": 3}, r"model.heads \(3\) must divide model.dim \(64\)"),
        ({"layers": 0}, "model.layers is 0; choose a positive number"),
        ({"dropout": 1.0}, "model.dropout is 1.0; choose from 0"),
        ({"loss": LossWeights(bpr_user=1.0)}, "bpr_user needs users, and sasrec has none"),
        ({"loss": LossWeights(cross_entropy=0, l2=1.0)}, "no term that trains the transformer"),
    ],
)
def test_what_cannot_be_is_told_with_its_remedy(values: dict, told: str):
    with pytest.raises(ConfigError, match=told):
        Sasrec(**values)


def test_it_is_planned_like_any_other(mixed: Dataset, tmp_path: Path):
    run = a_run(mixed, tmp_path, Sasrec(dim=16, positions=8))
    plan = Plan(run, of_dataset(mixed, run), Machine(1, 1, 1e9, 1e12))
    assert plan.inventory.whole.all == sum(parameter.numel() for parameter in make(run.model, 3, 30).parameters())
    assert plan.inventory.block.all == 3 * 16 * 16 + 3 * 16 + 3 * (16 * 16 + 16) + 4 * 16
    assert plan.flops.backbone > 0
    assert plan.flops.attention > 0
    assert all(plan.fits(strategy) for strategy in plan.strategies)
