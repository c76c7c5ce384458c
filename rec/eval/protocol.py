"""What a target is ranked among. The name goes with every number: `ndcg@10[full]`, `ndcg@10[uniform100]`.

    full           the whole catalogue without the items of the history; the honest one, and the default
    uniformN       N items drawn uniformly, none of which the user has anywhere in the log
    popularityN    the same, drawn by their training interactions
    upstreamN      N items drawn uniformly, apart only from history and targets; ties go to the target: the
                   rule of published tables of the kind "1 + 100", kept for comparison with them. A constant
                   model scores 1 there, and at validation the test item may be among the negatives

Drawn items are distinct, and a function of (seed, user) and of what they may not be: the same on any number
of ranks. Sampled metrics flatter, and can turn the order of models around (Krichene and Rendle, KDD 2020).
"""

import difflib
import re
from dataclasses import dataclass, field

import numpy as np

from rec.data.dataset import Dataset, IntArray, Split
from rec.errors import ConfigError

KINDS = ("uniform", "popularity", "upstream")


@dataclass(frozen=True)
class Protocol:
    kind: str = "full"
    negatives: int = 0
    """Sampled items per query; 0 ranks among the whole catalogue."""

    def __str__(self) -> str:
        return f"{self.kind}{self.negatives or ''}"

    @property
    def full(self) -> bool:
        return self.kind == "full"

    @property
    def favours_targets(self) -> bool:
        return self.kind == "upstream"


def parse(text: str) -> Protocol:
    """`full`, `uniform100`, `popularity100` or `upstream100` -> Protocol."""
    if text == "full":
        return Protocol()
    found = re.fullmatch(rf"({'|'.join(KINDS)})([1-9]\d{{0,8}})", text)
    if found is None:
        known = ["full", *(f"{kind}100" for kind in KINDS)]
        nearest = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
        remedy = f"did you mean '{nearest[0]}'?" if nearest else f"choose one of {', '.join(known)}"
        raise ConfigError(f"unknown protocol '{text}'; {remedy}")
    return Protocol(found[1], int(found[2]))


@dataclass(frozen=True)
class Sampler:
    """Draws the negatives of a query."""

    protocol: Protocol
    dataset: Dataset = field(repr=False)
    split: Split
    seed: int
    cumulative: IntArray = field(repr=False)
    """(items) running sum of the weights of the items 1 .. items."""

    @classmethod
    def of(cls, protocol: Protocol, dataset: Dataset, split: Split, seed: int) -> "Sampler":
        weights = dataset.train_counts[1:] if protocol.kind == "popularity" else np.ones(dataset.items, np.int64)
        return cls(protocol, dataset, split, seed, np.cumsum(weights))

    def draw(self, user: int) -> IntArray:
        """(N) distinct item rows."""
        wanted, barred = self.protocol.negatives, self._barred(user)
        weights = np.diff(self.cumulative, prepend=0)[barred - 1]
        possible = self.dataset.items - len(barred)
        if self.protocol.kind == "popularity":
            possible = int(np.count_nonzero(self.dataset.train_counts[1:])) - int(np.count_nonzero(weights))
        if possible < wanted:
            user_id = self.dataset.user_ids[user]
            raise ConfigError(f"protocol {self.protocol} leaves user '{user_id}' only {possible} items; choose fewer")
        random = np.random.default_rng((self.seed, user))
        drawn = np.empty(0, np.int64)
        for _ in range(20):
            ticket = random.integers(self.cumulative[-1], size=2 * wanted)
            drawn = np.concatenate([drawn, np.searchsorted(self.cumulative, ticket, side="right") + 1])
            drawn = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
            drawn = drawn[~np.isin(drawn, barred)][:wanted]
            if len(drawn) == wanted:
                return drawn
        return self._complete(drawn, barred, random)

    def _complete(self, drawn: IntArray, barred: IntArray, random: np.random.Generator) -> IntArray:
        """Goes on where few items are left: the smallest of exponential times with the weights as rates."""
        rates = np.diff(self.cumulative, prepend=0).astype(np.float64)
        rates[np.concatenate([drawn, barred]) - 1] = 0
        left = np.flatnonzero(rates)
        times = random.exponential(size=len(left)) / rates[left]
        more = left[np.argsort(times, kind="stable")[: self.protocol.negatives - len(drawn)]] + 1
        return np.concatenate([drawn, more])

    def _barred(self, user: int) -> IntArray:
        """Item rows that are no negatives of the user, each once."""
        data = self.dataset
        if self.protocol.kind == "upstream":
            return np.union1d(data.history(user, self.split), data.targets(user, self.split)).astype(np.int64)
        return np.unique(data.item_rows[data.offsets[user] : data.offsets[user + 1]]).astype(np.int64)
