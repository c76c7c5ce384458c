"""The queries of a split, cut into blocks whose composition depends on the dataset alone.

Queries are sorted by the length of their history, so that a block has little padding, and whole blocks are
dealt to the ranks: whoever scores a block, it is the same block, and its scores are the same to the last bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from rec.data.batch import Queries
from rec.data.dataset import (
    TEST_START,
    TEST_STOP,
    TRAIN_STOP,
    VALID_START,
    VALID_STOP,
    Dataset,
    IntArray,
    Split,
)
from rec.eval.protocol import Sampler
from rec.eval.ranking import Pool


@dataclass(frozen=True)
class Block:
    users: IntArray
    """(B) user rows."""
    queries: Queries
    pool: Pool
    targets: IntArray
    """(B) the number of targets, repetitions counted once."""
    masked: IntArray
    """(B) how many of them are no candidates, for they stand in the history."""


def evenly_spaced(users: IntArray, most: int) -> IntArray:
    """So many of them at most, in order."""
    return users[np.arange(most) * len(users) // most] if most < len(users) else users


def drawn(users: IntArray, most: int, seed: int) -> IntArray:
    """So many of them at most, in order, and always the same; of more users, all of these and others."""
    if most >= len(users):
        return users
    return np.sort(np.random.default_rng((seed, 0)).permutation(users)[:most])


def split_into_blocks(dataset: Dataset, split: Split, size: int, users: IntArray) -> list[IntArray]:
    """User rows of queries, by (length of the history, row), cut into blocks of `size`."""
    lengths = dataset.bounds[users, VALID_START if split == "valid" else TEST_START]
    users = users[np.argsort(lengths, kind="stable")]
    return [users[start : start + size] for start in range(0, len(users), size)]


def targets(dataset: Dataset, split: Split, users: IntArray) -> tuple[IntArray, IntArray]:
    """(n) position within `users` and item row of all their targets; a target that is repeated is one."""
    first, last = (VALID_START, VALID_STOP) if split == "valid" else (TEST_START, TEST_STOP)
    bounds = dataset.bounds[users].astype(np.int64)
    begin = dataset.offsets[users] + bounds[:, first]
    return _once(*_ragged(dataset, begin, bounds[:, last] - bounds[:, first]), dataset.items)


def assemble(
    dataset: Dataset,
    split: Split,
    users: IntArray,
    *,
    max_items: int,
    filter_seen: bool,
    sampler: Sampler | None = None,
) -> Block:
    """The block of these users.

    A user without a single training interaction is asked about as the user nobody knows, row 0: there is no
    user vector that training could have touched.
    """
    begin, bounds = dataset.offsets[users], dataset.bounds[users].astype(np.int64)
    lengths = bounds[:, VALID_START if split == "valid" else TEST_START]
    shown = np.minimum(lengths, max_items)
    recent = begin + lengths - shown
    history_BT = _padded(*_ragged(dataset, recent, shown), len(users), least=1)
    times_BT = torch.zeros_like(history_BT)
    if dataset.has_times:
        times_BT = _padded(*_ragged(dataset, recent, shown, dataset.times), len(users), least=1)
    seen = _once(*_ragged(dataset, begin, lengths), dataset.items)
    if not filter_seen:
        seen = (seen[0][:0], seen[1][:0])
    query, item = targets(dataset, split, users)
    hidden = np.isin(_key(query, item, dataset.items), _key(*seen, dataset.items))
    targets_BM, hidden_BM = (
        _padded(query, item, len(users)),
        _padded(query, hidden.astype(np.int64), len(users)),
    )
    negatives = torch.from_numpy(np.stack([sampler.draw(user) for user in users.tolist()])) if sampler else None
    known = np.where(bounds[:, TRAIN_STOP] > 0, users, 0)
    return Block(
        users,
        Queries(torch.from_numpy(known), history_BT, times_BT),
        Pool(
            targets_BM,
            (targets_BM > 0) & (hidden_BM == 0),
            _padded(*seen, len(users)),
            negatives,
            favour_targets=sampler is not None and sampler.protocol.favours_targets,
        ),
        np.bincount(query, minlength=len(users)),
        np.bincount(query[hidden], minlength=len(users)),
    )


def _ragged(
    dataset: Dataset, begin: IntArray, lengths: IntArray, values: IntArray | None = None
) -> tuple[IntArray, IntArray]:
    """Ranges of stored positions -> (the range of each, its item row or another value), flat and in order."""
    rows = np.repeat(np.arange(len(begin)), lengths)
    positions = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + begin[rows]
    return rows, (dataset.item_rows if values is None else values)[positions].astype(np.int64)


def _key(rows: IntArray, items: IntArray, catalogue: int) -> IntArray:
    return rows * (catalogue + 1) + items


def _once(rows: IntArray, items: IntArray, catalogue: int) -> tuple[IntArray, IntArray]:
    """The pairs in order, each once."""
    keys = np.unique(_key(rows, items, catalogue))
    return keys // (catalogue + 1), keys % (catalogue + 1)


def _padded(rows: IntArray, values: IntArray, height: int, least: int = 0) -> torch.Tensor:
    """Flat values, in order of rows -> int64 (height, longest row or `least`), filled up with 0."""
    lengths = np.bincount(rows, minlength=height)
    padded = np.zeros((height, max(int(lengths.max(initial=0)), least)), np.int64)
    padded[rows, np.arange(len(rows)) - (np.cumsum(lengths) - lengths)[rows]] = values
    return torch.from_numpy(padded)


class Answer(NamedTuple):
    """What is kept of a block."""

    users: IntArray
    targets: IntArray
    masked: IntArray
    ranks: IntArray
    lists_QK: IntArray


def in_order(answers: Sequence[Answer]) -> Answer:
    """All blocks as one, by user row."""
    whole = Answer(*(np.concatenate(column) for column in zip(*answers, strict=True)))
    order = np.argsort(whole.users)
    places = np.argsort(np.repeat(whole.users, whole.targets), kind="stable")
    return Answer(
        whole.users[order], whole.targets[order], whole.masked[order], whole.ranks[places], whole.lists_QK[order]
    )
