"""Counting baselines against dense twins; nothing of validation or test reaches a fit; floors on real data."""

import csv
import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rec.config.tree import Eval
from rec.data.batch import Queries
from rec.data.dataset import Dataset
from rec.eval.evaluate import evaluate
from rec.models import knn
from rec.models.baselines import BASELINES, HALF_LIVES
from rec.models.counting import EPSILON
from rec.models.knn import ItemKnn
from rec.models.popularity import DAY, Popularity
from rec.models.rules import Rules
from rec.ranks import Ranks
from tests.eval import tiny

FITS: dict[str, Callable[[Dataset], object]] = {
    "popularity": Popularity.fit,
    "recent": lambda dataset: Popularity.recent(dataset, 3.0),
    "knn": lambda dataset: ItemKnn.fit(dataset, neighbours=5, decay=0.8),
    "rules": lambda dataset: Rules.fit(dataset, window=3, decay=0.5),
}
ITEMS = 25


def sequences(seed: int = 0, users: int = 40) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(1, ITEMS + 1, random.integers(3, 15)).tolist() for _ in range(users)]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return tiny.write(tmp_path / "data", sequences(), items=ITEMS)


def queries(histories: list[list[int]]) -> Queries:
    width = max(1, *map(len, histories))
    padded = [row + [0] * (width - len(row)) for row in histories]
    history_BT = torch.tensor(padded)
    return Queries(torch.arange(1, len(histories) + 1), history_BT, torch.zeros_like(history_BT))


def train(dataset: Dataset) -> list[list[int]]:
    return [dataset.train_items(user).tolist() for user in range(1, dataset.users + 1)]


def above(scores: torch.Tensor) -> np.ndarray:
    """Without the back-off, which is far below all that is counted."""
    return np.where(scores.numpy() > 2 * EPSILON, scores.numpy(), 0)


def test_popularity_is_the_order_of_training_counts(dataset: Dataset) -> None:
    scores = Popularity.fit(dataset).score(queries([[1], [2, 3]]))
    counts = np.bincount(np.concatenate(train(dataset)), minlength=ITEMS + 1)
    np.testing.assert_allclose(scores[1] / EPSILON, counts / counts.max())


def test_recent_popularity_halves_with_every_half_life_of_days(tmp_path: Path) -> None:
    start = 1_000_000 * DAY
    times = [[start, start + 3 * DAY, start + 90 * DAY, start + 91 * DAY], [start + 9 * DAY] * 4]
    data = tiny.write(tmp_path / "data", [[1, 2, 3, 3], [4, 2, 1, 1]], items=4, times=times)
    scores = Popularity.recent(data, half_life=3.0).score(queries([[1]]))[0]
    np.testing.assert_allclose(scores, [0, 1 / 8, 1 / 4 + 1, 0, 1], atol=2 * EPSILON)


def test_recent_popularity_goes_by_later_items_where_there_are_no_times(tmp_path: Path) -> None:
    data = tiny.write(tmp_path / "data", [[1, 2, 3, 4, 4], [3, 2, 1, 1]], items=4)
    scores = Popularity.recent(data, half_life=1.0).score(queries([[1]]))[0]
    np.testing.assert_allclose(scores, [0, 1 / 4, 1 / 2 + 1, 1 + 1 / 2, 0], atol=2 * EPSILON)


@pytest.mark.parametrize("work", [2**24, 40])
def test_knn_is_the_dense_cosine(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, work: int) -> None:
    monkeypatch.setattr(knn, "WORK", work)
    owned = np.zeros((dataset.users, ITEMS + 1))
    for user, items in enumerate(train(dataset)):
        owned[user, items] = 1
    norms = np.maximum(np.sqrt(owned.sum(0)), 1)
    cosine = owned.T @ owned / norms / norms[:, None]
    np.fill_diagonal(cosine, 0)
    histories = [[3, 7, 3, 1], [5], []]
    weights = np.zeros((3, ITEMS + 1))
    weights[0, [1, 3, 7]], weights[1, 5] = [1, 0.5, 0.25], 1
    scores = ItemKnn.fit(dataset, neighbours=ITEMS, decay=0.5).score(queries(histories))
    np.testing.assert_allclose(above(scores), weights @ cosine, atol=2 * EPSILON)


