"""A model that reads the train graph must not find its targets there, where there is nothing else to find.

Every user draws again and again from five items of his own: what comes next is as likely any of the five, whatever came
before. In the train graph all his transitions are counted, the coming ones, too: who sees that j follows i more often
than chance has it is told what comes next.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from rec.config.tree import Data, LearnedRelations
from rec.data.dataset import Dataset
from rec.data.feed import Feed
from rec.data.views import NextItems, queries
from rec.nn import relations
from rec.nn.places import Places
from rec.ranks import Ranks
from tests.eval.tiny import write
from tests.small import graph_for, make, soft_token

USERS, ITEMS, OWN, LENGTH, BATCH = 1600, 400, 5, 16, 16
NOISE = 0.05
"""Nats that two models with equal prospects may differ by."""


@pytest.fixture(scope="module")
def draws(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    random = np.random.default_rng(11)
    log = [random.choice(random.permutation(ITEMS)[:OWN] + 1, LENGTH) for _ in range(USERS)]
    return write(tmp_path_factory.mktemp("noise") / "draws", log, ITEMS)


def losses(dataset: Dataset, top: int) -> tuple[float, float]:
    """Nats a target: in the last fifth of an epoch, each window before it is learnt from, and in validation."""
    config = soft_token("gpt2", dim=32, relations=LearnedRelations(), user_token=False, init_std=0.5)
    model = make(config, dataset.users, dataset.items, graph=graph_for(dataset, top))
    assert model.relations is not None
    fast = list(model.relations.parameters())
    slow = [parameter for name, parameter in model.named_parameters() if not name.startswith("relations.")]
    optimizer = torch.optim.Adam([{"params": slow, "lr": 1e-2}, {"params": fast, "lr": 0.1}])
    data = Data(global_batch=BATCH, micro_batch=BATCH, max_items=LENGTH, prefetch=0)
    feed = Feed(NextItems(dataset, data, predict_first=False, seed=1), data, seed=1, ranks=Ranks())
    measured = []
    for step in range(USERS // BATCH):
        (batch,) = feed.step(step).batches
        loss = model(batch).total / (batch.targets_BT > 0).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        measured.append(loss.item())
    feed.close()
    users = np.arange(1, USERS + 1)
    target = torch.tensor([int(dataset.item_rows[dataset.offsets[user] + LENGTH - 2]) for user in users])
    with torch.no_grad():
        scores = model.eval()(queries(dataset, users, "valid", LENGTH))
    valid = torch.nn.functional.cross_entropy(scores[:, 1:], target - 1).item()
    return float(np.mean(measured[-len(measured) // 5 :])), valid


def nothing_found(places: Places, *_: object) -> Tensor:
    return torch.zeros(*places.item_BT.shape, places.item_BT.shape[1], dtype=torch.uint8)


def nothing_owned(_: object, __: object, item_BT: Tensor) -> Tensor:
    return torch.zeros_like(item_BT, dtype=torch.bool)


@pytest.mark.parametrize("top", [8, 32])
def test_the_graph_tells_nothing_of_what_comes_next_unless_the_own_share_stays_in_it(
    draws: Dataset, top: int, monkeypatch: pytest.MonkeyPatch
):
    train, valid = losses(draws, top)
    with monkeypatch.context() as patched:
        patched.setattr(Places, "dealt", nothing_found)
        without_train, without_valid = losses(draws, top)
    assert train == pytest.approx(without_train, abs=NOISE)
    assert valid == pytest.approx(without_valid, abs=NOISE)
    monkeypatch.setattr(relations, "_owned", nothing_owned)
    leaking, _ = losses(draws, top)
    assert leaking < without_train - 3 * NOISE
