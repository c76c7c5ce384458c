"""A graph that has a size and no edges in particular: what a model is planned with before its dataset is there."""

from pathlib import Path
from typing import Any

import numpy as np

from rec.data.dataset import IntArray
from rec.graph.graph import SCHEMA, Graph
from rec.graph.neighbours import QUANTILES, Neighbours
from rec.graph.relations import HORIZON


def outline(users: int, items: int, edges: int, top: int = 32) -> Graph:
    """A graph of so many users and items without padding, edges, and neighbours of an item. It takes next to no memory.

    Nobody shares an attribute in it, since nobody knows which there will be.
    """
    rows = _nothing(np.int32, items + 1, top)
    numbers = _nothing(np.float32, items + 1, top)
    totals = _nothing(np.float64, items + 1)
    lists = Neighbours(rows, numbers, numbers, totals, np.zeros(QUANTILES - 1, np.float32), symmetric=False)
    return Graph(
        Path(),
        {"schema": SCHEMA, "options": {"top": top, "horizon": HORIZON}, "fingerprint": ""},
        user_offsets=_even(users, edges),
        user_items=_nothing(np.int32, edges),
        item_offsets=_even(items, edges),
        item_users=_nothing(np.int32, edges),
        together=lists,
        following=lists,
        attributes={},
    )


def _even(nodes: int, edges: int) -> IntArray:
    """(nodes + 2) offsets: the edges dealt evenly to all nodes but the padding."""
    return np.concatenate([[0], np.arange(nodes + 1) * edges // nodes])


def _nothing(kind: type, *shape: int) -> Any:
    """An array of zeros that has the memory of one."""
    return np.broadcast_to(np.zeros((), kind), shape)
