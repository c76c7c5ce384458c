"""The same list for everyone: what is most popular in training, or what was lately.

Recent popularity halves the weight of an interaction with every `half_life`: in days before the end of
training, or, where the log has no times, in later training interactions of the same user.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from rec.data.batch import Queries
from rec.data.dataset import Dataset
from rec.models.counting import backoff, training

DAY = 86_400_000
"""Milliseconds."""


@dataclass(frozen=True)
class Popularity:
    weights: Tensor
    """(items + 1) float64."""

    @classmethod
    def fit(cls, dataset: Dataset) -> Self:
        return cls(torch.from_numpy(backoff(dataset)))

    @classmethod
    def recent(cls, dataset: Dataset, half_life: float) -> Self:
        """Popularity in which an interaction counts 2 ^ (-age / half_life), with the unit named above."""
        log = training(dataset)
        if dataset.has_times:
            times = dataset.times[log.positions]
            age = (times.max(initial=0) - times) / DAY
        else:
            age = log.after.astype(np.float64)
        weights = np.bincount(log.items, weights=np.exp2(-age / half_life), minlength=dataset.items + 1)
        return cls(torch.from_numpy(weights + backoff(dataset)))

    def score(self, queries: Queries) -> Tensor:
        return self.weights.to(queries.history_BT.device).repeat(len(queries.user_B), 1)
