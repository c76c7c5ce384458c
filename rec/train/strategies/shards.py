"""Parameters of which each rank has rows of its own (`rec.nn.shards`), beside those that are a strategy's to place.

Their gradients are whole where the rows are, and nothing is exchanged. The loss of a rank is multiplied by the number
of ranks, since strategies average: so these gradients, which are sums, come that many times too large.
"""

import math
from collections.abc import Mapping

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
    gradients = [one.grad for one in own if one.grad is not None]
    torch._foreach_div_(gradients, ranks.world)
    square = ranks.sum(nn.utils.get_total_norm(gradients).square())
    rest = [one.grad for one in trained.values() if one.grad is not None]
    norm = (nn.utils.get_total_norm(rest).square() + square).sqrt()
    nn.utils.clip_grads_with_norm_([*trained.values(), *own], most, norm)
    return norm


def rows_of_shard(key: str, tensor: Tensor, shard: Shard) -> Piece:
    """The rows of this rank, of a table or of its moments: nobody else has them."""
    values = tensor.detach().view(-1)
    shape = (shard.num_embeddings, shard.embedding_dim)
    return Piece(key, shape, shard.own.start * shard.embedding_dim, values, (0, len(values)))
