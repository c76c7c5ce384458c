"""The train graph's edges as tensors: users are counted from 0, as in their table; items have their row of padding."""

import numpy as np
import torch
from torch import Tensor

from rec.data.dataset import IntArray
from rec.graph.graph import Graph
from rec.nn.propagate import Edges, Propagation

MOST = 2**31
"""Edges that int32 can count."""


def propagation(graph: Graph, *, layers: int, dropout: float) -> Propagation:
    """The graph as a block; on torch's meta device, a block of the same size."""
    kind = torch.int32 if len(graph.user_items) < MOST else torch.int64
    user_offsets, user_items = _tensor(graph.user_offsets[1:], kind), _tensor(graph.user_items, kind)
    item_offsets, item_users = _tensor(graph.item_offsets, kind), _tensor(graph.item_users, kind).sub_(1)
    return Propagation(Edges(user_offsets, user_items), Edges(item_offsets, item_users), layers=layers, dropout=dropout)


def _tensor(values: IntArray, kind: torch.dtype) -> Tensor:
    """A copy on the device that new tensors are made on."""
    tensor = torch.empty(values.shape, dtype=kind)
    return tensor if tensor.is_meta else tensor.copy_(torch.from_numpy(np.array(values)))
