"""The relations by their definitions: loops over users and positions, exact fractions, whole rankings."""

import math
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from rec.graph.neighbours import Neighbours

Log = Sequence[Sequence[int]]
"""Training item rows of each user, in order."""
Table = dict[tuple[int, int], Fraction]


def degrees(log: Log) -> dict[int, int]:
    """Distinct users of each item."""
    found: dict[int, int] = defaultdict(int)
    for items in log:
        for item in set(items):
            found[item] += 1
    return found


def together(log: Log) -> Table:
    """Users that have both."""
    found: Table = defaultdict(Fraction)
    for items in log:
        for i in set(items):
            for j in set(items) - {i}:
                found[i, j] += 1
    return found


def following(log: Log, horizon: int = 10) -> Table:
    """Sum of 1 / gap over all places."""
    found: Table = defaultdict(Fraction)
    for items in log:
        for first in range(len(items)):
            for then in range(first + 1, min(first + horizon, len(items) - 1) + 1):
                if items[first] != items[then]:
                    found[items[first], items[then]] += Fraction(1, then - first)
    return found


def cosine(log: Log) -> dict[tuple[int, int], float]:
    degree = degrees(log)
    return {(i, j): float(count) / math.sqrt(degree[i] * degree[j]) for (i, j), count in together(log).items()}


def shares(log: Log) -> dict[tuple[int, int], float]:
    """Of the strength of i to all items."""
    table, out = following(log), defaultdict(Fraction)
    for (i, _), strength in table.items():
        out[i] += strength
    return {(i, j): float(strength / out[i]) for (i, j), strength in table.items()}


def top_together(log: Log, items: int, kept: int) -> list[list[int]]:
    """By cosine, then count, then lower row; as ascending rows."""
    table, degree = together(log), degrees(log)
    rank = {(i, j): (-count * count / (degree[i] * degree[j]), -count, j) for (i, j), count in table.items()}
    return _top(rank, items, kept)


def top_following(log: Log, items: int, kept: int) -> list[list[int]]:
    """By strength, then lower row; as ascending rows."""
    return _top({(i, j): (-strength, j) for (i, j), strength in following(log).items()}, items, kept)


def _top(rank: dict[tuple[int, int], tuple[Fraction | int, ...]], items: int, kept: int) -> list[list[int]]:
    rows: list[list[int]] = []
    for i in range(items + 1):
        near = sorted((key, j) for (left, j), key in rank.items() if left == i)
        rows.append(sorted(j for _, j in near[:kept]))
    return rows


def listed(neighbours: Neighbours) -> list[list[int]]:
    """The lists without what fills them up, which is checked here."""
    rows = []
    for item_K, strength_K, weight_K in zip(
        neighbours.item_IK, neighbours.strength_IK, neighbours.weight_IK, strict=True
    ):
        known = item_K < neighbours.none
        assert (item_K[~known] == neighbours.none).all()
        assert (np.diff(item_K[known]) > 0).all()
        assert ((strength_K > 0) == known).all()
        assert ((weight_K > 0) == known).all()
        assert known[: known.sum()].all()
        rows.append(item_K[known].tolist())
    return rows
