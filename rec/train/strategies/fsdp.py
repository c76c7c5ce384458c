"""FSDP2: rows of every parameter, of its gradient and of its moments are dealt to the ranks."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import cast

from torch import Tensor
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from rec.config.tree import Optim
from rec.errors import ConfigError
from rec.nn.backbone import blocks
from rec.ranks import Ranks
from rec.train.optim import build_optimizer, step_if_finite
from rec.train.pieces import Piece
from rec.train.strategies.engine import Engine, Precision, prime, replicated, trained
from rec.train.strategies.shards import clip, rows_of_shard


class Fsdp(Engine):
    """Each block of the backbone is gathered when it is needed; all the rest for the whole of a forward pass."""

    name = "fsdp2"

    def __init__(self, ranks: Ranks, precision: Precision, *, reshard: bool, offload: bool) -> None:
        """`reshard` frees a block after its forward pass; `offload` keeps shards in CPU memory.

        Raises:
            ConfigError: for fp16, whose loss scaler FSDP2 has no counterpart of.
        """
        super().__init__(ranks, precision)
        if precision == "fp16":
            raise ConfigError("train.precision=fp16 is not offered under fsdp2; choose bf16, or the strategy ddp")
        self.reshard = reshard
        self.offload = CPUOffloadPolicy() if offload and self.device.type != "cpu" else OffloadPolicy()

    def _place(self, optim: Optim) -> None:
        if not isinstance(self.offload, CPUOffloadPolicy):
            self.bare.to(self.device)
        for block in blocks(self.bare):
            fully_shard(block, reshard_after_forward=self.reshard, offload_policy=self.offload)
        for shard in self.shards.values():
            shard.to(self.device)
        whole = {shard.weight for shard in self.shards.values()}
        fully_shard(self.bare, offload_policy=self.offload, ignored_params=whole)
        self.model = self.bare
        self.optimizer = build_optimizer(self.bare, optim, apart=self.shards)
        prime(self.optimizer, trained(self.optimizer))

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        return self._held_back(last)

    @contextmanager
    def _held_back(self, last: bool) -> Iterator[None]:
        cast(FSDPModule, self.model).set_requires_gradient_sync(last)
        yield

    def backward(self, share: Tensor) -> None:
        (share * self.ranks.world).backward()  # FSDP2 averages

    def update(self, limit: float) -> Tensor:
        norm = clip(self.bare, self.shards, limit, self.ranks)
        total = norm.full_tensor() if isinstance(norm, DTensor) else norm
        step_if_finite(self.optimizer, total)
        self.optimizer.zero_grad()
        return total

    def pieces(self) -> Iterator[Piece]:
        for key, tensor in self.bare.state_dict().items():
            yield self._piece(key, tensor)
        for name, parameter in self.bare.named_parameters():
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                yield self._piece(f"{name}/{moment}", value)

    def _piece(self, key: str, tensor: Tensor) -> Piece:
        """Rows are a stretch of the flattened whole. What is no DTensor, and no shard, is on every rank."""
        shard = self.shards.get(key.partition("/")[0])
        if shard and tensor.ndim:
            return rows_of_shard(key, tensor, shard)
        if not isinstance(tensor, DTensor):
            return replicated(key, tensor, self.ranks)
        _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
        values: Tensor = tensor.to_local().detach().view(-1)
        start = offset[0] * math.prod(tensor.shape[1:]) if len(values) else 0
        return Piece(key, tuple(tensor.shape), start, values, (0, len(values)))
