"""The counting baselines that stand in every table, each with the settings that validate best.

A setting is chosen by the quality on the validation split, never on the test split: first from a small grid,
then, for rules, how distance weighs. Fits read training interactions only.
"""

from collections.abc import Callable, Iterable
from itertools import product
from typing import NamedTuple

from rec.data.dataset import Dataset
from rec.models.base import Score
from rec.models.knn import ItemKnn
from rec.models.popularity import Popularity
from rec.models.rules import Rules

Quality = Callable[[Score], float]
"""Validates a scorer; higher is better."""
Settings = dict[str, float | str]

HALF_LIVES = (1.0, 3.0, 10.0, 30.0, 100.0)
NEIGHBOURS, KNN_DECAYS = (50, 200), (1.0, 0.8, 0.5)
WINDOWS, RULE_DECAYS = (1, 3, 10), (0.3, 0.5, 0.8)


class Baseline(NamedTuple):
    score: Score
    settings: Settings
    """What was chosen; empty where there is nothing to choose."""


def popularity(dataset: Dataset, quality: Quality) -> Baseline:
    return Baseline(Popularity.fit(dataset).score, {})


def recent_popularity(dataset: Dataset, quality: Quality) -> Baseline:
    tried = (_try(Popularity.recent(dataset, life).score, half_life=life) for life in HALF_LIVES)
    return _best(tried, quality)


def item_knn(dataset: Dataset, quality: Quality) -> Baseline:
    widest = ItemKnn.fit(dataset, neighbours=max(NEIGHBOURS))
    tried = (
        _try(widest.vary(neighbours=neighbours, decay=decay).score, neighbours=neighbours, decay=decay)
        for neighbours, decay in product(NEIGHBOURS, KNN_DECAYS)
    )
    return _best(tried, quality)


def rules(dataset: Dataset, quality: Quality) -> Baseline:
    tried = (
        _try(fitted.vary(decay).score, window=window, weighting="reciprocal", decay=decay)
        for window in WINDOWS
        for fitted in [Rules.fit(dataset, window=window)]
        for decay in RULE_DECAYS
    )
    best = _best(tried, quality)
    window, decay = int(best.settings["window"]), float(best.settings["decay"])
    other = Rules.fit(dataset, window=window, weighting="geometric", decay=decay)
    return _best([best, _try(other.score, window=window, weighting="geometric", decay=decay)], quality)


BASELINES: dict[str, Callable[[Dataset, Quality], Baseline]] = {
    "popularity": popularity,
    "recent_popularity": recent_popularity,
    "item_knn": item_knn,
    "rules": rules,
}
"""In the order of the tables. Each is fitted and chosen when called, so that one at a time is in memory."""


def _try(score: Score, **settings: float | str) -> Baseline:
    return Baseline(score, settings)


def _best(tried: Iterable[Baseline], quality: Quality) -> Baseline:
    """The first of those with the highest quality; the others are let go at once."""
    best, highest = None, float("-inf")
    for baseline in tried:
        reached = quality(baseline.score)
        if best is None or reached > highest:
            best, highest = baseline, reached
    assert best is not None
    return best
