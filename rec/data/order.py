"""Which windows make a step. Integers in, index arrays out; no state: the position in the data is the step."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np

from rec.data.dataset import FloatArray, IntArray

SPREAD = 16
"""Batches that are drawn together and then sorted by length."""


def places_of_step(step: int, *, windows: int, global_batch: int) -> Iterator[tuple[int, slice]]:
    """(epoch, places in its order) of a step, `global_batch` places in all. A step may straddle epochs."""
    place, stop = step * global_batch, (step + 1) * global_batch
    while place < stop:
        epoch, within = divmod(place, windows)
        count = min(stop - place, windows - within)
        yield epoch, slice(within, within + count)
        place += count


def order_of_epoch(lengths: IntArray | FloatArray, *, seed: int, epoch: int, global_batch: int) -> IntArray:
    """(windows) the order in which an epoch reads its windows: each once; the same at any number of ranks.

    The windows are shuffled, sorted by length within stretches of `SPREAD` batches, and the batches shuffled again. So
    the windows of a step are of similar length: little is padded, ranks have equal work, and since a step divides
    by its own positions, short histories are not drowned by long ones (docs/experiments.md has the difference).

    Args:
        lengths: (windows) input items of each window of the epoch, or what else those of a step should be alike in.
        seed: of the run.
        epoch: counted from 0.
        global_batch: windows in a step.
    """
    generator = np.random.default_rng((seed, epoch))
    shuffled = generator.permutation(len(lengths))
    begun = -epoch * len(lengths) % global_batch  # places that complete the step begun in the epoch before
    order = _by_length(shuffled, lengths, begun, SPREAD * global_batch)
    whole = max(0, len(order) - begun) // global_batch
    batches = order[begun : begun + whole * global_batch].reshape(whole, global_batch)
    return np.concatenate([order[:begun], generator.permutation(batches).ravel(), order[begun + batches.size :]])


def _by_length(order: IntArray, lengths: IntArray | FloatArray, begun: int, size: int) -> IntArray:
    """The order, sorted by length within its first `begun` places and within each stretch of `size` after them.

    A seek waits for this: short integers are sorted by their digits, a row for each stretch, in a quarter of the time.
    """
    alike = lengths[order]
    if alike.dtype.kind in "iu" and len(alike) and alike.min() >= 0 and alike.max() < 2**16:
        alike = alike.astype(np.uint16)
    stop = begun + max(0, len(order) - begun) // size * size
    parts = []
    for part in (slice(0, begun), slice(begun, stop), slice(stop, None)):
        rows, width = order[part], size if part.start == begun < stop else max(1, len(order[part]))
        within = np.argsort(alike[part].reshape(-1, width), axis=1, kind="stable")
        parts.append(np.take_along_axis(rows.reshape(-1, width), within, axis=1).ravel())
    return np.concatenate(parts)


def deal(lengths: IntArray, *, micro_batch: int, rank: int, world: int) -> Sequence[IntArray]:
    """The micro-batches of one rank: rows of a step of similar length together, so that little is padded.

    The rows are sorted by length, cut into micro-batches of equal work, and dealt to the ranks in turn. Which window
    comes with which changes no result, since losses are summed over the whole step.

    Args:
        lengths: (global_batch) input items of each window of the step.
        micro_batch: windows of a micro-batch if all are of one length.
    """
    longest_first = np.argsort(-lengths, kind="stable")
    sizes = even_sizes(lengths[longest_first], len(lengths) // micro_batch)
    return np.split(longest_first, np.cumsum(sizes)[:-1])[rank::world]


def even_sizes(lengths: IntArray, pieces: int) -> list[int]:
    """Windows in each of `pieces` stretches of a step whose largest has as few padded places as can be.

    So a micro-batch has few long windows, or many short ones: its memory and its time are about those of any other,
    and no rank waits for the one with the longest windows.

    Args:
        lengths: (windows) input items of each window, falling; there are at least as many windows as pieces.
        pieces: how many stretches; none is empty.
    """
    places: list[int] = np.maximum(lengths, 1).tolist()
    most = bisect_left(
        range(places[0] * -(-len(places) // pieces)),  # the even share, all as long as the longest: always enough
        True,
        lo=max(places[0], sum(places) // pieces),  # less than the longest one, or than the mean, is not
        key=lambda most: sum(_filled(places, pieces, most)) == len(places),
    )
    return _filled(places, pieces, most)


def _filled(places: list[int], pieces: int, most: int) -> list[int]:
    """Windows in each stretch if it takes what fits into `most` places, and leaves one to each that follows."""
    sizes, begun = [], 0
    for after in reversed(range(pieces)):
        sizes.append(max(1, min(most // places[begun], len(places) - begun - after)))
        begun += sizes[-1]
    return sizes
