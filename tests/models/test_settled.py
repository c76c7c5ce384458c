"""What does not depend on the queries is computed once an evaluation, and never of weights of before."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rec.config.tree import Eval, LightGcn, LightGcnPart, Model
from rec.data.dataset import Dataset
from rec.eval.evaluate import Result, evaluate
from rec.models.base import Recommender, settled
from rec.models.saved import Saved
from rec.nn import propagate
from rec.ranks import Ranks
from rec.recommend import TrainedModel
from tests.small import batch_of, make_for, queries, soft_token

WITH_A_GRAPH: dict[str, Model] = {
    "gnn": soft_token("gpt2", gnn=LightGcnPart(loss=0.2)),
    "lightgcn": LightGcn(dim=8),
}
HALVES = {"gnn": 1, "lightgcn": 2}
"""Sides whose vectors are read."""


@pytest.fixture
def propagations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each side that is propagated to, over the whole graph."""
    found: list[int] = []
    original = propagate.mean_over_layers

    def counted(*given: object) -> Tensor:
        found.append(1)
        return original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(propagate, "mean_over_layers", counted)
    return found


def read(score: Callable, dataset: Dataset) -> Result:
    config = Eval(block=3, metrics=("ndcg@10", "popularity@5"))
    return evaluate(score, dataset, "valid", config=config, max_items=6, ranks=Ranks(), device=torch.device("cpu"))


@pytest.mark.parametrize("name", WITH_A_GRAPH)
def test_an_evaluation_propagates_once_whatever_the_blocks(mixed: Dataset, propagations: list[int], name: str):
    model = make_for(WITH_A_GRAPH[name], mixed)
    each = [model.eval()(queries([user], [[4, 5]])) for user in (1, 2)]
    assert len(propagations) == 2 * HALVES[name]  # a model that is not settled makes them in every call
    propagations.clear()
    once = read(model, mixed)
    assert len(mixed.queries("valid")) > 3 * 3
    assert len(propagations) == HALVES[name]
    assert once.means == read(lambda asked: model(asked), mixed).means  # nobody knows that a model is behind it
    with settled(model):
        assert all(torch.equal(model(queries([user], [[4, 5]])), each[user - 1]) for user in (1, 2))


@pytest.mark.parametrize("name", WITH_A_GRAPH)
def test_nothing_outlives_a_step_of_training(mixed: Dataset, propagations: list[int], name: str):
    model = make_for(WITH_A_GRAPH[name], mixed).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    before = read(model, mixed)
    assert model.training
    assert model.kept is None
    model(batch_of(mixed)).total.backward()
    optimizer.step()
    after = read(model, mixed)
    assert after.placed.ranks.tolist() != before.placed.ranks.tolist()
    again = make_for(WITH_A_GRAPH[name], mixed, seed=9)
    again.load_state_dict(model.state_dict())
    assert read(again, mixed).placed.ranks.tolist() == after.placed.ranks.tolist()


def test_gradients_reach_the_graph_whatever_was_kept(mixed: Dataset):
    model = make_for(WITH_A_GRAPH["gnn"], mixed).settle()
    with torch.no_grad():
        model(queries([1], [[4]]))
    assert model(queries([1], [[4]])).requires_grad


def test_inside_of_a_wrapper_and_after_an_error_it_is_as_before(mixed: Dataset):
    class Wrapper(nn.Module):
        def __init__(self, module: Recommender) -> None:
            super().__init__()
            self.module = module

    inside = make_for(WITH_A_GRAPH["gnn"], mixed).train()
    seen = []

    def fail() -> None:
        with settled(Wrapper(inside).train()):
            seen.append((inside.kept, inside.training))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [({}, False)]
    assert inside.training
    assert inside.kept is None
    with settled(inside.settle()):
        pass
    assert inside.kept == {}
    assert not inside.training


def test_a_loaded_model_propagates_once_in_its_life_and_again_for_other_weights(
    mixed: Dataset, propagations: list[int], tmp_path: Path
):
    model = make_for(WITH_A_GRAPH["gnn"], mixed)
    trained = TrainedModel(Saved(tmp_path, None, model, {}), torch.device("cpu"))  # type: ignore[arg-type]
    with torch.no_grad():
        first, _ = (trained.model(queries([1], [[4]])) for _ in range(2))
        assert len(propagations) == 1
        model.load_state_dict(make_for(WITH_A_GRAPH["gnn"], mixed, seed=9).state_dict())
        assert not torch.equal(trained.model(queries([1], [[4]])), first)
    assert len(propagations) == 2
