"""From the log to the batches of a step: order, windows, negatives, and what every rank must agree on."""

import itertools
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rec.config.tree import Data
from rec.data.batch import Sequences
from rec.data.dataset import Dataset
from rec.data.feed import Feed, check_batches
from rec.data.keys import keys, mix, uniform
from rec.data.negatives import Negatives
from rec.data.order import SPREAD, deal, even_sizes, order_of_epoch, places_of_step
from rec.data.views import NextItems, histories, queries
from rec.data.windows import cut
from rec.errors import ConfigError, DatasetError
from rec.ranks import Ranks
from tests.eval.tiny import write


def _numbers(step: int, *, seed: int = 1, windows: int = 10, global_batch: int = 4) -> list[tuple[int, int]]:
    """(epoch, window) of a step, for windows whose lengths change with the epoch."""
    found = []
    for epoch, places in places_of_step(step, windows=windows, global_batch=global_batch):
        lengths = np.random.default_rng(epoch).integers(0, 5, windows)
        order = order_of_epoch(lengths, seed=seed, epoch=epoch, global_batch=global_batch)
        found += [(epoch, int(number)) for number in order[places]]
    return found


class TestOrder:
    @given(windows=st.integers(1, 40), global_batch=st.integers(1, 60), seed=st.integers(0, 5))
    def test_every_window_comes_once_in_every_epoch(self, windows: int, global_batch: int, seed: int):
        options = {"seed": seed, "windows": windows, "global_batch": global_batch}
        steps = -(-3 * windows // global_batch)
        stream = [pair for step in range(steps) for pair in _numbers(step, **options)]
        assert all(len(_numbers(step, **options)) == global_batch for step in range(steps))
        for epoch in range(3):
            assert stream[epoch * windows : (epoch + 1) * windows] == [
                (epoch, number) for _, number in stream[epoch * windows : (epoch + 1) * windows]
            ]
            assert sorted(number for _, number in stream[epoch * windows : (epoch + 1) * windows]) == list(
                range(windows)
            )

    def test_a_step_may_straddle_epochs_and_each_epoch_has_its_own_order(self):
        assert [epoch for epoch, _ in _numbers(2)] == [0, 0, 1, 1]
        first = [number for step in range(5) for epoch, number in _numbers(step) if epoch == 0]
        second = [number for step in range(5) for epoch, number in _numbers(step) if epoch == 1]
        assert first != second
        assert _numbers(0, seed=2) != _numbers(0)

    def test_a_far_step_is_asked_for_without_walking_there(self):
        assert {epoch for epoch, _ in _numbers(10**12)} <= {4 * 10**11, 4 * 10**11 + 1}

    @pytest.mark.parametrize("epoch", [0, 1, 2])
    def test_the_windows_of_a_step_are_of_similar_length(self, epoch: int):
        """Also where the steps of the epoch do not begin with it."""
        batch, count = 8, 8 * SPREAD * 4 + 3
        lengths = np.random.default_rng(epoch).integers(0, 1000, count)
        order = order_of_epoch(lengths, seed=0, epoch=epoch, global_batch=batch)
        begun = -epoch * count % batch
        steps = lengths[order[begun : begun + (count - begun) // batch * batch]].reshape(-1, batch)
        assert np.median(np.ptp(steps, axis=1)) < 2 * 1000 / SPREAD
        means = steps.mean(1)
        assert np.abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.4  # and the steps themselves come in any order

    @given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
    def test_the_ranks_share_out_a_step_whole_and_once(self, world: int, micro_batch: int, count: int, seed: int):
        size = world * micro_batch * count
        lengths = np.random.default_rng(seed).integers(0, 9, size)
        dealt = [deal(lengths, micro_batch=micro_batch, rank=rank, world=world) for rank in range(world)]
        assert all(len(mine) == count and all(len(rows) for rows in mine) for mine in dealt)
        assert sorted(int(row) for mine in dealt for rows in mine for row in rows) == list(range(size))
        most = max(len(rows) * max(1, lengths[rows].max()) for mine in dealt for rows in mine)
        assert most <= micro_batch * max(1, lengths.max())  # what a plan of memory counts with

    @given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(1, 8))
    def test_no_other_cut_of_a_step_has_a_smaller_largest_micro_batch(self, lengths: list[int], pieces: int):
        """Against all cuts of the sorted windows."""
        pieces, falling = min(pieces, len(lengths)), sorted(lengths, reverse=True)

        def largest(sizes: list[int]) -> int:
            starts = [sum(sizes[:place]) for place in range(len(sizes))]
            return max(size * max(1, falling[start]) for size, start in zip(sizes, starts, strict=True))

        inner = itertools.combinations(range(1, len(falling)), pieces - 1)
        cuts = [np.diff([0, *places, len(falling)]).tolist() for places in inner]
        sizes = even_sizes(np.array(falling), pieces)
        assert sizes in cuts
        assert largest(sizes) == min(map(largest, cuts))

    def test_windows_of_one_length_are_cut_into_equal_micro_batches(self):
        assert even_sizes(np.full(12, 50), 3) == [4, 4, 4]
        assert even_sizes(np.array([50] * 4 + [10] * 20 + [5] * 40), 3) == [4, 20, 40]

    def test_windows_of_like_length_go_together_and_no_batch_has_all_the_work(self):
        lengths = np.array([5, 1, 9, 2, 9, 1, 5, 2])
        batches = [rows for rank in (0, 1) for rows in deal(lengths, micro_batch=2, rank=rank, world=2)]
        assert sorted(lengths[rows].tolist() for rows in batches) == [[2, 2, 1, 1], [5, 5], [9], [9]]


class TestWindows:
    @pytest.mark.parametrize("predict_first", [False, True])
    @pytest.mark.parametrize("max_items", [1, 2, 3, 7, 50])
    @pytest.mark.parametrize("epoch", [0, 1, 5])
    def test_each_training_target_is_in_exactly_one_window(
        self, mixed: Dataset, max_items: int, predict_first: bool, epoch: int
    ):
        windows = cut(mixed, max_items, predict_first=predict_first, seed=0, epoch=epoch)
        found = Counter[int]()
        for user, start, length, first in zip(*windows[1:], strict=True):
            assert length <= max_items
            begin, stop = int(mixed.offsets[user]), int(mixed.offsets[user]) + int(mixed.bounds[user, 0])
            assert begin <= start
            assert start + length < stop or not length
            found.update(range(start + 1, start + length + 1))
            if first:
                assert start == begin
                found.update([int(start)])
        expected = [
            int(mixed.offsets[user]) + place
            for user in range(mixed.users + 1)
            for place in range(0 if predict_first else 1, int(mixed.bounds[user, 0]))
        ]
        assert found == Counter(expected)
        assert windows.targets == len(expected)

    def test_the_number_of_windows_is_the_same_in_every_epoch_and_the_cuts_are_not(self, mixed: Dataset):
        epochs = [cut(mixed, 3, predict_first=True, seed=0, epoch=epoch) for epoch in range(8)]
        assert len({len(windows.user) for windows in epochs}) == 1
        assert len({tuple(windows.start.tolist()) for windows in epochs}) > 1
        again = cut(mixed, 3, predict_first=True, seed=0, epoch=2)
        assert all(np.array_equal(one, other) for one, other in zip(again, epochs[2], strict=True))

    def test_an_item_of_a_long_history_is_seen_at_every_distance_from_the_beginning(self, tmp_path: Path):
        dataset = write(tmp_path / "long", [list(range(1, 25))], 30)
        places = set()
        for epoch in range(200):
            windows = cut(dataset, 5, predict_first=False, seed=0, epoch=epoch)
            places |= {15 - s for s, n in zip(windows.start, windows.length, strict=True) if s <= 15 < s + n}
        assert places == set(range(5))


class TestKeys:
    def test_golden_values_of_the_published_finaliser(self):
        """SplitMix64's first outputs for seed 0 are mix(k * gamma); published in its reference implementation."""
        gamma = 0x9E3779B97F4A7C15
        states = np.array([gamma * k % 2**64 for k in (1, 2, 3)], np.uint64)
        assert [hex(int(value)) for value in mix(states)] == [
            "0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f",
        ]  # fmt: skip

    def test_keys_depend_on_seed_step_and_window_and_nothing_else(self):
        base = keys(3, 7, np.arange(100))
        assert np.array_equal(keys(3, 7, np.arange(50, 100)), base[50:])
        everything = np.concatenate([keys(seed, step, np.arange(100)) for seed in range(5) for step in range(50)])
        assert len(np.unique(everything)) == len(everything)

    def test_numbers_are_uniform_and_independent_over_keys_places_and_salts(self):
        numbers = uniform(keys(0, 0, np.arange(400)), 250, salt=0)
        assert numbers.min() >= 0
        assert numbers.max() < 1
        counts = np.histogram(numbers, bins=100, range=(0, 1))[0]
        assert ((counts - 1000) ** 2 / 1000).sum() < 160  # chi-square with 99 degrees of freedom: p < 1e-4
        limit = 5 / np.sqrt(numbers.size)
        other = uniform(keys(0, 0, np.arange(400)), 250, salt=1)
        assert abs(np.corrcoef(numbers.ravel(), other.ravel())[0, 1]) < limit
        assert abs(np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]) < limit
        assert abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < limit


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


@pytest.fixture
def feeds() -> Iterator[Any]:
    opened: list[Feed] = []

    def make(dataset: Dataset, ranks: Ranks | None = None, **options: Any) -> Feed:
        predict_first = options.pop("predict_first", True)
        data = Data(**{"global_batch": 12, "micro_batch": 2, "max_items": 4, "negatives": 3, **options})
        view = NextItems(dataset, data, predict_first=predict_first, seed=5)
        opened.append(Feed(view, data, seed=5, ranks=ranks or Ranks()))
        return opened[-1]

    yield make
    for feed in opened:
        feed.close()


def _rows(batches: list[Sequences]) -> list[tuple[Any, ...]]:
    """Windows without their padding, in an order of their own."""
    return sorted(
        (int(b.key_B[r]), int(b.user_B[r]), int(b.first_B[r]), [i for i in b.items_BT[r].tolist() if i],
         [t for t in b.targets_BT[r].tolist() if t], b.negatives_BK[r].tolist(), b.log_q_BK[r].tolist())
        for b in batches for r in range(len(b.user_B))
    )  # fmt: skip


class TestFeed:
    @pytest.mark.parametrize("world", [1, 2, 3])
    @pytest.mark.parametrize("predict_first", [False, True])
    def test_all_ranks_count_the_same_targets_and_they_are_those_of_the_batches(
        self, mixed: Dataset, feeds: Any, world: int, predict_first: bool
    ):
        of_ranks = [feeds(mixed, Ranks(rank, world, rank), predict_first=predict_first) for rank in range(world)]
        for step in (0, 1, 2, 3, 40):
            steps = [feed.step(step) for feed in of_ranks]
            batches = [batch for one in steps for batch in one.batches]
            targets = sum(int((b.targets_BT > 0).sum() + (b.first_B > 0).sum()) for b in batches)
            items = sum(int((b.items_BT > 0).sum()) for b in batches)
            assert {one.targets for one in steps} == {targets}
            # the input of a window that only predicts its first item is no window's input
            assert {one.items for one in steps} == {items}

    def test_a_window_that_comes_again_draws_other_numbers(self, mixed: Dataset, feeds: Any):
        feed = feeds(mixed, negatives=6)
        drawn: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
        keys_of: dict[tuple[int, ...], set[int]] = {}
        for step in range(12):
            for batch in feed.step(step).batches:
                for row, items in enumerate(batch.items_BT.tolist()):
                    window = (int(batch.user_B[row]), *(item for item in items if item))
                    drawn.setdefault(window, set()).add(tuple(batch.negatives_BK[row].tolist()))
                    keys_of.setdefault(window, set()).add(int(batch.key_B[row]))
        often = max(keys_of, key=lambda window: len(keys_of[window]))
        assert len(keys_of[often]) > 3
        assert len(drawn[often]) > 3

    def test_any_number_of_ranks_and_any_micro_batch_see_the_same_windows(self, mixed: Dataset, feeds: Any):
        for step in (0, 2, 7):
            expected = _rows(feeds(mixed, micro_batch=12).step(step).batches)
            for world, micro_batch in ((1, 1), (2, 3), (3, 2), (2, 6), (4, 1)):
                of_ranks = [feeds(mixed, Ranks(rank, world, rank), micro_batch=micro_batch) for rank in range(world)]
                assert _rows([b for feed in of_ranks for b in feed.step(step).batches]) == expected

    def test_steps_may_be_asked_for_in_any_order_prepared_ahead_or_not(self, mixed: Dataset, feeds: Any):
        direct, ahead, other = feeds(mixed, prefetch=0), feeds(mixed, prefetch=3), feeds(mixed, prefetch=1)
        expected = {step: _rows(direct.step(step).batches) for step in range(8)}
        assert {step: _rows(ahead.step(step).batches) for step in range(8)} == expected
        for step in (6, 0, 3, 3, 4, 7, 1):
            assert _rows(other.step(step).batches) == expected[step]

    def test_every_rank_knows_the_users_of_the_whole_step_and_one_key(self, mixed: Dataset, feeds: Any):
        alone, first, second = feeds(mixed), feeds(mixed, Ranks(0, 2, 0)), feeds(mixed, Ranks(1, 2, 1))
        keys = set()
        for step in range(4):
            whole = alone.step(step).batches
            users = sorted({user for batch in whole for user in batch.user_B.tolist()})
            dealt = [*whole, *first.step(step).batches, *second.step(step).batches]
            assert all(batch.step_users_S.tolist() == users for batch in dealt)
            assert len({int(batch.step_key) for batch in dealt}) == 1
            keys.add(int(whole[0].step_key))
        assert len(keys) == 4

    def test_times_stand_beside_the_items(self, feeds: Any, tmp_path: Path):
        timed = write(tmp_path / "timed", [[3, 1, 2, 4, 5], [2, 5, 4]], 5, times=[[10, 20, 20, 40, 50], [7, 8, 9]])
        (batch,) = feeds(timed, global_batch=2, max_items=5).step(0).batches
        times = dict(zip(batch.user_B.tolist(), batch.times_BT.tolist(), strict=True))
        assert times == {1: [10, 20], 2: [0, 0]}  # the last item is a target only, as are the held-out two
        assert queries(timed, np.array([1]), "test", 3).times_BT.tolist() == [[20, 20, 40]]

    def test_where_a_log_has_no_times_they_are_zero(self, mixed: Dataset, feeds: Any):
        assert all(not batch.times_BT.any() for batch in feeds(mixed).step(1).batches)

    def test_targets_are_the_inputs_one_step_ahead(self, mixed: Dataset, feeds: Any):
        for batch in feeds(mixed).step(0).batches:
            for user, items, targets in zip(
                *(tensor.tolist() for tensor in (batch.user_B, batch.items_BT, batch.targets_BT)), strict=True
            ):
                read, wanted = [i for i in items if i], [t for t in targets if t]
                assert len(read) == len(wanted)
                assert items == read + [0] * (len(items) - len(read))  # padding stands on the right
                assert targets == wanted + [0] * (len(items) - len(read))
                follows = set(pairwise(mixed.train_items(user).tolist()))
                assert all(pair in follows for pair in zip(read, wanted, strict=True))

    def test_a_log_without_any_target_is_refused(self, tmp_path: Path, feeds: Any):
        dataset = write(tmp_path / "d", [[1], [2]], 3)
        with pytest.raises(DatasetError, match=r"no user with two training interactions"):
            feeds(dataset, predict_first=False)

    @pytest.mark.parametrize(
        ("data", "world", "told"),
        [
            (
                Data(global_batch=12, micro_batch=4),
                2,
                r"12\) is not a .* \(4\) times 2 .*micro_batch to 2 or 3 or 6",
            ),
            (Data(global_batch=12, micro_batch=12), 4, "micro_batch to 1 or 3"),
            (Data(global_batch=10, micro_batch=5), 3, r"set data\.global_batch to a multiple of 15"),
        ],
    )
    def test_a_batch_that_cannot_be_shared_out_names_what_can(self, data: Data, world: int, told: str):
        with pytest.raises(ConfigError, match=told):
            check_batches(data, world)


class TestQueries:
    def test_they_hold_the_last_items_before_the_targets(self, mixed: Dataset):
        users = np.array([8, 4])
        batch = queries(mixed, users, "test", 5)
        assert batch.user_B.tolist() == [8, 4]
        for user, row in zip(users, batch.history_BT.tolist(), strict=True):
            expected = mixed.history(user, "test").tolist()[-5:]
            assert row == expected + [0] * (5 - len(expected))
            assert mixed.targets(user, "test").tolist() == mixed.item_rows[mixed.offsets[user + 1] - 1 :][:1].tolist()

    def test_a_history_may_be_empty(self):
        batch = histories(np.array([0]), [np.array([], np.int64)], 5)
        assert batch.history_BT.tolist() == [[0]]
