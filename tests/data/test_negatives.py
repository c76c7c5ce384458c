"""Items drawn to compare with: never what the user had, and as the distribution says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rec.data.dataset import Dataset
from rec.data.keys import keys
from rec.data.negatives import Negatives
from rec.errors import DatasetError
from rec.ranks import Ranks
from tests.eval.tiny import write

SAMPLINGS = ("uniform", "popularity")


class TestNegatives:
    @pytest.mark.parametrize("sampling", SAMPLINGS)
    def test_they_are_never_among_the_users_training_items(self, mixed: Dataset, sampling: Any):
        users = np.arange(1, mixed.users + 1)
        drawn, log_q = Negatives(mixed, sampling).sample(users, keys(0, 0, users), 500)
        assert drawn.min() >= 1
        assert drawn.max() <= mixed.items
        assert np.isfinite(log_q).all()
        for user, row in zip(users, drawn, strict=True):
            assert not np.isin(row, mixed.train_items(user)).any()

    @pytest.mark.parametrize("sampling", SAMPLINGS)
    def test_those_of_a_step_are_the_same_for_every_window_and_rank_and_follow_the_whole_distribution(
        self, mixed: Dataset, feeds: Any, sampling: Any
    ):
        options = {"negatives": 4000, "negatives_of": "step", "negative_sampling": sampling}
        steps = [feeds(mixed, Ranks(rank, world, rank), **options).step(3) for rank, world in ((0, 1), (0, 2), (1, 2))]
        batches = [batch for step in steps for batch in step.batches]
        drawn, log_q = batches[0].negatives_BK, batches[0].log_q_BK
        assert drawn.shape == log_q.shape == (1, 4000)
        assert all(torch.equal(batch.negatives_BK, drawn) and torch.equal(batch.log_q_BK, log_q) for batch in batches)
        weights = np.ones(31) if sampling == "uniform" else mixed.train_counts.astype(float)
        expected = np.concatenate([[0], weights[1:] / weights[1:].sum()])
        np.testing.assert_allclose(log_q[0].exp().numpy(), expected[drawn[0].numpy()], rtol=1e-5)
        assert np.abs(np.bincount(drawn[0].numpy(), minlength=31) / 4000 - expected).max() < 0.03
        assert not torch.equal(feeds(mixed, **options).step(4).batches[0].negatives_BK, drawn)

    @pytest.mark.parametrize("sampling", SAMPLINGS)
    def test_they_follow_the_distribution_that_is_left_and_log_q_is_its_logarithm(self, mixed: Dataset, sampling: Any):
        user, count = 8, 40_000  # 27 of 30 items are its own or nearly
        for user in (7, 14):
            weights = np.ones(31) if sampling == "uniform" else mixed.train_counts.astype(float)
            weights[0] = 0
            weights[mixed.train_items(user)] = 0
            expected = weights / weights.sum()
            drawn, log_q = Negatives(mixed, sampling).sample(np.array([user]), keys(0, 0, np.array([1])), count)
            possible = np.flatnonzero(expected)
            counts = np.bincount(drawn[0], minlength=31)
            assert counts[expected == 0].sum() == 0
            chi = ((counts[possible] - count * expected[possible]) ** 2 / (count * expected[possible])).sum()
            freedom = len(possible) - 1
            assert chi < freedom + 5 * np.sqrt(2 * freedom)
            np.testing.assert_allclose(np.exp(log_q[0]), expected[drawn[0]], rtol=1e-5)

    @pytest.mark.parametrize("sampling", SAMPLINGS)
    def test_the_sampled_partition_is_right_on_average(self, mixed: Dataset, sampling: Any):
        """The mean over draws of sum exp(s) / (K q) is the sum of exp(s) over the items that can be drawn."""
        scores = np.random.default_rng(5).normal(size=31)
        user, rounds, count = 7, 4000, 8
        negatives = Negatives(mixed, sampling)
        drawn, log_q = negatives.sample(np.full(rounds, user), keys(0, 0, np.arange(rounds)), count)
        estimates = np.exp(scores[drawn] - log_q - np.log(count)).sum(1)
        possible = np.setdiff1d(np.flatnonzero(negatives.probability), mixed.train_items(user))
        error = estimates.std() / np.sqrt(rounds)
        assert abs(estimates.mean() - np.exp(scores[possible]).sum()) < 4 * error

    def test_a_row_is_drawn_alike_in_any_company(self, mixed: Dataset):
        negatives, users = Negatives(mixed, "uniform"), np.array([4, 8, 2])
        key = keys(0, 3, users)
        together = negatives.sample(users, key, 6)[0]
        for row in range(3):
            assert np.array_equal(negatives.sample(users[row : row + 1], key[row : row + 1], 6)[0][0], together[row])

    @pytest.mark.parametrize("sampling", SAMPLINGS)
    def test_a_user_with_every_item_is_an_error_that_names_the_user(self, tmp_path: Path, sampling: Any):
        dataset = write(tmp_path / "d", [[1, 2, 3, 4], [1, 2]], 4, bounds=[(4, 4, 4, 4, 4), (2, 2, 2, 2, 2)])
        with pytest.raises(DatasetError, match=r"user 'u1' has every item that could be a negative"):
            Negatives(dataset, sampling).sample(np.array([2, 1]), keys(0, 0, np.arange(2)), 3)

    def test_none_may_be_asked_for(self, mixed: Dataset):
        drawn, log_q = Negatives(mixed, "uniform").sample(np.array([1]), keys(0, 0, np.array([0])), 0)
        assert drawn.shape == log_q.shape == (1, 0)
