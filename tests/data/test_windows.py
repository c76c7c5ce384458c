"""Histories cut into windows: each training target is in exactly one."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rec.data.dataset import Dataset
from rec.data.windows import cut
from tests.eval.tiny import write


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
