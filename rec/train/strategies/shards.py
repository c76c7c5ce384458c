"""Parameters of which each rank has rows of its own (`rec.nn.shards`), beside those that are a strategy's to place.

Their gradients are whole where the rows are, and nothing is exchanged. The loss of a rank is multiplied by the number
of ranks, since strategies average: so these gradients, which are sums, come that many times too large.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rec.nn.shards import Shard
from rec.ranks import Ranks
from rec.train.pieces import Piece


def clip(model: nn.Module, shards: Mapping[str, Shard], limit: float, ranks: Ranks) -> Tensor:
    """Scales the gradients of all ranks down to the norm `limit` (0: no limit); the norm before, alike on all ranks."""
    most = limit or math.inf
    trained = {name: one for name, one in model.named_parameters() if one.grad is not None}
    own = [trained.pop(name) for name in shards if name in trained]
    if not own:
        return nn.utils.clip_grad_norm_(trained.values(), most)
    torch._foreach_div_([_here(one) for one in own], ranks.world)
    square = ranks.sum(nn.utils.get_total_norm([_here(one) for one in own]).square())
    rest: Any = nn.utils.get_total_norm([one.grad for one in trained.values() if one.grad is not None])
    rest = rest.full_tensor() if hasattr(rest, "full_tensor") else rest  # where a strategy has dealt out the others
    norm: Tensor = (rest.square() + square).sqrt()
    torch._foreach_mul_([_here(one) for one in (*own, *trained.values())], (most / (norm + 1e-6)).clamp(max=1))
    return norm


def _here(parameter: Any) -> Tensor:
    """What this rank has of a gradient: as it is, or its part of what is dealt out."""
    gradient = parameter.grad
    return gradient.to_local() if hasattr(gradient, "to_local") else gradient


def rows_of_shard(key: str, tensor: Tensor, shard: Shard) -> Piece:
    """The rows of this rank, of a table or of its moments: nobody else has them."""
    values = tensor.detach().view(-1)
    return Piece(key, shard.shape, shard.own.start * shard.embedding_dim, values, (0, len(values)))
