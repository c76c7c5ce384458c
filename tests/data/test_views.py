"""Histories as queries."""

import numpy as np

from rec.data.dataset import Dataset
from rec.data.views import histories, queries


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