def test_knn_keeps_the_nearest_of_each_item(dataset: Dataset) -> None:
    whole, few = (ItemKnn.fit(dataset, neighbours=n).similar.toarray() for n in (ITEMS, 4))
    for full, kept in zip(whole, few, strict=True):
        assert (kept > 0).sum() == min(4, (full > 0).sum())
        assert sorted(kept)[-4:] == pytest.approx(sorted(full)[-4:])
    again = ItemKnn.fit(dataset, neighbours=10).vary(neighbours=4, decay=1.0).similar.toarray()
    np.testing.assert_allclose(again, few)


@pytest.mark.parametrize(
    ("weighting", "weigh"), [("reciprocal", lambda d: 1 / d), ("geometric", lambda d: 0.5 ** (d - 1))]
)
def test_rules_are_the_counted_pairs(dataset: Dataset, weighting: str, weigh: Callable[[int], float]) -> None:
    counts = np.zeros((ITEMS + 1, ITEMS + 1))
    for items in train(dataset):
        for place, item in enumerate(items):
            for distance, later in enumerate(items[place + 1 : place + 4], start=1):
                counts[item, later] += weigh(distance)
    fitted = Rules.fit(dataset, window=3, weighting=weighting, decay=0.5)  # type: ignore[arg-type]
    np.testing.assert_allclose(fitted.rules.toarray(), counts)
    scores = fitted.score(queries([[4, 9, 2], [6], []]))
    expected = [counts[2] + 0.5 * counts[9] + 0.25 * counts[4], counts[6], 0 * counts[0]]
    np.testing.assert_allclose(above(scores), expected, atol=2 * EPSILON)


def test_a_window_never_reaches_into_another_user(tmp_path: Path) -> None:
    data = tiny.write(tmp_path / "data", [[1, 2, 9, 9], [3, 4, 9, 9], [5, 9, 9]], items=9)
    assert Rules.fit(data, window=10).rules.nnz == 2


@pytest.mark.parametrize("name", ["knn", "rules"])
def test_what_was_never_counted_is_in_the_order_of_popularity(dataset: Dataset, name: str) -> None:
    fitted = FITS[name](dataset)
    scores = fitted.score(queries([[], [1, 2]])).numpy()  # type: ignore[attr-defined]
    counts = dataset.train_counts[1:]
    assert (np.argsort(-scores[0, 1:], kind="stable") == np.argsort(-counts, kind="stable")).all()
    counted = scores[1, 1:] > 2 * EPSILON
    assert counted.any()
    assert scores[1, 1:][counted].min() > 1000 * scores[1, 1:][~counted].max()


@pytest.mark.parametrize("name", FITS)
def test_padding_and_the_other_queries_change_nothing(dataset: Dataset, name: str) -> None:
    fitted = FITS[name](dataset)
    together = fitted.score(queries([[1, 2], [5, 6, 7, 8, 9]]))  # type: ignore[attr-defined]
    assert torch.equal(together[0], fitted.score(queries([[1, 2]]))[0])  # type: ignore[attr-defined]
    assert together.shape == (2, ITEMS + 1)
    assert torch.isfinite(together).all()


def same_fit(left: object, right: object) -> bool:
    asked = queries([[1, 2, 3], [4], [], [9, 8, 7, 6, 5]])
    return torch.equal(left.score(asked), right.score(asked))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", FITS)
