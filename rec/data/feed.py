"""step -> this rank's micro-batches, prepared ahead of use, where a GPU can fetch them by itself."""

from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, NamedTuple

from rec.config.tree import Data
from rec.data.batch import Batch, pin_for
from rec.data.order import deal, order_of_epoch, places_of_step
from rec.data.views import View
from rec.data.windows import Reading, joined
from rec.errors import ConfigError, DatasetError
from rec.ranks import Ranks


class Step(NamedTuple):
    """What one rank does in one optimizer step."""

    batches: list[Batch]
    targets: int
    """Scored positions in the *global* batch; every rank counts them alike, without asking the others."""
    items: int
    """Real (unpadded) input positions in the global batch."""


class Feed:
    """The training data as a function of the step. Steps may be asked for in any order, at the same cost."""

    def __init__(self, view: View[Any], data: Data, *, seed: int, ranks: Ranks, gpu: int | None = None) -> None:
        """`gpu` is the number of the device that batches go to, if they leave the host: they lie in pinned memory."""
        check_batches(data, ranks.world)
        self.view, self.data, self.seed, self.ranks, self.gpu = view, data, seed, ranks, gpu
        self.epoch = lru_cache(maxsize=2)(self._epoch)  # a step touches two at most, unless the data is tiny
        first_epoch = self.epoch(0)
        self.windows, self.targets = len(first_epoch.length), first_epoch.targets
        """Windows, and scored positions, of an epoch: of every epoch."""
        if not self.targets:
            raise DatasetError(
                f"{view.dataset.root} has no user with two training interactions; nothing can be learnt from it"
            )
        begin = None if gpu is None else partial(pin_for, gpu)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed", initializer=begin)
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

    def _epoch(self, epoch: int) -> Reading:
        """The windows of an epoch in the order in which they are read."""
        windows: Reading = self.view.epoch(epoch)
        return windows.take(
            order_of_epoch(windows.alike, seed=self.seed, epoch=epoch, global_batch=self.data.global_batch)
        )

    def _make(self, k: int) -> Step:
        places = places_of_step(k, windows=self.windows, global_batch=self.data.global_batch)
        parts = [self.epoch(epoch).take(within) for epoch, within in places]
        step = joined(parts)
        mine = deal(step.length, micro_batch=self.data.micro_batch, rank=self.ranks.rank, world=self.ranks.world)
        batches = [self.view.batch(k, step.take(rows), step) for rows in mine]
        if self.gpu is not None:
            batches = [batch.pinned() for batch in batches]
        return Step(batches, targets=step.targets, items=int(step.length.sum()))


def check_batches(data: Data, world: int) -> None:
    """Raises ConfigError unless the global batch is whole micro-batches on every rank."""
    if data.global_batch % (data.micro_batch * world):
        share = data.global_batch // world if data.global_batch % world == 0 else 0
        fitting = [size for size in range(1, share + 1) if share % size == 0]
        nearest = sorted(sorted(fitting, key=lambda size: abs(size - data.micro_batch))[:3])
        remedy = (
            f"set data.micro_batch to {' or '.join(map(str, nearest))}"
            if nearest
            else f"set data.global_batch to a multiple of {data.micro_batch * world}"
        )
        raise ConfigError(
            f"data.global_batch ({data.global_batch}) is not a multiple of data.micro_batch ({data.micro_batch}) "
            f"times {world} processes; {remedy}"
        )
