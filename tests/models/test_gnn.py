"""The graph network beside the sequence: the contract of both, and that no target is read through the graph."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from launch.train import execute
from rec.config.tree import Data, Eval, LearnedRelations, LightGcnPart, LossWeights, Optim, Train
from rec.data.batch import Sequences
from rec.data.dataset import Dataset
from rec.errors import ConfigError
from rec.graph.graph import Graph
from rec.models.base import Recommender
from rec.models.gnn import Gnn
from tests.contract import RecommenderContract
from tests.eval.tiny import write
from tests.small import EVERYTHING, a_run, batch_of, graph_for, make, make_for, queries, soft_token

GNN = LightGcnPart(loss=0.2)


class TestBoth(RecommenderContract):
    config = soft_token("gpt2", loss=EVERYTHING, dropout=0.2, user_dropout=0.3, predict_first=True, gnn=GNN)
    learns = soft_token("qwen3", gnn=LightGcnPart(edge_dropout=0.1))

    def weight(self, part: str) -> float:
        return GNN.loss if part == "gnn" else super().weight(part)


class TestWithoutUserTokenAndWithoutALossOfItsOwn(RecommenderContract):
    config = soft_token("gpt2", user_token=False, gnn=LightGcnPart(loss=0.0, layers=3, edge_dropout=0.1))
    learns = soft_token("gpt2", user_token=False, gnn=LightGcnPart(loss=0.0, layers=1))


class TestDrawn(RecommenderContract):
    """Some neighbours of the items of a batch, instead of the whole graph."""

    config = soft_token(
        "gpt2",
        loss=dataclasses.replace(EVERYTHING, cross_entropy=0.0),
        predict_first=True,
        relations=LearnedRelations(),
        gnn=LightGcnPart(loss=0.2, layers=3, fan_out=2),
    )
    learns = soft_token(
        "gpt2", loss=LossWeights(cross_entropy=0.0, sampled_softmax=1.0), gnn=LightGcnPart(layers=3, fan_out=3)
    )

    def weight(self, part: str) -> float:
        return 0.2 if part == "gnn" else super().weight(part)


def test_a_fan_out_of_all_neighbours_gives_the_loss_and_the_gradients_of_the_whole_graph(mixed: Dataset):
    loss = dataclasses.replace(EVERYTHING, cross_entropy=0.0)
    results = []
    for fan_out in (0, 1000):
        part = LightGcnPart(layers=3, fan_out=fan_out)
        results.append(loss_and_gradients(make_for(soft_token("gpt2", loss=loss, gnn=part), mixed), batch_of(mixed)))
    for drawn, whole in zip(*results, strict=True):
        torch.testing.assert_close(drawn, whole, rtol=1e-4, atol=1e-5)


def test_an_item_enters_and_is_scored_with_its_own_vector_and_its_nodes(mixed: Dataset):
    model = make_for(soft_token("gpt2", gnn=GNN), mixed).eval()
    with torch.no_grad():
        model.gnn.gate.copy_(torch.linspace(-1, 1, 16))
        nodes = model.gnn.propagation(model.gnn.tables.user.weight, model.gnn.tables.item.weight).item_ID
        items = model.tables.item.weight + model.gnn.gate * nodes
        scores = model(queries([3], [[4, 5]]))
        plain = make_for(soft_token("gpt2"), mixed).eval()
        plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("gnn.")})
        plain.tables.item.weight.copy_(items)
        torch.testing.assert_close(scores, plain(queries([3], [[4, 5]])))


def test_its_own_loss_is_bpr_of_users_that_are_no_nodes_with_items_that_are(mixed: Dataset):
    model, batch = make_for(soft_token("gpt2", gnn=GNN), mixed), batch_of(mixed)
    nodes, table = model.gnn.items(batch), model.gnn.tables.user.weight
    expected = torch.zeros(())
    for row, user in enumerate(batch.user_B.tolist()):
        for item in batch.targets_BT[row].tolist():
            for negative in batch.negatives_BK[row].tolist() if item else []:
                expected = expected - torch.log(torch.sigmoid(table[user - 1] @ (nodes[item] - nodes[negative])))
    expected = expected / batch.negatives_BK.shape[1]
    torch.testing.assert_close(model(batch).parts["gnn"], expected.detach(), rtol=1e-5, atol=1e-5)


def rewired(dataset: Dataset, users: set[int], root: Path) -> Graph:
    """The graph of a dataset in which these users had other items."""
    random = np.random.default_rng(0)
    sequences = [
        random.permutation(dataset.items)[: len(row)] + 1 if user in users else row
        for user in range(1, dataset.users + 1)
        for row in [dataset.item_rows[dataset.offsets[user] : dataset.offsets[user + 1]]]
    ]
    return graph_for(write(root, sequences, dataset.items))


def loss_and_gradients(model: Recommender, batch) -> list[torch.Tensor]:
    loss = model(batch)
    loss.total.backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [loss.total.detach(), *loss.parts.values(), *gradients]


@pytest.mark.parametrize("part", [LightGcnPart(layers=3, edge_dropout=0.2), LightGcnPart(layers=3, fan_out=2)])
def test_no_bit_of_loss_or_gradient_hangs_on_edges_of_the_users_of_the_step(
    mixed: Dataset, tmp_path: Path, part: LightGcnPart
):
    """Of the whole step: each micro-batch hides the users of the others, too."""
    weights = dataclasses.replace(EVERYTHING, cross_entropy=0.0 if part.fan_out else 1.0)
    config = soft_token("gpt2", loss=weights, predict_first=True, gnn=part)
    batch = batch_of(mixed, predict_first=True, size=8)
    of_step = set(batch.step_users_S.tolist())
    assert of_step == set(batch.user_B.tolist())
    others = set(range(1, mixed.users + 1)) - of_step
    graphs = {name: rewired(mixed, users, tmp_path / name) for name, users in (("own", of_step), ("others", others))}
    micro = batch.take([0, 1])
    found = {
        name: loss_and_gradients(make(config, mixed.users, mixed.items, graph=one), micro)
        for name, one in {"as it is": graph_for(mixed), **graphs}.items()
    }
    assert all(torch.equal(a, b) for a, b in zip(found["as it is"], found["own"], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(found["as it is"], found["others"], strict=True))


@pytest.mark.parametrize("shared", [False, True])
def test_windows_that_are_taken_hide_the_users_of_the_whole_step(mixed: Dataset, shared: bool):
    """Also where these are as many as the windows, and where negatives are shared."""
    batch = batch_of(mixed, size=8)
    batch = batch._replace(step_users_S=torch.arange(1, 9))
    if shared:
        batch = batch._replace(negatives_BK=batch.negatives_BK[:1], log_q_BK=batch.log_q_BK[:1])
    some = batch.take([5, 2])
    assert some.step_users_S.tolist() == batch.step_users_S.tolist()
    assert torch.equal(some.negatives_BK, batch.negatives_BK if shared else batch.negatives_BK[[5, 2]])
    assert torch.equal(some.items_BT, batch.items_BT[[5, 2]])


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Nothing can be learnt of anybody: 600 users have 5 of 2,000 items at random, of which they train on 3."""
    random = np.random.default_rng(5)
    walks = [random.permutation(2000)[:5] + 1 for _ in range(600)]
    dataset = write(tmp_path_factory.mktemp("noise") / "log", walks, 2000)
    graph_for(dataset)
    return dataset


