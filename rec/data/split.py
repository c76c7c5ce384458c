"""The split as a view: for every user, how far training goes and where the targets of valid and test stand."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rec.data.dataset import IntArray
from rec.data.filters import drawn, keys_of
from rec.data.keys import mix
from rec.data.options import Options, SplitKind
from rec.data.raw.values import PARTS, milliseconds
from rec.errors import ConfigError

NAMES = ("train", "valid", "test", "history")
"""Names in `interactions.parquet`; the history of a held-out user is neither trained on nor a target."""
Cuts = tuple[float, float]


def chosen(options: Options, has_split: bool, has_times: bool) -> SplitKind:
    """The split of a log, or a ConfigError if the log does not allow it."""
    kind = options.split or ("given" if options.split_column else "leave-one-out")
    if kind == "given" and not has_split:
        raise ConfigError("--split given needs a column with train, valid or test; name it with --split-column")
    if kind == "time" and not has_times:
        raise ConfigError("--split time needs times, which this log has not; choose leave-one-out or ratio")
    return kind


def fractions(options: Options) -> Cuts:
    """Where valid and test begin, as shares."""
    first, second = _two(options)
    if not 0 < first <= second < 1:
        raise ConfigError(f"--split-at {options.split_at} is not two rising fractions; write for example 0.8,0.9")
    return first, second


def moments(options: Options) -> tuple[int, int] | None:
    """Where valid and test begin, in milliseconds; None where shares of the log are meant."""
    texts = (options.split_at or "0.8,0.9").split(",")
    if all(_is_fraction(text) for text in texts):
        return None
    times = [milliseconds(text.strip()) for text in texts]
    if len(times) != 2 or times[0] > times[1]:
        raise ConfigError(
            f"--split-at {options.split_at} is not two rising moments; write for example 2019-01-01,2020-01-01"
        )
    return times[0], times[1]


def codes(column: pa.DictionaryArray) -> IntArray:
    """(rows) int8: 0 train, 1 valid, 2 test, of checked names."""
    parts = np.array([PARTS.get(name, 0) for name in column.dictionary.to_pylist()], np.int8)
    return parts[column.indices.to_numpy()] if len(parts) else np.empty(0, np.int8)


def by_counts(train: IntArray, valid: IntArray, test: IntArray) -> IntArray:
    """(users, 5) bounds of users whose rows stand in the order train, valid, test."""
    return np.stack([train, train, train + valid, train + valid, train + valid + test], axis=1).astype(np.int32)


def leave_one_out(lengths: IntArray) -> IntArray:
    """(users, 5): the last interaction is for test, the one before for valid; fewer than three are all for training."""
    enough = (lengths >= 3).astype(lengths.dtype)
    return by_counts(lengths - 2 * enough, enough, enough)


def ratio(lengths: IntArray, cuts: Cuts) -> IntArray:
    """(users, 5): every user's sequence is cut at two shares of its length; the first interaction is for training."""
    first, second = (np.minimum(np.maximum(_share(lengths, cut), 1), lengths) for cut in cuts)
    return by_counts(first, second - first, lengths - second)


def random(lengths: IntArray, cuts: Cuts) -> IntArray:
    """(users, 5): shares of every user's interactions, at least one each for valid and for test, the rest for training.

    Users with fewer than three interactions only train. The split of arXiv 2402.09617 and 2311.01343.
    """
    first, second = cuts
    enough = (lengths >= 3).astype(lengths.dtype)
    valid, test = (enough * np.maximum(_share(lengths, share), 1) for share in (second - first, 1 - second))
    return by_counts(lengths - valid - test, valid, test)


def random_parts(user: IntArray, users: pa.StringArray, bounds: IntArray, seed: int) -> npt.NDArray[np.int8]:
    """(rows) index into `NAMES` of rows that stand in order of time within their user: who is where is drawn.

    Args:
        user: (rows) user rows, ascending; all rows of each user that occurs.
        users: external ids by row - 1: the draw depends on seed, id and place in time, on no order of the log.
        bounds: (users + 1, 5) how many of each user's rows are in which part.
        seed: of the draw.
    """
    first, last = (int(user[0]), int(user[-1]) + 1) if len(user) else (1, 1)
    key = keys_of(users.slice(first - 1, last - first), seed, "random split")[user - first]
    begin = np.searchsorted(user, user)
    within = np.arange(len(user)) - begin
    drawn_order = np.lexsort((mix(mix(key) ^ mix(within.astype(np.uint64))), user))
    parts = np.empty(len(user), np.int8)
    parts[drawn_order] = row_parts(within, bounds[user])
    return parts


def held_out(lengths: IntArray, users: pa.StringArray, seed: int, cuts: Cuts) -> IntArray:
    """(users, 5): shares of the users are for valid and test: they train nothing, their last fifth is the target."""
    order = drawn(users, np.arange(len(lengths)), seed, "held out")
    first, second = (int(_share(np.array([len(lengths)]), cut)[0]) for cut in cuts)
    part = np.zeros(len(lengths), np.int8)
    part[order[first:second]], part[order[second:]] = 1, 2
    start = np.minimum(np.maximum(_share(lengths, 0.8), 1), lengths)
    bounds = by_counts(lengths, np.zeros_like(lengths), np.zeros_like(lengths))
    nothing = np.zeros_like(lengths)
    as_valid = np.stack([nothing, start, lengths, lengths, lengths], axis=1)
    as_test = np.stack([nothing, nothing, nothing, start, lengths], axis=1)
    bounds[part == 1], bounds[part == 2] = as_valid[part == 1], as_test[part == 2]
    return bounds


def row_parts(within: IntArray, bounds: IntArray) -> npt.NDArray[np.int8]:
    """(rows) index into `NAMES`: of rows by their position `within` the user and the user's bounds (rows, 5)."""
    train, valid_start, valid_stop, test_start, test_stop = bounds.T
    part = np.full(len(within), 3, np.int8)
    part[(within >= test_start) & (within < test_stop)] = 2
    part[(within >= valid_start) & (within < valid_stop)] = 1
    part[within < train] = 0
    return part


def _share(lengths: IntArray, cut: float) -> IntArray:
    # the millionth makes 0.8 x 5 four, whatever the rounding of 0.8
    share: IntArray = np.floor(lengths * cut + 1e-6).astype(np.int64)
    return share


def _two(options: Options) -> Sequence[float]:
    texts = (options.split_at or "0.8,0.9").split(",")
    if len(texts) != 2 or not all(_is_fraction(text) for text in texts):
        raise ConfigError(f"--split-at {options.split_at} is not two fractions; write for example 0.8,0.9")
    return [float(text) for text in texts]


def _is_fraction(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False
