"""The batches of a step, and what every rank must agree on."""

import threading
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rec.config.tree import Data
from rec.data.batch import Sequences
from rec.data.dataset import Dataset
from rec.data.feed import Feed, check_batches
from rec.data.views import NextItems, queries
from rec.errors import ConfigError, DatasetError
from rec.ranks import Ranks
from tests.eval.tiny import write


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


class TestForAGpu:
    def _feed(self, dataset: Dataset, gpu: int | None) -> Feed:
        data = Data(global_batch=8, micro_batch=4, max_items=6, negatives=3, prefetch=2)
        return Feed(NextItems(dataset, data, predict_first=False, seed=1), data, seed=1, ranks=Ranks(), gpu=gpu)

    def test_each_tensor_is_pinned_in_the_thread_that_made_it_and_of_the_same_values(
        self, mixed: Dataset, monkeypatch: pytest.MonkeyPatch
    ):
        by_thread: dict[str, list[Tensor]] = {}
        chosen = []

        def pin(tensor: Tensor) -> Tensor:
            by_thread.setdefault(threading.current_thread().name.partition("_")[0], []).append(tensor)
            return tensor.clone()

        monkeypatch.setattr(Tensor, "pin_memory", pin)
        monkeypatch.setattr(
            torch.cuda, "set_device", lambda device: chosen.append((threading.current_thread().name, device))
        )
        host, gpu = self._feed(mixed, None), self._feed(mixed, 3)
        with closing(host), closing(gpu):
            plain, fast = ([feed.step(step) for step in range(3)] for feed in (host, gpu))
        assert chosen == [("feed_0", 3)]
        assert by_thread.keys() == {"MainThread", "feed"}  # the first step is not there ahead of use
        handed = [tensor for step in fast for batch in step.batches for tensor in batch]
        assert len(by_thread["MainThread"]) == len(handed) / 3
        assert not {id(tensor) for tensor in handed} & {id(one) for some in by_thread.values() for one in some}
        assert all(
            torch.equal(*pair)
            for one, other in zip(plain, fast, strict=True)
            for batches in zip(one.batches, other.batches, strict=True)
            for pair in zip(*batches, strict=True)
        )

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
    def test_a_gpu_copies_from_there(self, mixed: Dataset):
        with closing(self._feed(mixed, 0)) as feed:
            for batch in feed.step(1).batches:
                assert all(tensor.is_pinned() for tensor in batch if tensor.numel())
                assert all(
                    torch.equal(one.cpu(), other)
                    for one, other in zip(batch.to(torch.device("cuda", 0)), batch, strict=True)
                )
