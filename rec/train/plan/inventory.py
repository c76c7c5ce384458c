"""The parameters of a model, counted."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import NamedTuple

from torch import nn

from rec.models.base import Recommender
from rec.nn.backbone import blocks


class Count(NamedTuple):
    """Numbers in some parameters."""

    all: int
    trained: int

    def less(self, other: "Count") -> "Count":
        return Count(self.all - other.all, self.trained - other.trained)


NOTHING = Count(0, 0)


@dataclass(frozen=True)
class Inventory:
    """The parameters of a model."""

    parts: dict[str, Count]
    """By the model's parts: tables, heads, backbone."""
    block: Count
    """The largest layer of the backbone: what is gathered at a time."""
    root: Count
    """All that lies outside the layers: gathered for the whole of a pass."""
    shards: Count = NOTHING
    """Those of the tables whose rows lie on several ranks, of all ranks together."""
    own: Count = NOTHING
    """What one rank has of them, at most."""

    @property
    def whole(self) -> Count:
        return Count(*map(sum, zip(*self.parts.values(), strict=True)))

    @property
    def rest(self) -> "Inventory":
        """What a strategy places."""
        if self.shards == NOTHING:
            return self
        parts = {**self.parts, "tables": self.parts["tables"].less(self.shards)}
        return replace(self, parts=parts, root=self.root.less(self.shards), shards=NOTHING, own=NOTHING)


def count(model: Recommender) -> Inventory:
    """The parameters of a model, by its parts and by what is gathered together; of shards, those of all ranks."""
    layers, shards = blocks(model), model.shards().values()
    inside = [_count(layer.parameters()) for layer in layers]
    parts = {name: _count(part.parameters()) for name, part in model.named_children()}
    own = _count(shard.weight for shard in shards)
    if own != NOTHING:
        trained = [prod(shard.shape) * shard.weight.requires_grad for shard in shards]
        dealt = Count(sum(prod(shard.shape) for shard in shards), sum(trained))
        tables = parts["tables"].less(own)
        parts["tables"] = Count(tables.all + dealt.all, tables.trained + dealt.trained)
    else:
        dealt = NOTHING
    whole = Count(*map(sum, zip(*parts.values(), strict=True)))
    within = Count(sum(one.all for one in inside), sum(one.trained for one in inside))
    return Inventory(parts, max(inside, default=NOTHING), whole.less(within), dealt, own)


def _count(parameters: Iterable[nn.Parameter]) -> Count:
    sizes = [(parameter.numel(), parameter.numel() * parameter.requires_grad) for parameter in parameters]
    return Count(sum(size for size, _ in sizes), sum(trained for _, trained in sizes))