def test_a_poisoned_validation_and_test_split_cannot_reach_a_fit(tmp_path: Path, name: str) -> None:
    """All held-out interactions become one unheard-of item, at times far away: the fit is the same to the bit."""
    clean = sequences()
    poisoned = [[*row[:-2], ITEMS, ITEMS] for row in clean]
    clean = [[min(item, ITEMS - 1) for item in row[:-2]] + row[-2:] for row in clean]
    poisoned = [[*row[:-2], ITEMS, ITEMS] for row in clean]
    start = 1_000_000 * DAY
    for known in (False, True):
        times = [[[start + DAY * n for n in range(len(row))] for row in clean] for _ in range(2)]
        for row in times[1]:
            row[-2:] = [start + 9_000 * DAY] * 2
        left, right = (
            tiny.write(tmp_path / f"{known}{n}", rows, items=ITEMS, times=times[n] if known else None)
            for n, rows in enumerate((clean, poisoned))
        )
        assert (left.item_rows != right.item_rows).any()
        assert same_fit(FITS[name](left), FITS[name](right))


@pytest.mark.parametrize("name", FITS)
def test_training_interactions_do_reach_a_fit(tmp_path: Path, name: str) -> None:
    rows = sequences()
    changed = [[ITEMS, *row[1:]] for row in rows]
    left, right = (tiny.write(tmp_path / str(n), data, items=ITEMS) for n, data in enumerate((rows, changed)))
    assert not same_fit(FITS[name](left), FITS[name](right))


def test_a_baseline_has_the_settings_of_the_highest_quality(dataset: Dataset) -> None:
    asked: list[float] = []

    def quality(score: object) -> float:
        asked.append(len(asked))
        return -abs(len(asked) - 3)

    assert BASELINES["recent_popularity"](dataset, quality).settings == {"half_life": HALF_LIVES[2]}
    assert BASELINES["popularity"](dataset, quality).settings == {}


def leave_one_out(root: Path, log: list[tuple[str, str, int]], timed: bool) -> Dataset:
    users: dict[str, list[tuple[int, int]]] = {}
    items: dict[str, int] = {}
    for user, item, time in log:
        users.setdefault(user, []).append((time, items.setdefault(item, len(items) + 1)))
    ordered = [sorted(row, key=lambda pair: pair[0]) for row in users.values()]
    times = [[time for time, _ in row] for row in ordered]
    rows = [[item for _, item in row] for row in ordered]
    return tiny.write(root, rows, items=len(items), times=times if timed else None)


def real(name: str) -> Path:
    folder = Path(os.environ.get("KINDLING_DATA", "../shared/data")) / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; KINDLING_DATA names the folder of the real data")
    return folder


def reached(dataset: Dataset, fitted: object) -> tuple[float, float]:
    found = evaluate(
        fitted.score, dataset, "test", config=Eval(), max_items=50, ranks=Ranks(), device=torch.device("cpu")  # type: ignore[attr-defined]
    )  # fmt: skip
    return found.means["recall@10[full]"], found.means["ndcg@10[full]"]


@pytest.mark.data
def test_movielens_100k_reaches_the_known_floors(tmp_path: Path) -> None:
    with (real("ml-100k") / "ml-100k.inter").open() as lines:
        log = [
            (user, item, int(float(time)) * 1000) for user, item, _, time in list(csv.reader(lines, delimiter="\t"))[1:]
        ]
    data = leave_one_out(tmp_path / "ml", log, timed=True)
    assert reached(data, Popularity.fit(data)) == pytest.approx((0.086, 0.045), abs=0.003)
    assert reached(data, ItemKnn.fit(data, neighbours=100)) == pytest.approx((0.109, 0.056), abs=0.003)
    assert reached(data, Rules.fit(data, window=1, decay=0.0)) == pytest.approx((0.153, 0.082), abs=0.01)


@pytest.mark.data
def test_beauty_rules_reach_the_known_floor(tmp_path: Path) -> None:
    with gzip.open(real("amazon-beauty-5core") / "interactions.csv.gz", "rt") as lines:
        log = [(row["user"], row["item"], place) for place, row in enumerate(csv.DictReader(lines))]
    data = leave_one_out(tmp_path / "beauty", log, timed=False)
    assert (data.users, data.items, data.interactions) == (22_363, 12_101, 198_502)
    assert reached(data, Rules.fit(data, window=10, decay=0.5)) == pytest.approx((0.082, 0.051), abs=0.002)
