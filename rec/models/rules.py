"""Sequential rules: what came soon after an item in training follows it again (Ludewig and Jannach, 2018).

    rule(i, j)  = sum of w(d) over the training sequences' pairs with j at a distance d <= window behind i
    score(j)    = sum over the last items i of the history of decay^(items later than i) rule(i, j)

w(d) is 1 / d, or geometric, 2^(1 - d). A window of 1 and a decay of 0 are a first-order Markov chain.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from rec.data.batch import Queries
from rec.data.dataset import Dataset
from rec.models.counting import Floats, backoff, recency, scored, training

Weighting = Literal["reciprocal", "geometric"]
WEIGHTS: dict[Weighting, Callable[[int], float]] = {
    "reciprocal": lambda distance: 1 / distance,
    "geometric": lambda distance: 2.0 ** (1 - distance),
}

LAST = 10
"""Items of the history that rules are taken from."""


@dataclass(frozen=True)
class Rules:
    rules: sp.csr_array
    """(items + 1, items + 1): from an item to what follows; at most window * training interactions cells."""
    popularity: Floats
    decay: float

    @classmethod
    def fit(
        cls, dataset: Dataset, *, window: int = 10, weighting: Weighting = "reciprocal", decay: float = 0.5
    ) -> Self:
        log = training(dataset)
        shape = (dataset.items + 1, dataset.items + 1)
        rules = sp.csr_array(shape)
        for distance in range(1, window + 1):
            first, then = slice(None, -distance), slice(distance, None)
            same = log.users[first] == log.users[then]
            before, behind = log.items[first][same], log.items[then][same]
            weight = np.full(len(before), WEIGHTS[weighting](distance))
            rules = rules + sp.csr_array((weight, (before, behind)), shape=shape)
        return cls(rules, backoff(dataset), decay)

    def vary(self, decay: float) -> Self:
        """The same fit with another decay."""
        return replace(self, decay=decay)

    def score(self, queries: Queries) -> Tensor:
        history = recency(queries, self.decay, LAST, self.rules.shape[0] - 1)
        return scored(history @ self.rules, self.popularity, queries.history_BT.device)
