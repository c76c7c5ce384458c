"""A model's folder and the train graph: the one that it was trained with, and no other."""

import shutil
from pathlib import Path

import pytest

from rec.config.tree import LearnedRelations, Run
from rec.data.dataset import Dataset
from rec.errors import DatasetError
from rec.graph.build import build as build_graph
from rec.models import saved
from rec.models.base import Recommender
from tests.eval.tiny import write
from tests.small import a_run, graph_for, make_for, soft_token, writing


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write(tmp_path / "data", [[1, 2, 3, 4, 5], [2, 3, 1, 4], [5, 4, 3, 2, 1, 6]], 12)


def trained(dataset: Dataset, out: Path) -> tuple[Run, Recommender]:
    config = soft_token("gpt2", relations=LearnedRelations())
    return a_run(dataset, out, config), make_for(config, dataset)


def test_a_graph_that_was_made_anew_is_not_published_for_the_one_of_the_training(dataset: Dataset, tmp_path: Path):
    run, model = trained(dataset, tmp_path)
    about = {"step": 7, "graph": graph_for(dataset).fingerprint}
    build_graph(dataset, top=1)
    with pytest.raises(DatasetError, match=r"but run was trained with .* make it again with the --top it had"):
        saved.publish(run.folder / "model", run, model, writing(model), dataset, about)
    assert not (run.folder / "model").exists()
    graph_for(dataset)
    saved.publish(run.folder / "model", run, model, writing(model), dataset, about)
    assert saved.load(run.folder).about["graph"] == about["graph"]


def test_a_model_whose_graph_is_gone_does_not_take_that_of_the_dataset(dataset: Dataset, tmp_path: Path):
    run, model = trained(dataset, tmp_path)
    saved.publish(run.folder / "model", run, model, writing(model), dataset, {"step": 7})
    shutil.rmtree(run.folder / "model/graph")
    with pytest.raises(DatasetError, match=r"model has no graph; remove .*model and type `kindling train`"):
        saved.load(run.folder)
