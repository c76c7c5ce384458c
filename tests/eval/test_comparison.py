"""A model beside the baselines: what is chosen on which split, what is written, and what is counted."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from rec.config.tree import Eval
from rec.data.batch import Queries
from rec.data.dataset import Dataset
from rec.eval.comparison import Comparison, compare, count_reading
from rec.eval.metrics import METRICS
from rec.models.base import Score
from rec.models.baselines import BASELINES
from rec.ranks import Ranks
from tests.eval import tiny
from tests.ranks import run_ranks

METRICS_ASKED = ("ndcg@10", "hit@5", "coverage@5", "popularity@5")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    random = np.random.default_rng(0)
    steps = [random.integers(1, 4, random.integers(4, 20)) for _ in range(80)]
    sequences = [(1 + (random.integers(0, 30) + np.cumsum(step)) % 30).tolist() for step in steps]
    return tiny.write(tmp_path / "data", sequences, items=30)


def measure(dataset: Dataset, ranks: Ranks = Ranks(), **more: object) -> Comparison:  # noqa: B008
    flat = lambda queries: torch.zeros(len(queries.user_B), dataset.items + 1)  # noqa: E731
    options = {"config": Eval(block=16), "max_items": 10, "ranks": ranks, "device": torch.device("cpu")}
    return compare(flat, dataset, "test", **options | {"metrics": METRICS_ASKED, "baselines": BASELINES, **more})  # type: ignore[arg-type]


def test_the_json_has_everything_and_survives_a_round_trip(dataset: Dataset) -> None:
    content = json.loads(json.dumps(measure(dataset).content(readings=2)))
    labels = [f"{name}[full]" for name in METRICS_ASKED]
    assert (content["split"], content["protocol"], content["queries"], content["readings"]) == ("test", "full", 80, 2)
    assert content["dataset"] == {"fingerprint": dataset.fingerprint, "split": dataset.split_name}
    assert list(content["metrics"]) == labels
    assert list(content["intervals"]) == [name for name in labels if not name.startswith("coverage")]
    assert list(content["baselines"]) == ["popularity", "recent_popularity", "item_knn", "rules"]
    assert all(list(means) == labels for means in content["baselines"].values())
    assert {part["bucket"] for part in content["slices"]["history"]} == {"1-4", "5-9", "10-19"}
    assert content["settings"]["rules"].keys() == {"window", "weighting", "decay"}


def test_the_table_shows_the_model_beside_the_baselines(dataset: Dataset) -> None:
    lines = measure(dataset).table(readings=1).splitlines()
    assert lines[0].startswith(
        f"test of data ({dataset.split_name}, fingerprint {dataset.fingerprint[:8]}): 80 queries"
    )
    assert lines[1].split() == [f"{name}[full]" for name in METRICS_ASKED]
    assert [line.split()[0] for line in lines[2:8]] == ["model", "95", *BASELINES]
    assert lines[-1] == "first reading of the test split by this run"
    assert "reading 3 of the test split" in measure(dataset).table(readings=3)


def test_known_successors_are_found_by_rules_and_not_by_popularity(dataset: Dataset) -> None:
    found = measure(dataset).baselines
    assert found["rules"].means["hit@5[full]"] > 0.6 > 2 * found["popularity"].means["hit@5[full]"]


class Stub(NamedTuple):
    score: Score
    settings: dict[str, float | str]


def test_baselines_are_chosen_by_ndcg_on_validation_alone(dataset: Dataset) -> None:
    """A scorer that knows `valid` beats one that knows `test`, whatever is reported afterwards."""

    def knowing(split: str) -> Score:
        def score(queries: Queries) -> Tensor:
            scores = torch.zeros(len(queries.user_B), dataset.items + 1)
            for row, user in enumerate(queries.user_B.tolist()):
                scores[row, int(dataset.targets(user, split)[0])] = 1  # type: ignore[arg-type]
            return scores

        return score

    def choose(data: Dataset, quality: object) -> Stub:
        qualities = {split: quality(knowing(split)) for split in ("valid", "test")}  # type: ignore[operator]
        assert qualities["valid"] > qualities["test"]
        best = max(qualities, key=qualities.__getitem__)
        return Stub(knowing(best), {"knows": best})

    found = measure(dataset, baselines={"stub": choose}, metrics=("hit@1",), protocol="uniform5")
    assert found.settings == {"stub": {"knows": "valid"}}
    assert found.baselines["stub"].means.keys() == {"hit@1[uniform5]"}


def test_without_a_validation_split_baselines_still_stand(tmp_path: Path) -> None:
    bounds = [(3, 3, 3, 3, 4)] * 6
    data = tiny.write(tmp_path / "bare", [[1, 2, 3, 4 + user] for user in range(6)], items=12, bounds=bounds)
    assert list(measure(data).baselines) == list(BASELINES)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_agree_on_everything(dataset: Dataset, world: int) -> None:
    alone = measure(dataset).content()
    for content in run_ranks(lambda ranks: measure(dataset, ranks).content(), world):
        assert content == alone


def test_readings_are_counted_by_split(tmp_path: Path) -> None:
    assert count_reading(tmp_path, "test", protocol="full", model="1f") == 1
    assert count_reading(tmp_path, "valid", protocol="full", model="1f") == 1
    assert count_reading(tmp_path, "test", protocol="uniform100", model="2e") == 2
    lines = [json.loads(line) for line in (tmp_path / "evaluations/test.jsonl").read_text().splitlines()]
    assert [(line["protocol"], line["model"]) for line in lines] == [("full", "1f"), ("uniform100", "2e")]
    assert all(line["time"].endswith("+00:00") for line in lines)


def test_every_metric_can_be_tabled(dataset: Dataset) -> None:
    names = [f"{name}@10" for name in (*METRICS, "coverage", "popularity", "head_share")]
    assert len(measure(dataset, metrics=names, baselines={}).table().splitlines()) == 4
