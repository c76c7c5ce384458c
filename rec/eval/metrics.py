"""Ranking metrics from the ranks of the targets: one value per query, in float64.

A query has the targets T, a set of items; the best candidate is at rank 1. With hits(K) the targets at a rank
of at most K:

    recall@K     |hits(K)| / |T|
    precision@K  |hits(K)| / K
    hit@K        1 if there is a hit, else 0
    mrr@K        1 / rank of the first hit, 0 without one
    map@K        sum over the hits of (targets ranked no later than it) / its rank, divided by min(K, |T|)
    ndcg@K       DCG / ideal DCG; DCG = sum over the hits of 1 / log2(rank + 1), the ideal has its first
                 min(K, |T|) ranks taken by targets (Järvelin and Kekäläinen, 2002, with binary gains)

and, under names of their own, what some published tables report instead:

    recall_capped@K    |hits(K)| / min(K, |T|), as in tables of variational autoencoders (arXiv 1802.05814)
                       and of their heirs: reaches 1 where |T| > K, and is never below recall@K
    ndcg_retrieved@K   the ideal only reorders the targets found within a list of max(K, 50): a query is
                       forgiven the targets it misses, so it is never below ndcg@K (arXiv 2311.00423)
"""

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rec.errors import ConfigError

IntArray = npt.NDArray[np.integer[Any]]
Values = npt.NDArray[np.float64]

NEVER = int(np.iinfo(np.int64).max)
"""The rank of a target that is not among the candidates: a miss at every cutoff."""


@dataclass(frozen=True)
class Placed:
    """Where the targets of Q queries were ranked; every query has at least one."""

    ranks: IntArray
    """(n) int64, from 1, ascending within a query."""
    offsets: IntArray
    """(Q + 1) int64: query q owns the ranks offsets[q] .. offsets[q + 1]."""

    @property
    def queries(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def targets(self) -> IntArray:
        """(Q) the number of targets, |T|."""
        return np.diff(self.offsets)

    @cached_property
    def query(self) -> IntArray:
        """(n) the query of each rank."""
        return np.repeat(np.arange(self.queries), self.targets)

    @cached_property
    def place(self) -> IntArray:
        """(n) 1 for the best target of a query, 2 for the next, ..."""
        return np.arange(1, len(self.ranks) + 1) - self.offsets[:-1][self.query]

    def total(self, gains: npt.NDArray[Any]) -> Values:
        """(n) gains -> (Q) their sums by query."""
        return np.bincount(self.query, weights=gains, minlength=self.queries).astype(np.float64)


def discounts(ranks: IntArray) -> Values:
    """1 / log2(rank + 1)."""
    return 1 / np.log2(ranks.astype(np.float64) + 1)


def recall(placed: Placed, cutoff: int) -> Values:
    return placed.total(placed.ranks <= cutoff) / placed.targets


def precision(placed: Placed, cutoff: int) -> Values:
    return placed.total(placed.ranks <= cutoff) / cutoff


def hit(placed: Placed, cutoff: int) -> Values:
    return (placed.ranks[placed.offsets[:-1]] <= cutoff).astype(np.float64)


def mrr(placed: Placed, cutoff: int) -> Values:
    return hit(placed, cutoff) / placed.ranks[placed.offsets[:-1]]


def average_precision(placed: Placed, cutoff: int) -> Values:
    gains = np.where(placed.ranks <= cutoff, placed.place / placed.ranks, 0.0)
    return placed.total(gains) / np.minimum(cutoff, placed.targets)


def ndcg(placed: Placed, cutoff: int) -> Values:
    return _dcg(placed, cutoff) / _ideal(np.minimum(cutoff, placed.targets))


def recall_capped(placed: Placed, cutoff: int) -> Values:
    return placed.total(placed.ranks <= cutoff) / np.minimum(cutoff, placed.targets)


def ndcg_retrieved(placed: Placed, cutoff: int) -> Values:
    retrieved = placed.total(placed.ranks <= max(cutoff, 50)).astype(np.int64)
    reachable = np.minimum(cutoff, retrieved)
    return _dcg(placed, cutoff) / _ideal(np.maximum(reachable, 1))  # without any hit both are 0: 0 / 1


def _dcg(placed: Placed, cutoff: int) -> Values:
    return placed.total(np.where(placed.ranks <= cutoff, discounts(placed.ranks), 0.0))


def _ideal(hits: IntArray) -> Values:
    """(Q) the DCG of hits at the ranks 1 .. hits."""
    return np.cumsum(discounts(np.arange(1, int(hits.max(initial=1)) + 1)))[hits - 1]


METRICS: dict[str, Callable[[Placed, int], Values]] = {
    "ndcg": ndcg,
    "recall": recall,
    "hit": hit,
    "precision": precision,
    "mrr": mrr,
    "map": average_precision,
    "recall_capped": recall_capped,
    "ndcg_retrieved": ndcg_retrieved,
}
"""Metrics of the ranks, by name."""

EXPOSURE = ("coverage", "popularity", "head_share")
"""Metrics of what is recommended, whether it is a target or not; see `rec.eval.exposure`."""


@dataclass(frozen=True)
class Metric:
    """A name and a cutoff, written `ndcg@10`."""

    name: str
    cutoff: int

    def __str__(self) -> str:
        return f"{self.name}@{self.cutoff}"

    @property
    def of_exposure(self) -> bool:
        return self.name in EXPOSURE

    def values(self, placed: Placed) -> Values:
        """(Q) the metric of each query."""
        return METRICS[self.name](placed, self.cutoff)


def parse(text: str) -> Metric:
    """`ndcg@10` -> Metric; anything else is a ConfigError that names the nearest metric."""
    known = [*METRICS, *EXPOSURE]
    name, _, cutoff = text.partition("@")
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        remedy = f"did you mean '{nearest[0]}@{cutoff or 10}'?" if nearest else f"choose one of {', '.join(known)}"
        raise ConfigError(f"unknown metric '{text}'; {remedy}")
    if not re.fullmatch(r"[1-9]\d{0,8}", cutoff):
        raise ConfigError(f"metric '{text}' has no cutoff; write it as name@K with K from 1, for example '{name}@10'")
    return Metric(name, int(cutoff))


def parse_all(texts: Iterable[str]) -> tuple[Metric, ...]:
    """Metrics in order of first mention, each once."""
    return tuple(dict.fromkeys(parse(text) for text in texts))
