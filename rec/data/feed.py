"""step -> this rank's micro-batches, prepared ahead of use."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from rec.config.tree import Data
from rec.data import views
from rec.data.batch import Sequences
from rec.data.dataset import Dataset
from rec.data.keys import keys
from rec.data.negatives import Negatives
from rec.data.order import deal, windows_of_step
from rec.data.windows import Windows, cut
from rec.errors import ConfigError, DatasetError
from rec.ranks import Ranks


class Step(NamedTuple):
    """What one rank does in one optimizer step."""

    batches: list[Sequences]
    targets: int
    """Scored positions in the *global* batch; every rank counts them alike, without asking the others."""
    items: int
    """Real (unpadded) input positions in the global batch."""


class Feed:
    """The training data as a function of the step. Steps may be asked for in any order, at the same cost."""

    def __init__(self, dataset: Dataset, data: Data, *, predict_first: bool, seed: int, ranks: Ranks) -> None:
        check_batches(data, ranks.world)
        self.dataset, self.data, self.seed, self.ranks = dataset, data, seed, ranks
        self.windows: Windows = cut(dataset, data.max_items, predict_first=predict_first)
        if not len(self.windows.user):
            raise DatasetError(
                f"{dataset.root} has no user with two training interactions; nothing can be learnt from it"
            )
        self.negatives = Negatives(dataset, data.negative_sampling)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed")
        self._ahead: dict[int, Future[Step]] = {}

    def step(self, k: int) -> Step:
        """The micro-batches of step `k`; begins to prepare the steps after it."""
        current = self._ahead.pop(k, None)
        self._ahead = {step: future for step, future in self._ahead.items() if k < step <= k + self.data.prefetch}
        for step in range(k + 1, k + 1 + self.data.prefetch):
            if step not in self._ahead:
                self._ahead[step] = self._thread.submit(self._make, step)
        return current.result() if current else self._make(k)

    def close(self) -> None:
        """Ends the thread that prepares ahead."""
        self._thread.shutdown(cancel_futures=True)

    def _make(self, k: int) -> Step:
        order = windows_of_step(k, seed=self.seed, windows=len(self.windows.user), global_batch=self.data.global_batch)
        micro_batch, ranks = self.data.micro_batch, self.ranks
        mine = deal(order, self.windows.lengths, micro_batch=micro_batch, rank=ranks.rank, world=ranks.world)
        return Step(
            batches=[self._batch(k, rows) for rows in mine],
            targets=int(self.windows.targets[order].sum()),
            items=int(self.windows.lengths[order].sum()),
        )

    def _batch(self, k: int, rows: np.ndarray) -> Sequences:
        return views.next_items(
            self.dataset, self.windows, rows, keys(self.seed, k, rows), self.negatives, self.data.negatives
        )


def check_batches(data: Data, world: int) -> None:
    """Raises ConfigError unless the global batch is whole micro-batches on every rank."""
    if data.global_batch % (data.micro_batch * world):
        share = data.global_batch // world if data.global_batch % world == 0 else 0
        fitting = [size for size in range(1, share + 1) if share % size == 0]
        nearest = sorted(sorted(fitting, key=lambda size: abs(size - data.micro_batch))[:3])
        remedy = (
            f"set data.micro_batch to {' or '.join(map(str, nearest))}"
            if nearest
            else f"set data.global_batch to a multiple of {world}"
        )
        raise ConfigError(
            f"data.global_batch ({data.global_batch}) is not a multiple of data.micro_batch ({data.micro_batch}) "
            f"times {world} processes; {remedy}"
        )
