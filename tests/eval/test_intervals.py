"""Intervals against resampling by hand and the normal approximation; slices against a filter."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rec.config.tree import Eval
from rec.eval import intervals as module
from rec.eval.evaluate import Result, evaluate
from rec.eval.intervals import bootstrap, intervals, slices
from rec.ranks import Ranks
from tests.eval import tiny


@pytest.fixture
def result(tmp_path: Path) -> Result:
    random = np.random.default_rng(0)
    sequences = [random.integers(1, 31, random.integers(3, 70)).tolist() for _ in range(60)]
    data = tiny.write(tmp_path / "data", sequences, items=40)
    scores = torch.from_numpy(random.random((61, 41)))
    return evaluate(
        lambda queries: scores[queries.user_B], data, "test", config=Eval(metrics=("ndcg@10", "hit@5", "coverage@5")),
        max_items=50, ranks=Ranks(), device=torch.device("cpu"),
    )  # fmt: skip


def test_an_interval_is_as_wide_as_the_normal_approximation_says() -> None:
    values = np.random.default_rng(0).random((4000, 2)) * [1, 10]
    bounds = bootstrap(values)
    half = 1.96 * values.std(0) / math.sqrt(4000)
    np.testing.assert_allclose(bounds[:, 0], values.mean(0) - half, atol=0.15 * half.max())
    np.testing.assert_allclose((bounds[:, 1] - bounds[:, 0]) / (2 * half), 1, atol=0.1)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    bounds = [bootstrap((random.random((200, 1)) < 0.3).astype(float), seed=n, resamples=400)[0] for n in range(300)]
    covered = np.mean([low <= 0.3 <= high for low, high in bounds])
    assert 0.90 < covered < 0.98


def test_the_same_seed_gives_the_same_interval_in_any_number_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((100, 3))
    whole = bootstrap(values, seed=4)
    assert (bootstrap(values, seed=4) == whole).all()
    assert (bootstrap(values, seed=5) != whole).any()
    monkeypatch.setattr(module, "CELLS", 700)
    np.testing.assert_allclose(bootstrap(values, seed=4), whole)


def test_a_certain_value_has_no_width() -> None:
    assert bootstrap(np.full((50, 1), 0.25)).tolist() == [[0.25, 0.25]]


def test_a_mean_lies_in_its_interval_and_coverage_has_none(result: Result) -> None:
    found = intervals(result)
    assert list(found) == ["ndcg@10[full]", "hit@5[full]"]
    for name, (low, high) in found.items():
        assert low <= result.means[name] <= high


def test_slices_are_all_queries_each_once(result: Result) -> None:
    for parts in slices(result).values():
        assert sum(part.queries for part in parts) == result.queries
        for name in ("ndcg@10[full]", "hit@5[full]"):
            again = sum(part.queries * part.means[name] for part in parts) / result.queries
            assert again == pytest.approx(result.means[name])


def test_slices_by_history_are_those_of_a_filter(result: Result) -> None:
    values = result.values(result.metrics[0])
    lengths = np.array([len(result.dataset.history(user, "test")) for user in result.users.tolist()])
    parts = {part.bucket: part for part in slices(result)["history"]}
    assert list(parts) == ["1-4", "5-9", "10-19", "20-49", "50-99"]
    inside = (lengths >= 10) & (lengths <= 19)
    assert parts["10-19"].queries == inside.sum()
    assert parts["10-19"].means["ndcg@10[full]"] == pytest.approx(values[inside].mean())


def test_slices_by_target_use_training_counts(tmp_path: Path) -> None:
    """Users 1 and 2 have a target that is never trained on, user 3 one with two training interactions."""
    data = tiny.write(tmp_path / "data", [[1, 2, 3, 9], [1, 2, 3, 8], [2, 4, 3, 1]], items=9)
    score = lambda queries: torch.arange(10.0).repeat(len(queries.user_B), 1)  # noqa: E731
    config = Eval(metrics=("hit@1",))
    found = evaluate(score, data, "test", config=config, max_items=5, ranks=Ranks(), device=torch.device("cpu"))
    parts = slices(found)["target_popularity"]
    assert [(part.bucket, part.queries, part.means["hit@1[full]"]) for part in parts] == [
        ("0", 2, 0.5),
        ("1-4", 1, 0.0),
    ]


def test_the_last_bucket_is_open(result: Result) -> None:
    assert module._name((0, 1, 5), 2) == "5+"
    assert module._name((0, 1, 5), 0) == "0"
    assert module._name((0, 1, 5), 1) == "1-4"
