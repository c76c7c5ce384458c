"""A trained model for people: external ids in, external ids and titles out."""

import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rec.data.batch import Queries
from rec.data.dataset import FloatArray, IntArray
from rec.data.people import Person
from rec.data.views import histories as batch
from rec.errors import ConfigError
from rec.eval.ranking import best
from rec.models import saved
from rec.models.base import ask
from rec.ranks import Ranks

BLOCK = 256
"""People scored at once."""

Histories = Sequence[Sequence[str]]
Users = Sequence[str | None] | None
Times = Sequence[Sequence[int]] | None


class Recommended(NamedTuple):
    item: str
    """External id."""
    score: float
    """Higher is better; comparable within one person's list only."""
    title: str
    """What the item is called; its id where nothing is known."""


class Found(NamedTuple):
    """What was found for a block of people, in numbers: small enough to travel between ranks."""

    users: list[str | None]
    items_BK: IntArray
    """int32 item rows, best first; 0 where there are fewer."""
    scores_BK: FloatArray
    unknown: list[str]
    """Items of their histories that the model has never heard of, each once."""


class TrainedModel:
    """Recommends from histories, on the device given.

    >>> model = rec.load("runs/demo")                                               # doctest: +SKIP
    >>> model.recommend([["50", "181", "172"]], k=3)[0][0].title                    # doctest: +SKIP
    'Empire Strikes Back, The'
    """

    def __init__(self, opened: saved.Saved, device: torch.device | None = None) -> None:
        self.saved = opened
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = opened.model.to(self.device).settle()

    @cached_property
    def item_rows(self) -> dict[str, int]:
        """External id -> row of every item the model can recommend."""
        return {item: row for row, item in enumerate(self.saved.item_ids) if row}

    @cached_property
    def user_rows(self) -> dict[str, int]:
        """External id -> row of every user the model was trained on."""
        return {user: row for row, user in enumerate(self.saved.user_ids) if row}

    def unknown(self, histories: Sequence[Sequence[str]]) -> list[str]:
        """The items of the histories that the model has never heard of, each once, in order."""
        return list(dict.fromkeys(item for history in histories for item in history if item not in self.item_rows))

    def recommend(
        self,
        histories: Histories,
        k: int = 20,
        *,
        users: Users = None,
        times: Times = None,
        filter_seen: bool = True,
    ) -> list[list[Recommended]]:
        """The k best items for each person, best first.

        Args:
            histories: external item ids of each person, oldest first. Unknown items are left out, with a warning.
            k: items a person; fewer come back where the catalogue has no more.
            users: external user ids; None, or a name the model does not know, is a stranger.
            times: milliseconds since 1970 of each history's items, 0 where unknown; read by models to which it matters.
            filter_seen: whether items of the history are kept out.

        Raises:
            ConfigError: if k is not positive, or there are not as many users, or times, as histories, or items.
            FloatingPointError: if a score is not finite.
        """
        require_positive(k)
        if users is not None and len(users) != len(histories):
            raise ConfigError(f"{len(users)} users were given for {len(histories)} histories; give one for each")
        if times is not None and [len(person) for person in times] != [len(person) for person in histories]:
            raise ConfigError("times are not as many as the items of each history; give one for each item")
        if any(isinstance(person, str) for person in histories):
            raise ConfigError("each history is a list of item ids, not one text; write [[id, id, ...], ...]")
        missing = self.unknown(histories)
        if missing:
            warnings.warn(f"{len(missing)} unknown items are left out, among them {missing[:5]}", stacklevel=2)
        user_rows, rows, moments = self._rows(histories, users, times)
        lists: list[list[Recommended]] = []
        for start in range(0, len(rows), BLOCK):
            chosen = slice(start, start + BLOCK)
            lists += self.named(*self._block(user_rows[chosen], rows[chosen], moments[chosen], k, filter_seen))
        return lists

    def for_all(self, people: Sequence[Person], k: int, ranks: Ranks) -> Iterator[Found]:
        """The k best items for each person, in the order of the people, a block at a time; the same on every rank.

        Blocks are dealt to the ranks in turn. People are asked for a block at a time, and nothing is kept of them.
        """
        require_positive(k)
        for turn in range(0, len(people), ranks.world * BLOCK):
            start = turn + ranks.rank * BLOCK
            found = ranks.gather(ranks.together(partial(self._found, people, start, k)))
            yield from (block for block in found if block.users)

    def _found(self, people: Sequence[Person], start: int, k: int) -> Found:
        """For the block that begins with a person; nothing where other ranks have the last ones."""
        if start >= len(people):
            return Found([], np.empty((0, k), np.int32), np.empty((0, k), np.float32), [])
        users, histories, times = (list(column) for column in zip(*people[start : start + BLOCK], strict=True))
        items_BK, scores_BK = self._block(*self._rows(histories, users, times), k, filter_seen=True)
        return Found(users, items_BK, scores_BK, self.unknown(histories))

    def queries(self, histories: Histories, users: Users = None, times: Times = None) -> Queries:
        """The histories as the model reads them; arguments as of `recommend`, unknown items are left out."""
        user_rows, rows, moments = self._rows(histories, users, times)
        return batch(user_rows, rows, self.saved.run.data.max_items, moments).to(self.device)

    def _rows(
        self, histories: Histories, users: Users, times: Times
    ) -> tuple[IntArray, list[IntArray], list[IntArray]]:
        """External ids -> user rows, item rows and times of each person, without unknown items."""
        known = [[place for place, item in enumerate(person) if item in self.item_rows] for person in histories]
        rows = [
            np.array([self.item_rows[person[place]] for place in places], int)
            for person, places in zip(histories, known, strict=True)
        ]
        moments = [
            np.array([person[place] for place in places], int)
            for person, places in zip(times or [[0] * len(person) for person in histories], known, strict=True)
        ]
        user_rows = np.array([self.user_rows.get(user or "", 0) for user in users or [None] * len(rows)], int)
        return user_rows, rows, moments

    @torch.no_grad()
    def _block(
        self, users: IntArray, rows: list[IntArray], times: list[IntArray], k: int, filter_seen: bool
    ) -> tuple[IntArray, FloatArray]:
        """(B, K) int32 item rows, best first, 0 where there are fewer; and their scores."""
        queries = batch(users, rows, self.saved.run.data.max_items, times).to(self.device)
        seen = batch(users, rows if filter_seen else [row[:0] for row in rows], max([1, *map(len, rows)]))
        seen_BS = seen.history_BT.to(self.device)

        def name(row: int) -> str:
            return self.saved.user_ids[users[row]] or "-"

        items_BK, values_BK = ask(self.model, queries, lambda scores: best(scores, seen_BS, k, name))
        return items_BK.int().cpu().numpy(), values_BK.cpu().numpy()

    def named(self, items_BK: IntArray, scores_BK: FloatArray) -> list[list[Recommended]]:
        """Item rows and scores of each person, as people read them."""
        ids, titles = self.saved.item_ids, self.saved.titles
        return [
            [Recommended(ids[i], v, titles[i]) for i, v in zip(items, values, strict=True) if i]
            for items, values in zip(items_BK.tolist(), scores_BK.tolist(), strict=True)
        ]


def require_positive(k: int) -> None:
    """Raises ConfigError for lists of nothing."""
    if k < 1:
        raise ConfigError(f"k is {k}; ask for at least one item")


def load(path: str | Path) -> TrainedModel:
    """Opens a run folder, or its `model` folder."""
    return TrainedModel(saved.load(Path(path)))
