"""Negatives: items sampled for a user, none of them in the user's training interactions; or for everybody."""

from typing import Literal

import numpy as np

from rec.data.dataset import Dataset, FloatArray, IntArray
from rec.data.keys import Keys, uniform
from rec.errors import DatasetError


class Negatives:
    """Samples by rejection, from a uniform distribution or one by training interactions."""

    def __init__(self, dataset: Dataset, sampling: Literal["uniform", "popularity"]) -> None:
        weights = np.ones(dataset.items) if sampling == "uniform" else dataset.train_counts[1:].astype(np.float64)
        self.dataset = dataset
        self.probability = np.concatenate([[0.0], weights / weights.sum()])  # (items + 1)
        self.cumulative = np.cumsum(self.probability)
        self.cumulative /= self.cumulative[-1]  # exactly 1 from the last item that can be drawn

    def sample_for_all(self, key: Keys, count: int) -> tuple[IntArray, FloatArray]:
        """Sampled items for everybody, with replacement, from one key: (1, K) int64 item rows, and float32 log Q."""
        drawn = np.searchsorted(self.cumulative, uniform(key, count, salt=0), side="right")
        return drawn, np.log(self.probability[drawn]).astype(np.float32)

    def sample(self, users: IntArray, keys: Keys, count: int) -> tuple[IntArray, FloatArray]:
        """Sampled items of each user, with replacement, and how probable each was.

        Args:
            users: (B) user rows.
            keys: (B) one key per user: equal keys give equal negatives.
            count: K.

        Returns:
            (B, K) int64 item rows, and (B, K) float32 log Q: the log probability of each under the distribution
            that is left when the user's own items are taken out.

        Raises:
            DatasetError: if a user's training items leave nothing to sample.
        """
        if count == 0:
            return np.empty((len(users), 0), np.int64), np.empty((len(users), 0), np.float32)
        width = self.dataset.items + 1
        own = [np.unique(self.dataset.train_items(user)) for user in users]
        left = 1.0 - np.array([self.probability[items].sum() for items in own])  # (B) mass outside the user's items
        if (left < 1e-9).any():
            user = self.dataset.user_ids[users[int(np.argmin(left))]]
            raise DatasetError(
                f"user '{user}' has every item that could be a negative; set data.negative_sampling=uniform, "
                "or train without negatives where the user has the whole catalogue"
            )
        taken = np.concatenate([row * width + items for row, items in enumerate(own)])  # ascending codes (row, item)
        drawn = np.empty((len(users), count), np.int64)
        open_rows, open_places = np.divmod(np.arange(drawn.size), count)
        attempt = 0
        while len(open_rows):
            numbers = uniform(keys, count, salt=attempt)[open_rows, open_places]
            items = np.searchsorted(self.cumulative, numbers, side="right")
            drawn[open_rows, open_places] = items
            codes = open_rows * width + items
            place = np.minimum(np.searchsorted(taken, codes), len(taken) - 1)
            rejected = taken[place] == codes
            open_rows, open_places = open_rows[rejected], open_places[rejected]
            attempt += 1
        log_q = np.log(self.probability[drawn]) - np.log(left)[:, None]
        return drawn, log_q.astype(np.float32)
