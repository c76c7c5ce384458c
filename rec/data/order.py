"""Which windows make a step. Integers in, index arrays out; no state: the position in the data is the step."""

from functools import lru_cache

import numpy as np

from rec.data.dataset import IntArray


def windows_of_step(step: int, *, seed: int, windows: int, global_batch: int) -> IntArray:
    """(global_batch) window numbers of a step; the same on every rank, at any number of ranks.

    The stream of windows is one permutation after another, each epoch with its own: every window comes once per epoch,
    and a step may straddle two epochs. The cost is the same for any step.
    """
    place = step * global_batch + np.arange(global_batch)
    epochs = place // windows
    return np.concatenate(
        [_permutation(seed, int(epoch), windows)[place[epochs == epoch] % windows] for epoch in np.unique(epochs)]
    )


@lru_cache(maxsize=2)  # a step touches two epochs at most, unless the data is smaller than a batch
def _permutation(seed: int, epoch: int, windows: int) -> IntArray:
    return np.random.default_rng((seed, epoch)).permutation(windows)


def deal(order: IntArray, lengths: IntArray, *, micro_batch: int, rank: int, world: int) -> list[IntArray]:
    """The micro-batches of one rank: windows of similar length together, so that little is padded.

    A step's windows are sorted by length, cut into micro-batches, and dealt to the ranks in turn. Which window comes
    with which changes no result, since losses are summed over the whole step.

    Args:
        order: (global_batch) window numbers of the step.
        lengths: (windows) input items of each window.
    """
    longest_first = order[np.argsort(-lengths[order], kind="stable")]
    return list(longest_first.reshape(-1, micro_batch)[rank::world])
