"""The train graph's edges as tensors: users are counted from 0, as in their table; items have their row of padding."""

import numpy as np
import torch
from torch import Tensor

from rec.data.batch import Sequences
from rec.data.dataset import IntArray
from rec.graph.graph import Graph
from rec.nn.mean_over_layers import Edges
from rec.nn.propagate import Propagation

MOST = 2**31
"""Edges that int32 can count."""


def propagation(graph: Graph, *, layers: int, dropout: float, fan_out: int) -> Propagation:
    """The graph as a block; on torch's meta device, a block of the same size."""
    kind = torch.int32 if len(graph.user_items) < MOST else torch.int64
    user_offsets, user_items = _tensor(graph.user_offsets[1:], kind), _tensor(graph.user_items, kind)
    item_offsets, item_users = _tensor(graph.item_offsets, kind), _tensor(graph.item_users, kind).sub_(1)
    users, items = Edges(user_offsets, user_items), Edges(item_offsets, item_users)
    return Propagation(users, items, layers=layers, dropout=dropout, fan_out=fan_out)


def items_of(batch: Sequences) -> Tensor:
    """(N) item rows that the loss of a batch reads, unless a term of it reads all."""
    return torch.cat(
        [batch.first_B, *(rows.flatten() for rows in (batch.items_BT, batch.targets_BT, batch.negatives_BK))]
    )


def _tensor(values: IntArray, kind: torch.dtype) -> Tensor:
    """A copy on the device that new tensors are made on."""
    tensor = torch.empty(values.shape, dtype=kind)
    return tensor if tensor.is_meta else tensor.copy_(torch.from_numpy(np.array(values)))
