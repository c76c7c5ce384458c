"""Small datasets written for a test."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rec.data import store
from rec.data.dataset import Dataset, ragged


def leave_one_out(length: int) -> tuple[int, int, int, int, int]:
    """Bounds of a sequence: the last item is tested, the one before it validates, the others train."""
    train = length if length < 3 else length - 2
    return (train, train, max(train, length - 1), max(train, length - 1), length)


def write(
    root: Path,
    sequences: Sequence[Sequence[int]],
    items: int,
    bounds: Sequence[tuple[int, int, int, int, int]] | None = None,
    times: Sequence[Sequence[int]] | None = None,
) -> Dataset:
    """Item rows of the users 1, 2, ... -> a prepared dataset, leave-one-out unless bounds are given."""
    values, offsets = ragged([np.asarray(sequence, np.int32) for sequence in sequences])
    rows = bounds or [leave_one_out(len(sequence)) for sequence in sequences]
    store.write(
        root,
        user_ids=[f"u{user}" for user in range(1, len(sequences) + 1)],
        item_ids=[f"i{item}" for item in range(1, items + 1)],
        offsets=np.concatenate([[0], offsets]),
        items=values,
        times=np.concatenate([np.asarray(row) for row in times]) if times else np.arange(len(values)),
        ratings=np.ones(len(values)),
        bounds=np.array([(0, 0, 0, 0, 0), *rows]),
        split="leave_one_out",
        has_times=times is not None,
    )
    return Dataset.open(root)