def losses_of_an_epoch(dataset: Dataset, out: Path) -> tuple[list[float], float]:
    """Cross-entropy in each step of the first epoch, whose targets nobody has met before; NDCG@10 after it."""
    run = a_run(
        dataset, out, soft_token("gpt2", dim=32, init_std=0.1, user_token=False, gnn=LightGcnPart(layers=3)),
        data=Data(global_batch=20, micro_batch=10, max_items=8, negatives=16),
        optim=Optim(lr=0.02, schedule="constant"), train=Train(steps=30, log_every=1, trackers=()),
        eval=Eval(select="ndcg@10"),
    )  # fmt: skip
    assert execute(run) == 0
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    validation = next(line["valid/ndcg@10"] for line in lines if "valid/ndcg@10" in line)
    return [line["train/cross_entropy"] for line in lines if "train/cross_entropy" in line], validation


def test_where_nothing_can_be_learnt_nothing_is_unless_the_users_of_the_step_are_shown(
    noise: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Chance is ln 2000 for the loss and 0.002 for NDCG@10. Shown their own edges, positions read their targets."""
    monkeypatch.setattr("rec.models.gnn.GATE", 1.0)
    hidden, validation = losses_of_an_epoch(noise, tmp_path / "hidden")
    assert np.mean(hidden[-10:]) > np.log(2000) - 0.02
    assert validation < 0.03
    original = Gnn.items

    def shown(gnn: Gnn, batch: Sequences | None) -> torch.Tensor:
        nobody = torch.zeros(0, dtype=torch.int64)
        return original(gnn, None if batch is None else batch._replace(step_users_S=nobody))

    monkeypatch.setattr(Gnn, "items", shown)
    leaking, validation = losses_of_an_epoch(noise, tmp_path / "shown")
    assert np.mean(leaking[-10:]) < np.log(2000) - 0.15
    assert validation < 0.03


def test_settings_that_cannot_be_are_told_with_their_remedy(mixed: Dataset, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"model\.gnn\.layers is 0; choose a positive number"):
        LightGcnPart(layers=0)
    with pytest.raises(ConfigError, match=r"model\.gnn\.fan_out is -1; choose 0"):
        LightGcnPart(fan_out=-1)
    with pytest.raises(ConfigError, match="both leave edges out; set one of them to 0"):
        LightGcnPart(fan_out=3, edge_dropout=0.1)
    with pytest.raises(ConfigError, match=r"cross_entropy reads all; set it to 0"):
        soft_token(gnn=LightGcnPart(fan_out=3))
    with pytest.raises(ConfigError, match=r"model\.gnn\.loss is -1; choose 0 or more"):
        LightGcnPart(loss=-1)
    with pytest.raises(ConfigError, match=r"data\.negatives is 0; set data\.negatives"):
        a_run(mixed, tmp_path, soft_token(gnn=GNN))
