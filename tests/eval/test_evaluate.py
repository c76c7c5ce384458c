"""A whole split against a slow twin; on one to four ranks; and what must never be forgiven."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rec.config.tree import Eval
from rec.data.batch import Queries
from rec.data.dataset import Dataset
from rec.errors import ConfigError, DatasetError
from rec.eval.blocks import drawn, evenly_spaced
from rec.eval.evaluate import Result, evaluate, validation
from rec.eval.metrics import METRICS
from rec.models.base import Asked, Score
from rec.models.scores import Table
from rec.ranks import Ranks
from tests.eval import tiny
from tests.ranks import run_ranks
from tests.small import queries

CPU = torch.device("cpu")
ALL = tuple(f"{name}@{cutoff}" for name in METRICS for cutoff in (1, 5, 10))


def read(score: Score, dataset: Dataset, split: str = "test", **more: object) -> Result:
    options = {"config": Eval(block=7, metrics=ALL), "max_items": 5, "ranks": Ranks(), "device": CPU, **more}
    return evaluate(score, dataset, split, **options)  # type: ignore[arg-type]


def hashed(items: int) -> Score:
    """Scores that depend on the user, on what is shown of the history, and on the item; with many ties."""

    def score(queries: Queries) -> Tensor:
        shown = (queries.history_BT * torch.arange(1, queries.history_BT.shape[1] + 1)).sum(1)
        mixed = (queries.user_B * 31 + shown * 17)[:, None] * torch.arange(1, items + 2)
        return (mixed % 23).double()

    return score


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """53 users in a split of every shape: none, one or several targets, cold users, repetitions, seen targets."""
    random = np.random.default_rng(5)
    sequences, bounds = [], []
    for user in range(53):
        length = int(random.integers(2, 25))
        sequences.append(random.integers(1, 31, length).tolist())
        cuts = sorted(random.integers(0, length + 1, 3).tolist())
        cuts[0] = 0 if user % 9 == 0 else cuts[0]
        bounds.append((cuts[0], cuts[0], cuts[1], cuts[1], cuts[2] if user % 7 else cuts[1]))
    return tiny.write(tmp_path / "data", sequences, items=30, bounds=bounds)


def slow(score: Score, dataset: Dataset, split: str, metric: str, filter_seen: bool) -> float:
    """One user after the other, a sort, and the formulas again."""
    name, cutoff = metric.split("@")
    values = []
    for user in dataset.queries(split).tolist():  # type: ignore[arg-type]
        history = dataset.history(user, split).tolist()  # type: ignore[arg-type]
        targets = set(dataset.targets(user, split).tolist())  # type: ignore[arg-type]
        known = user if len(dataset.train_items(user)) else 0
        shown = torch.tensor([history[-5:] or [0]])
        scores = score(Queries(torch.tensor([known]), shown, torch.zeros_like(shown)))[0].tolist()
        among = [item for item in range(1, dataset.items + 1) if not (filter_seen and item in history)]
        order = sorted(among, key=lambda item: (-scores[item], item in targets))[: int(cutoff)]
        gains = [int(item in targets) for item in order]
        dcg = sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))
        ideal = sum(1 / math.log2(place + 2) for place in range(min(int(cutoff), len(targets))))
        values.append({"recall": sum(gains) / len(targets), "ndcg": dcg / ideal, "hit": float(any(gains))}[name])
    return float(np.mean(values))


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("filter_seen", [True, False])
def test_a_split_is_what_the_slow_twin_says(dataset: Dataset, split: str, filter_seen: bool) -> None:
    score = hashed(dataset.items)
    result = read(score, dataset, split, config=Eval(block=7, metrics=ALL, filter_seen=filter_seen))
    for metric in ("recall@5", "ndcg@10", "hit@1", "ndcg@5"):
        expected = slow(score, dataset, split, metric, filter_seen)
        assert result.means[f"{metric}[full]"] == pytest.approx(expected, abs=1e-12)
    assert (result.masked_share > 0) == filter_seen


def test_every_query_is_counted_once_cold_users_too(dataset: Dataset) -> None:
    result = read(hashed(30), dataset)
    assert result.users.tolist() == dataset.queries("test").tolist()
    assert (result.lengths == 0).any()
    targets = [set(dataset.targets(user, "test").tolist()) for user in result.users.tolist()]
    assert result.placed.targets.tolist() == [len(mine) for mine in targets]
    histories = [set(dataset.history(user, "test").tolist()) for user in result.users.tolist()]
    assert result.masked.tolist() == [len(mine & seen) for mine, seen in zip(targets, histories, strict=True)]


def test_a_user_without_training_is_asked_about_as_a_stranger(dataset: Dataset) -> None:
    asked = {}

    def score(queries: Queries) -> Tensor:
        for user, history in zip(queries.user_B.tolist(), queries.history_BT.tolist(), strict=True):
            asked.setdefault(user, []).append([item for item in history if item])
        return torch.zeros(len(queries.user_B), 31)

    read(score, dataset)
    trained = [user for user in dataset.queries("test").tolist() if len(dataset.train_items(user))]
    assert sorted(user for user in asked if user) == trained
    assert len(asked[0]) == len(dataset.queries("test")) - len(trained) > 0
    assert all(asked[user] == [dataset.history(user, "test")[-5:].tolist()] for user in trained)


@given(st.integers(1, 60), st.integers(0, 10))
@settings(max_examples=15, deadline=None)
def test_blocks_do_not_change_the_result(tmp_path_factory: pytest.TempPathFactory, block: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    sequences = [random.integers(1, 21, random.integers(3, 12)).tolist() for _ in range(17)]
    data = tiny.write(tmp_path_factory.mktemp("data") / "set", sequences, items=20)
    whole, cut = (read(hashed(20), data, config=Eval(block=size, metrics=ALL)) for size in (100, block))
    assert whole.means == cut.means
    assert whole.placed.ranks.tolist() == cut.placed.ranks.tolist()


@pytest.mark.parametrize("value", [0.0, -5.0, 1e30])
@pytest.mark.parametrize("protocol", ["full", "uniform20", "popularity12"])
def test_a_constant_model_scores_exactly_zero(tmp_path: Path, value: float, protocol: str) -> None:
    random = np.random.default_rng(1)
    sequences = [random.permutation(np.arange(1, 61))[:8].tolist() for _ in range(40)]
    data = tiny.write(tmp_path / "data", sequences, items=60)
    constant = lambda queries: torch.full((len(queries.user_B), 61), value)  # noqa: E731
    for split in ("valid", "test"):
        means = read(constant, data, split, protocol=protocol).means
        assert set(means.values()) == {0.0}
    upstream = read(constant, data, protocol="upstream20").means
    assert upstream["ndcg@10[upstream20]"] == upstream["hit@1[upstream20]"] == 1


def test_a_random_model_is_at_chance_under_every_protocol(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    sequences = [random.permutation(np.arange(1, 201))[:10].tolist() for _ in range(3000)]
    data = tiny.write(tmp_path / "data", sequences, items=200)
    generator = torch.Generator().manual_seed(0)
    score = lambda queries: torch.rand(len(queries.user_B), 201, generator=generator)  # noqa: E731
    for protocol, candidates in (("full", 191), ("uniform50", 51), ("popularity50", 51), ("upstream50", 51)):
        result = read(score, data, protocol=protocol, config=Eval(block=500, metrics=("hit@10",)))
        chance = 10 / candidates
        spread = math.sqrt(chance * (1 - chance) / 3000)
        assert abs(result.means[f"hit@10[{protocol}]"] - chance) < 4 * spread


def test_a_model_that_knows_scores_one(dataset: Dataset) -> None:
    def oracle(queries: Queries) -> Tensor:
        scores = torch.zeros(len(queries.user_B), 31)
        for row, user in enumerate(queries.user_B.tolist()):
            scores[row, torch.from_numpy(dataset.targets(user, "test").astype(np.int64))] = 1
        return scores

    result = read(oracle, dataset, config=Eval(block=7, metrics=ALL, filter_seen=False))
    known = dataset.bounds[result.users, 0] > 0
    assert result.values(result.metrics[1])[known].tolist() == [1] * int(known.sum())


PROTOCOLS = ("full", "uniform5", "upstream5")
LISTS = ("coverage@5", "popularity@5", "head_share@3")


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_any_number_of_ranks_gives_the_same_result_on_every_rank(dataset: Dataset, world: int) -> None:
    def work(ranks: Ranks) -> list[dict[str, float]]:
        lists = Eval(block=7, metrics=(*ALL, *LISTS))
        found = [read(hashed(30), dataset, ranks=ranks, config=lists).means]
        return found + [read(hashed(30), dataset, ranks=ranks, protocol=name).means for name in PROTOCOLS]

    expected = work(Ranks())
    for found in run_ranks(work, world):
        assert found == expected  # to the last bit, and so to 1e-9


def test_more_ranks_than_blocks_call_the_model_equally_often(tmp_path: Path) -> None:
    """A sharded model can only be called by all ranks together."""
    data = tiny.write(tmp_path / "data", [[1, 2, 3], [2, 3, 4], [3, 4, 5]], items=30)

    def work(ranks: Ranks) -> tuple[int, int, dict[str, float]]:
        calls = []

        def score(queries: Queries) -> Tensor:
            calls.append(ranks.sum(torch.ones(1)))
            return hashed(30)(queries)

        result = read(score, data, ranks=ranks, config=Eval(block=2, metrics=ALL))
        return len(calls), result.queries, result.means

    assert run_ranks(work, 3) == [(1, 3, work(Ranks())[2])] * 3


def test_a_score_that_is_not_finite_on_one_rank_ends_all_ranks(dataset: Dataset) -> None:
    wrong = max(user for user in dataset.queries("test").tolist() if len(dataset.train_items(user)))

    def work(ranks: Ranks) -> str:
        def score(queries: Queries) -> Tensor:
            return hashed(30)(queries).masked_fill((queries.user_B == wrong)[:, None], math.nan)

        with pytest.raises(FloatingPointError) as caught:
            read(score, dataset, ranks=ranks)
        return str(caught.value)

    expected = f"30 of the 30 scores of user 'u{wrong}' are not finite"
    assert run_ranks(work, 3) == [expected] * 3
    assert work(Ranks()) == expected


class Dropped(nn.Module):
    """Remembers in which mode it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, asked: Asked) -> object:
        return asked.answer(Table(self.score(asked.queries)))

    def score(self, queries: Queries) -> Tensor:
        self.modes.append((self.training, torch.is_grad_enabled()))
        return torch.zeros(len(queries.user_B), 31)


