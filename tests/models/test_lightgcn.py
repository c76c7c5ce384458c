"""LightGCN: the contract, and what is its own."""

import dataclasses
import math
import shutil
from pathlib import Path

import pytest
import torch

from rec.config.tree import Data, LightGcn, LossWeights
from rec.data.dataset import Dataset
from rec.data.views import NextItems
from rec.errors import ConfigError, DatasetError
from rec.models import graph_of
from tests.contract import RecommenderContract
from tests.eval.tiny import write
from tests.small import a_run, batch_of, make_for, queries


class TestLightGcn(RecommenderContract):
    config = LightGcn(
        dim=16, edge_dropout=0.2, loss=LossWeights(sampled_softmax=0.5, gbce=0.3, bpr_context=0.2, l2=0.01)
    )
    learns = LightGcn(dim=16, layers=2)
    ranks_first = 0.35  # it knows who is near on the ring, but not which way people go


def test_every_training_interaction_is_a_positive_of_its_user_once_an_epoch(mixed: Dataset):
    view = NextItems(mixed, Data(max_items=6), predict_first=LightGcn().predict_first, seed=1)
    epoch = view.epoch(0)
    batch = view.batch(0, epoch, epoch)
    positives = torch.cat([batch.first_B[:, None], batch.targets_BT], 1)
    met = [(user, item) for user, row in zip(batch.user_B.tolist(), positives.tolist(), strict=True) for item in row]
    expected = [(user, int(item)) for user in range(1, mixed.users + 1) for item in mixed.train_items(user)]
    assert sorted(pair for pair in met if pair[1]) == sorted(expected)


def test_the_loss_is_bpr_of_the_propagated_vectors(mixed: Dataset):
    model, batch = make_for(LightGcn(dim=8), mixed), batch_of(mixed, predict_first=True)
    users, items = model.means()
    expected = torch.zeros(())
    for row, user in enumerate(batch.user_B.tolist()):
        for item in [batch.first_B[row].item(), *batch.targets_BT[row].tolist()]:
            for negative in batch.negatives_BK[row].tolist() if item else []:
                difference = users[user - 1] @ (items[item] - items[negative])
                expected = expected - torch.log(torch.sigmoid(difference))
    torch.testing.assert_close(model(batch).total, expected, rtol=1e-5, atol=1e-5)


def test_the_first_loss_is_that_of_ignorance(mixed: Dataset):
    model, batch = make_for(LightGcn(dim=8, init_std=1e-3), mixed), batch_of(mixed, predict_first=True)
    positives = int((batch.targets_BT > 0).sum() + (batch.first_B > 0).sum())
    assert model(batch).total.item() == pytest.approx(positives * 4 * math.log(2), rel=1e-3)


def test_a_user_is_scored_by_their_vector_and_a_stranger_by_the_mean_of_their_history(mixed: Dataset):
    """User 1 of the dataset has no interaction: the graph does not know them."""
    model = make_for(LightGcn(dim=8), mixed).eval()
    with torch.no_grad():
        scores = model(queries([5, 0, mixed.users + 3, 1, 0], [[4, 5], [1, 2], [1, 2], [1, 2], []]))
        users, items = model.means()
    torch.testing.assert_close(scores[0], items @ users[4])
    for row in (1, 2, 3):
        torch.testing.assert_close(scores[row], items @ items[1:3].mean(0))
    assert not scores[4].any()


def test_without_a_graph_one_is_asked_for(tmp_path: Path):
    dataset = write(tmp_path / "bare", [[1, 2, 3, 4]], 5)
    run = a_run(dataset, tmp_path, LightGcn(), data=Data(negatives=4))
    shutil.rmtree(dataset.root / "graph")
    with pytest.raises(DatasetError, match=r"has no graph; make it with `kindling graph .*bare`"):
        graph_of(run, dataset)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"layers": 0}, r"model\.layers is 0; choose a positive number"),
        ({"edge_dropout": 1.0}, r"model\.edge_dropout is 1\.0; choose from 0"),
        ({"init_std": 0.0}, r"model\.init_std is 0\.0; choose a positive number"),
        ({"loss": LossWeights(bpr_user=1.0)}, r"bpr_user is bpr_context for lightgcn"),
        ({"loss": LossWeights(cross_entropy=0, l2=1.0)}, r"no term that compares items"),
    ],
)
def test_what_cannot_be_is_told_with_its_remedy(values: dict, told: str):
    with pytest.raises(ConfigError, match=told):
        dataclasses.replace(LightGcn(), **values)
