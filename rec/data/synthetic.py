"""Logs with a known structure, of any size, in bounded memory.

Shaped like real ones: few users are long, few items are popular (Zipf within every topic), interests drift. What a
sequence model can find out: an item is followed by one of its `FOLLOWERS` followers half the time, and otherwise by a
popular item of the current topic, which passes on to the next topic now and then.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from rec.errors import ConfigError, DatasetError

USERS = 1 << 14
"""Users generated together; also the piece of the random stream: a block depends on its number and the seed only."""
FOLLOWERS = 4
FOLLOW = 0.5
DRIFT = 0.1
ZIPF = 1.0
DAY = 86_400_000
START = 1_400_000_000_000
"""May 2014, in milliseconds."""

YEARS = 5
"""About the longest that a user stays, however many interactions there are."""

Ints = npt.NDArray[np.int64]


class World:
    """What all users share: topics, popularity, followers."""

    def __init__(self, items: int, seed: int):
        random = np.random.default_rng([seed, 0])
        self.items = items
        self.topics = max(1, min(64, items // 20))
        self.size = items // self.topics
        """Items of a topic; those of topic t are t x size .. (t + 1) x size - 1, the most popular first."""
        self.follower = np.stack([self._permutation(random) for _ in range(FOLLOWERS)], axis=1)  # (items, FOLLOWERS)
        self.share = np.cumsum(1 / np.arange(1, self.size + 1) ** ZIPF)
        self.share /= self.share[-1]
        self.name = random.permutation(items)
        """Shown number of an item, so that ids tell nothing."""

    def _permutation(self, random: np.random.Generator) -> Ints:
        """Each item's follower, among those of its topic and the next."""
        near = np.arange(self.items) + random.random(self.items) * 2 * self.size
        order = np.argsort(near, kind="stable")
        follower = np.empty(self.items, np.int64)
        follower[order] = np.roll(order, -1)
        return follower

    def popular(self, topic: Ints, random: np.random.Generator) -> Ints:
        """An item of each topic, by popularity."""
        place: Ints = np.searchsorted(self.share, random.random(len(topic)))
        item: Ints = topic * self.size + place
        return item


def lengths(users: int, interactions: int, seed: int) -> Ints:
    """(users) lengths with a long tail, of the given sum."""
    random = np.random.default_rng([seed, 1])
    least = min(5, interactions // users)
    weight = random.lognormal(0.0, 1.1, users)
    extra = weight * ((interactions - least * users) / weight.sum())
    whole = np.floor(extra).astype(np.int64)
    rest = interactions - least * users - int(whole.sum())
    whole[np.argsort(whole - extra, kind="stable")[:rest]] += 1
    return whole + least


def tables(users: int, items: int, interactions: int, seed: int) -> Iterator[pa.Table]:
    """The log in pieces: user, item, rating, timestamp (seconds); the rows of a piece in order of time."""
    world, length = World(items, seed), lengths(users, interactions, seed)
    for block, first in enumerate(range(0, users, USERS)):
        random = np.random.default_rng([seed, 2, block])
        user, item, time = _walk(world, length[first : first + USERS], random)
        rating = _ratings(user, item, world, random)
        order = np.argsort(time, kind="stable")
        yield pa.table({
            "user": _named("u", first + 1 + user[order]),
            "item": _named("i", 1 + world.name[item[order]]),
            "rating": pa.array(rating[order]),
            "timestamp": pa.array(time[order] // 1000),
        })  # fmt: skip


def _walk(world: World, length: Ints, random: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Sequences of a block of users, step by step for all that are long enough: user, item, milliseconds."""
    order = np.argsort(-length, kind="stable")
    falling = length[order]
    starts = np.cumsum(length) - length
    total = int(length.sum())
    items, times = np.empty(total, np.int64), np.empty(total, np.int64)
    topic = random.integers(world.topics, size=len(length))
    item = world.popular(topic, random)
    time = START + (random.random(len(length)) * 3 * 365 * DAY).astype(np.int64)
    pace = np.minimum(DAY * random.lognormal(1.0, 1.0, len(length)), YEARS * 365 * DAY / length)[order]
    for step in range(int(falling[0])):
        active = int(np.searchsorted(-falling, -step, side="left"))  # users longer than `step`
        topic, item, time, pace = topic[:active], item[:active], time[:active], pace[:active]
        place = starts[order[:active]] + step
        items[place], times[place] = item, time
        drifts = random.random(active) < DRIFT
        topic = np.where(drifts, (topic + 1) % world.topics, topic)
        follows = (random.random(active) < FOLLOW) & (item < world.topics * world.size)
        follower = world.follower[item, random.integers(FOLLOWERS, size=active)]
        item = np.where(follows, follower, world.popular(topic, random))
        time = time + (pace * random.exponential(1.0, active)).astype(np.int64) + 1000
    return np.repeat(np.arange(len(length)), length), items, times


def _ratings(user: Ints, item: Ints, world: World, random: np.random.Generator) -> npt.NDArray[np.int8]:
    """1 .. 5, mostly high, lower for some users and for some items."""
    taste = 4.2 + 0.4 * np.sin(item * 0.7) + 0.5 * np.cos(user * 1.3) + 0.8 * random.standard_normal(len(item))
    stars: npt.NDArray[np.int8] = np.clip(np.rint(taste), 1, 5).astype(np.int8)
    return stars


def _named(prefix: str, numbers: Ints) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(numbers).cast(pa.string()), "")


def write(out: Path, users: int, items: int, interactions: int, seed: int) -> None:
    """Writes the log as CSV, beside and then renamed. ConfigError for sizes that make no log."""
    for name, value in (("users", users), ("items", items)):
        if value < 1:
            raise ConfigError(f"--{name} is {value}; choose 1 or more")
    if items < FOLLOWERS * 5:
        raise ConfigError(f"--items is {items}; choose {FOLLOWERS * 5} or more")
    if interactions < users:
        raise ConfigError(f"--interactions is {interactions}, less than one for each of {users} users; choose more")
    if out.exists():
        raise DatasetError(f"{out} exists; choose another file or remove it")
    beside = out.with_name(out.name + ".tmp")
    schema: Any = pa.schema({"user": pa.string(), "item": pa.string(), "rating": pa.int8(), "timestamp": pa.int64()})
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        options = arrow_csv.WriteOptions(include_header=False, quoting_style="none")
        with beside.open("wb") as file, arrow_csv.CSVWriter(file, schema, write_options=options) as csv:
            file.write(",".join(schema.names).encode() + b"\n")
            for table in tables(users, items, interactions, seed):
                csv.write_table(table)
        beside.replace(out)
    except OSError as error:
        raise DatasetError(
            f"cannot write {out}: {error.strerror or error}; make room or choose another --out"
        ) from None
    finally:
        beside.unlink(missing_ok=True)