@pytest.mark.parametrize("reach", [lambda module: module, lambda module: module.score])
def test_a_model_is_asked_in_evaluation_mode_and_left_as_it_was(dataset: Dataset, reach: Callable) -> None:
    module = Dropped().train()
    read(reach(module), dataset)
    assert set(module.modes) == {(False, False)}
    assert module.training
    read(reach(module.eval()), dataset)
    assert not module.training


def test_validation_has_what_the_loop_asks_for_by_plain_name(dataset: Dataset) -> None:
    config = Eval(select="mrr@7", metrics=("ndcg@10", "recall@10"), block=9)
    found = validation(hashed(30), dataset, config=config, max_items=5, ranks=Ranks(), device=CPU, seed=0)
    assert list(found) == ["mrr@7", "ndcg@10", "recall@10", "users"]
    assert found["users"] == len(dataset.queries("valid"))
    assert found["ndcg@10"] == read(hashed(30), dataset, "valid").means["ndcg@10[full]"]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_of_some_users_is_of_the_same_ones_each_time_on_any_number_of_ranks(dataset: Dataset, world: int):
    config, everybody = Eval(select="mrr@7", metrics=("ndcg@10",), block=3, users=8), dataset.queries("valid")
    some = [
        read(hashed(30), dataset, "valid", users=drawn(everybody, 8, seed), metrics=("mrr@7",)) for seed in range(3)
    ]
    assert all(found.queries == 8 for found in some)
    assert len({found.users.tobytes() for found in some}) == 3

    def work(ranks: Ranks) -> list[dict[str, float]]:
        return [
            validation(hashed(30), dataset, config=config, max_items=5, ranks=ranks, device=CPU, seed=seed)
            for seed in (0, 0, 1)
        ]

    for found in run_ranks(work, world):
        assert [figures["mrr@7"] for figures in found] == [some[seed].means["mrr@7[full]"] for seed in (0, 0, 1)]
        assert {figures["users"] for figures in found} == {8}


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_who_is_drawn_is_among_more_who_are_and_everybody_in_all(few: int, more: int, seed: int):
    users = np.arange(3, 53)
    some, others = drawn(users, few, seed).tolist(), drawn(users, few + more, seed).tolist()
    assert some == sorted(set(some))
    assert len(some) == min(few, 50)
    assert set(some) <= set(others) <= set(users.tolist())


