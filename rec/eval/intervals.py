"""How sure a mean is, and whom it is a mean over.

Intervals are percentile bootstraps over queries (Efron, 1979): 95 % of the means of resampled queries lie
inside. They say how a figure would vary with other users of the same kind, not with another seed of the
training.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rec.eval.evaluate import Result
from rec.eval.metrics import Values

RESAMPLES = 1000
CELLS = 2**23
"""Weights held at once: 64 MB."""

HISTORY = (0, 1, 5, 10, 20, 50, 100)
"""Smallest history length of each bucket; the last is open."""
POPULARITY = (0, 1, 5, 20, 100, 500)
"""Smallest number of training interactions of the target in each bucket (of several targets: their mean)."""


def bootstrap(values: npt.NDArray[np.float64], seed: int = 0, resamples: int = RESAMPLES) -> Values:
    """(Q, M) values of M metrics -> (M, 2): the bounds of the 95 % interval of each mean.

    All metrics share the resamples. A resample is the number of times that each query is drawn.
    """
    queries = len(values)
    random = np.random.default_rng(seed)
    means = []
    chunk = max(1, CELLS // max(queries, 1))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = random.integers(queries, size=(rows, queries)) + queries * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * queries).reshape(rows, queries)
        means.append(weights @ values / queries)
    return np.asarray(np.percentile(np.concatenate(means), [2.5, 97.5], axis=0).T)


class Slice(NamedTuple):
    """The queries of one bucket."""

    bucket: str
    """For example `5-9`."""
    queries: int
    means: dict[str, float]


def slices(result: Result) -> dict[str, list[Slice]]:
    """Means by length of the history and by popularity of the target; empty buckets are left out."""
    return {
        "history": _sliced(result, result.lengths, HISTORY),
        "target_popularity": _sliced(result, result.target_counts, POPULARITY),
    }


def intervals(result: Result, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Metric -> bounds of its 95 % interval; `coverage` is no mean over queries and has none."""
    metrics = [metric for metric in result.metrics if metric.name != "coverage"]
    if not metrics:
        return {}
    bounds = bootstrap(np.stack([result.values(metric) for metric in metrics], 1), seed)
    return {result.label(metric): (low, high) for metric, (low, high) in zip(metrics, bounds.tolist(), strict=True)}


def _sliced(result: Result, amounts: npt.NDArray[Any], edges: Sequence[int]) -> list[Slice]:
    bucket = np.searchsorted(np.asarray(edges), amounts, side="right") - 1
    values = {result.label(m): result.values(m) for m in result.metrics if m.name != "coverage"}
    found = []
    for number in np.unique(bucket).tolist():
        inside = bucket == number
        means = {label: float(value[inside].mean()) for label, value in values.items()}
        found.append(Slice(_name(edges, number), int(inside.sum()), means))
    return found


def _name(edges: Sequence[int], number: int) -> str:
    low, high = edges[number], edges[number + 1] - 1 if number + 1 < len(edges) else None
    if high is None:
        return f"{low}+"
    return str(low) if low == high else f"{low}-{high}"
