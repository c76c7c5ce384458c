"""What an epoch consists of: windows, and how far they are padded; from a prepared dataset or from its size alone."""

from dataclasses import dataclass

import numpy as np

from rec.config.tree import Run
from rec.data.dataset import Dataset, IntArray
from rec.data.order import even_sizes, order_of_epoch
from rec.data.windows import cut
from rec.errors import ConfigError, DatasetError
from rec.graph.graph import Graph
from rec.graph.outline import outline
from rec.models import graph_of
from rec.train.plan.rehearsal import Flops, Rehearsal

HELD_OUT = 2
"""Interactions of a user that the usual split keeps for validation and test."""


@dataclass(frozen=True)
class Work:
    """Sums over an epoch."""

    users: int
    items: int
    windows: int
    longest: int
    """Items of the longest window: what memory has to hold."""
    padded: float
    """Items of all windows, padded to the longest of their micro-batch."""
    squares: float
    """Squared padded items, summed over all windows."""
    targets: int
    """Scored positions."""
    graph: Graph | None = None
    """The train graph, or an outline of it, if the run's model reads one."""

    def flops(self, rehearsal: Rehearsal, *, user_token: bool) -> Flops:
        """Floating-point operations of an epoch, over all ranks, from a rehearsal with windows of `longest` items."""
        windows, token = rehearsal.windows, int(user_token)
        places = windows * (self.longest + token)
        squared = windows * (self.longest + token) ** 2
        flops = rehearsal.flops
        return Flops(
            backbone=flops.backbone * (self.padded + token * self.windows) / places,
            attention=flops.attention * (self.squares + token * (2 * self.padded + self.windows)) / squared,
            loss=flops.loss * self.targets / rehearsal.targets,
        )


def of_dataset(dataset: Dataset, run: Run) -> Work:
    """Counts the first epoch as the feed will read it; DatasetError where the dataset lacks what the run needs."""
    first = run.model.predict_first
    windows = cut(dataset, run.data.max_items, predict_first=first, seed=run.seed, epoch=0)
    if not windows.targets:
        raise DatasetError(f"{dataset.root} has no user with two training interactions; nothing can be learnt from it")
    order = order_of_epoch(windows.length, seed=run.seed, epoch=0, global_batch=run.data.global_batch)
    padded = _padded(windows.length[order], run.data.global_batch, run.data.micro_batch)
    return Work(
        users=dataset.users,
        items=dataset.items,
        windows=len(padded),
        longest=max(1, int(padded.max())),
        padded=float(padded.sum()),
        squares=float((padded.astype(float) ** 2).sum()),
        targets=windows.targets,
        graph=graph_of(run, dataset),
    )


def of_counts(users: int, items: int, interactions: int, run: Run) -> Work:
    """As if all users had equally many interactions, but for memory, where one fills `data.max_items`.

    Raises:
        ConfigError: if the users have too few interactions to learn from.
    """
    inputs = interactions // users - HELD_OUT - 1
    if inputs < 1:
        raise ConfigError(
            f"{interactions} interactions of {users} users leave nothing to train on after validation and test; "
            "give more interactions"
        )
    pieces = -(-inputs // run.data.max_items)
    length = inputs / pieces
    return Work(
        users=users,
        items=items,
        windows=users * pieces,
        longest=run.data.max_items,
        padded=float(users * inputs),
        squares=users * pieces * length**2,
        targets=users * (inputs + run.model.predict_first),
        graph=outline(users, items, interactions) if run.model.needs_graph else None,
    )


def _padded(lengths: IntArray, global_batch: int, micro_batch: int) -> IntArray:
    """(windows) items of each window with its padding: the feed sorts a step by length and cuts it."""
    padded = []
    for begin in range(0, len(lengths), global_batch):
        step = -np.sort(-lengths[begin : begin + global_batch])
        sizes = even_sizes(step, -(-len(step) // micro_batch))
        padded.append(np.maximum(1, step[np.cumsum([0, *sizes[:-1]])]).repeat(sizes))
    return np.concatenate(padded)
