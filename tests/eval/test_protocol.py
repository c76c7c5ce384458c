"""Who the targets are ranked among."""

import math
from pathlib import Path

import numpy as np
import pytest

from rec.data.dataset import Dataset
from rec.errors import ConfigError
from rec.eval.protocol import Protocol, Sampler, parse
from tests.eval import tiny


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    random = np.random.default_rng(0)
    sequences = [random.integers(1, 41, length).tolist() for length in (12, 3, 8, 20, 5)]
    return tiny.write(tmp_path / "data", sequences, items=60)


def everything(dataset: Dataset, user: int) -> set[int]:
    return set(dataset.item_rows[dataset.offsets[user] : dataset.offsets[user + 1]].tolist())


@pytest.mark.parametrize("text", ["full", "uniform100", "popularity7", "upstream100"])
def test_names_round_trip(text: str) -> None:
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [("uniform", "did you mean 'uniform100'"), ("uni0", "unknown"), ("full100", "unknown"), ("x", "choose")],
)
def test_an_unknown_protocol_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text)


@pytest.mark.parametrize("kind", ["uniform", "popularity", "upstream"])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_negatives_are_distinct_and_none_of_the_users_own(dataset: Dataset, kind: str, split: str) -> None:
    for user in range(1, dataset.users + 1):
        drawn = Sampler.of(Protocol(kind, 5), dataset, split, seed=3).draw(user).tolist()  # type: ignore[arg-type]
        assert len(set(drawn)) == 5
        assert all(1 <= item <= 60 for item in drawn)
        mine = everything(dataset, user)
        if kind == "upstream" and split == "valid":
            mine = {*dataset.history(user, "valid").tolist(), *dataset.targets(user, "valid").tolist()}
        assert not mine & set(drawn)
        many = [Sampler.of(Protocol(kind, 5), dataset, split, seed).draw(user) for seed in range(60)]  # type: ignore[arg-type]
        assert not mine & set(np.concatenate(many).tolist())


def test_uniform_draws_are_uniform(tmp_path: Path) -> None:
    dataset = tiny.write(tmp_path / "data", [[3, 3, 3]], items=6)
    drawn = [Sampler.of(Protocol("uniform", 1), dataset, "test", seed).draw(1)[0] for seed in range(2000)]
    shares = np.bincount(drawn, minlength=7)[[1, 2, 4, 5, 6]] / 2000
    assert np.abs(shares - 0.2).max() < 4 * math.sqrt(0.2 * 0.8 / 2000)


def test_upstream_negatives_of_validation_may_hold_the_test_item(dataset: Dataset) -> None:
    possible = set()
    for seed in range(100):
        possible |= set(Sampler.of(Protocol("upstream", 10), dataset, "valid", seed).draw(2).tolist())
    assert set(dataset.targets(2, "test").tolist()) <= possible


def test_draws_are_a_function_of_seed_and_user(dataset: Dataset) -> None:
    def draw(seed: int, user: int) -> list[int]:
        return Sampler.of(Protocol("uniform", 10), dataset, "test", seed).draw(user).tolist()

    assert draw(1, 4) == draw(1, 4)
    assert len({tuple(draw(seed, user)) for seed in range(3) for user in range(1, 6)}) == 15


def test_popular_items_are_drawn_in_proportion(tmp_path: Path) -> None:
    """First draws of many seeds against the shares of the training interactions."""
    sequences = [[item, *rest, 9, 9] for item in (1, 1, 1, 1, 1, 1, 2, 2, 2, 3) for rest in ([4],)] + [[10, 9, 9]]
    dataset = tiny.write(tmp_path / "data", sequences, items=12)
    drawn = [Sampler.of(Protocol("popularity", 1), dataset, "test", seed).draw(11)[0] for seed in range(2000)]
    shares = np.bincount(drawn, minlength=13) / 2000
    for item, share in ((1, 0.3), (2, 0.15), (3, 0.05), (4, 0.5)):
        assert abs(shares[item] - share) < 4 * math.sqrt(share * (1 - share) / 2000)
    assert shares[[5, 6, 7, 8, 9, 10, 11, 12]].sum() == 0


def test_the_last_possible_items_are_found(dataset: Dataset) -> None:
    left = set(range(1, 61)) - everything(dataset, 4)
    assert set(Sampler.of(Protocol("uniform", len(left)), dataset, "test", 0).draw(4).tolist()) == left


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_more_than_there_are_is_refused_with_the_user(dataset: Dataset, kind: str) -> None:
    with pytest.raises(ConfigError, match="leaves user 'u4' only"):
        Sampler.of(Protocol(kind, 60), dataset, "test", 0).draw(4)


def test_rare_leftovers_are_drawn_where_rejection_gives_up(tmp_path: Path) -> None:
    """One item has nearly all interactions: the rest still comes, without end."""
    dataset = tiny.write(tmp_path / "data", [[1] * 100_000 + [2, 3, 4, 9, 9], [8, 9, 9]], items=9)
    drawn = Sampler.of(Protocol("popularity", 4), dataset, "test", 0).draw(2)
    assert sorted(drawn.tolist()) == [1, 2, 3, 4]
