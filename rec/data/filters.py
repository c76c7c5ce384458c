"""What is left of a log. The order is always the same, and is that of this file.

minimum rating, dates, words (row by row, while reading); duplicates, k-core, last interactions, sample of users
(once the log is in order).
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rec.data.options import Options
from rec.data.ordered import Ordered
from rec.data.raw.chunk import Chunk
from rec.data.raw.values import milliseconds, words
from rec.errors import ConfigError

RowFilter = tuple[str, Callable[[Chunk], npt.NDArray[np.bool_]]]


def row_filters(options: Options) -> list[RowFilter]:
    """(name, chunk -> rows to keep) in order."""
    filters: list[RowFilter] = []
    if (least := options.min_rating) is not None:
        filters.append(
            (f"min-rating {least:g}", lambda chunk: _needed(chunk.rating, "--min-rating", "rating") >= least)
        )
    if options.since is not None:
        since = milliseconds(options.since)
        filters.append((f"since {options.since}", lambda chunk: _needed(chunk.time, "--since", "time") >= since))
    if options.until is not None:
        until = milliseconds(options.until)
        filters.append((f"until {options.until}", lambda chunk: _needed(chunk.time, "--until", "time") < until))
    if (fewest := options.min_words) is not None:
        filters.append(
            (
                f"min-words {fewest}",
                lambda chunk: words(_needed(chunk.texts.get("review"), "--min-words", "text")) >= fewest,
            )
        )
    return filters


def log_filters(options: Options, users: pa.StringArray) -> list[tuple[str, Callable[[Ordered], None]]]:
    """(name, filter that drops rows) in order. `users` are the external ids by code."""
    filters: list[tuple[str, Callable[[Ordered], None]]] = []
    if options.duplicates != "all":
        filters.append((f"duplicates {options.duplicates}", lambda log: duplicates(log, options.duplicates == "first")))
    if options.core_users or options.core_items:
        parts = [f"core-{kind} {least}" for kind, least in
                 (("users", options.core_users), ("items", options.core_items)) if least]  # fmt: skip
        filters.append((" ".join(parts), lambda log: core(log, options.core_users or 0, options.core_items or 0)))
    if (most := options.last) is not None:
        filters.append((f"last {most}", lambda log: last(log, most)))
    if (size := options.sample) is not None:
        filters.append((f"sample {size} seed {options.seed}", lambda log: sample(log, size, options.seed, users)))
    return filters


def duplicates(log: Ordered, first: bool) -> None:
    """Keeps one interaction of every user with an item: the first, or else the last."""
    for part, (user, item) in log.kept("user", "item"):
        pair = (user.astype(np.int64) - part.first) * log.items + item.astype(np.int64)
        order = np.argsort(pair, kind="stable")
        again = pair[order][1:] == pair[order][:-1]
        gone = np.zeros(len(pair), np.bool_)
        gone[order[1:] if first else order[:-1]] = again
        log.drop(part, gone)


def core(log: Ordered, users: int, items: int) -> None:
    """Leaves out users and items with too few interactions, again and again until there is none."""
    while True:
        of_user, of_item = log.counts()
        poor_user, poor_item = of_user < users, of_item < items
        if not (poor_user & (of_user > 0)).any() and not (poor_item & (of_item > 0)).any():
            return
        for part, (user, item) in log.kept("user", "item"):
            log.drop(part, poor_user[user] | poor_item[item])


def last(log: Ordered, most: int) -> None:
    """Keeps the last interactions of each user."""
    for part, (user,) in log.kept("user"):
        ends = np.cumsum(np.bincount(user - part.first, minlength=part.last - part.first))
        log.drop(part, np.arange(len(user)) < ends[user - part.first] - most)


def sample(log: Ordered, users: int, seed: int, ids: pa.StringArray) -> None:
    """Keeps so many users."""
    of_user, _ = log.counts()
    chosen = np.zeros(log.users, np.bool_)
    chosen[drawn(ids, np.flatnonzero(of_user), seed, "sample")[:users]] = True
    for part, (user,) in log.kept("user"):
        log.drop(part, ~chosen[user])


def drawn(ids: pa.StringArray, codes: npt.NDArray[np.int64], seed: int, purpose: str) -> npt.NDArray[np.int64]:
    """The codes in an order that depends on seed, purpose and external id alone, on no order of the input."""
    return codes[np.argsort(keys_of(ids.take(pa.array(codes)), seed, purpose), kind="stable")]


def keys_of(ids: pa.StringArray, seed: int, purpose: str) -> npt.NDArray[np.uint64]:
    """(ids) a random number of each, which depends on seed, purpose and external id alone."""
    salt = blake2b(f"{purpose} {seed}".encode(), digest_size=16).digest()
    keys = b"".join(blake2b(text.encode(), digest_size=8, salt=salt).digest() for text in ids.to_pylist())
    return np.frombuffer(keys, ">u8").astype(np.uint64)


def _needed(values: Any, option: str, role: str) -> Any:
    if values is None:
        raise ConfigError(f"{option} needs a {role}, which this log has not; name its column with --{role}-column")
    return values