def test_sampled_candidates_are_far_easier_and_say_so(dataset: Dataset) -> None:
    full = read(hashed(30), dataset).means["recall@5[full]"]
    assert read(hashed(30), dataset, protocol="uniform5").means["recall@5[uniform5]"] > full


def test_some_queries_are_spread_over_all_and_each_is_as_before(dataset: Dataset) -> None:
    whole, some = read(hashed(30), dataset), read(hashed(30), dataset, users=evenly_spaced(dataset.queries("test"), 10))
    assert some.queries == 10
    assert (
        np.abs(np.interp(some.users, whole.users, range(whole.queries)) - np.arange(10) * whole.queries / 10).max() < 1
    )
    kept = np.isin(whole.users, some.users)
    assert (whole.values(whole.metrics[2])[kept] == some.values(some.metrics[2])).all()
    assert evenly_spaced(whole.users, 1000).tolist() == whole.users.tolist()


def test_an_upstream_target_is_a_candidate_even_where_the_history_has_it(dataset: Dataset) -> None:
    assert read(hashed(30), dataset).masked_share > 0
    assert read(hashed(30), dataset, protocol="uniform5").masked_share > 0
    assert read(hashed(30), dataset, protocol="upstream5").masked_share == 0


def test_exposure_is_that_of_the_lists(dataset: Dataset) -> None:
    result = read(hashed(30), dataset, metrics=("coverage@3", "popularity@3", "head_share@3"))
    lists = []
    for user in dataset.queries("test").tolist():
        known = user if len(dataset.train_items(user)) else 0
        history = dataset.history(user, "test").tolist()
        scores = hashed(30)(queries([known], [history[-5:] or [0]]))[0].tolist()
        among = sorted(set(range(1, 31)) - set(history), key=lambda item: (-scores[item], item))
        lists.append(among[:3])
    assert result.lists_QK.tolist() == lists
    counts = dataset.train_counts
    head = sorted(range(1, 31), key=lambda item: (-counts[item], item))[:6]
    assert result.means["coverage@3[full]"] == len({item for row in lists for item in row}) / 30
    assert result.means["popularity@3[full]"] == pytest.approx(np.mean([counts[row].mean() for row in lists]))
    assert result.means["head_share@3[full]"] == pytest.approx(np.mean([np.isin(row, head).mean() for row in lists]))


def test_what_cannot_be_asked_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="need the protocol full"):
        read(hashed(30), dataset, protocol="uniform5", metrics=("coverage@10",))
    with pytest.raises(ConfigError, match="choose valid or test"):
        read(hashed(30), dataset, "train")
    with pytest.raises(DatasetError, match="no targets in the split 'valid'"):
        read(hashed(30), tiny.write(tmp_path / "short", [[1, 2], [2]], items=30), "valid")
    with pytest.raises(ValueError, match="expected \\(7, 31\\)"):
        read(hashed(29), dataset)
