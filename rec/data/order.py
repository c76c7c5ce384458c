"""Which windows make a step. Integers in, index arrays out; no state: the position in the data is the step."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from rec.data.dataset import IntArray


def windows_of_step(step: int, *, seed: int, windows: int, global_batch: int) -> Iterator[tuple[int, IntArray]]:
    """(epoch, window numbers) of a step, `global_batch` numbers in all; the same on every rank, at any number of ranks.

    The stream of windows is one permutation after another, each epoch with its own: every window comes once per epoch,
    and a step may straddle epochs. The cost is the same for any step.
    """
    place = step * global_batch + np.arange(global_batch)
    epochs = place // windows
    for epoch in np.unique(epochs).tolist():
        yield epoch, _permutation(seed, epoch, windows)[place[epochs == epoch] % windows]


@lru_cache(maxsize=2)  # a step touches two epochs at most, unless the data is smaller than a batch
def _permutation(seed: int, epoch: int, windows: int) -> IntArray:
    return np.random.default_rng((seed, epoch)).permutation(windows)


def deal(lengths: IntArray, *, micro_batch: int, rank: int, world: int) -> list[IntArray]:
    """The micro-batches of one rank: rows of a step of similar length together, so that little is padded.

    The rows are sorted by length, cut into micro-batches, and dealt to the ranks in turn. Which window comes with
    which changes no result, since losses are summed over the whole step.

    Args:
        lengths: (global_batch) input items of each window of the step.
    """
    longest_first = np.argsort(-lengths, kind="stable")
    return list(longest_first.reshape(-1, micro_batch)[rank::world])
