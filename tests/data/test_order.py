"""Which windows make which step, and which of them are whose: pure functions."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.data.order import SPREAD, deal, even_sizes, order_of_epoch, places_of_step


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
