"""What the loop sees of a strategy, and the two simplest: one process, and DDP."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rec.config.tree import Optim
from rec.errors import ConfigError
from rec.models.base import Recommender
from rec.nn.shards import Shard
from rec.ranks import Ranks, device_of, share
from rec.train.optim import build_optimizer, step_if_finite
from rec.train.pieces import Parts, Piece
from rec.train.strategies.shards import clip, rows_of_shard

Precision = Literal["fp32", "bf16", "fp16"]
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_SCALE = 1.0
"""Of fp16's gradients: what overflows at a smaller one is no work of the scale."""


class Engine(ABC):
    """A model and its optimizer on one rank of a world."""

    name: str
    """Of the strategy."""
    bare: Recommender
    """The model as it was built. Its parameters may be shards."""
    shards: dict[str, Shard]
    """Those that are so by the model's own doing, by name: the strategy leaves them alone."""
    model: nn.Module
    """What is called, in training and in evaluation."""
    optimizer: torch.optim.Optimizer
    """Its groups carry the rates."""
    goes_ahead = True
    """Whether the passes of a step may be queued before it is known what the step before has come to."""

    def __init__(self, ranks: Ranks, precision: Precision) -> None:
        """Finds this rank's device.

        Raises:
            ConfigError: if fp16 is asked of a CPU.
        """
        self.ranks, self.precision, self.device = ranks, precision, device_of(ranks)
        if self.device.type == "cpu" and precision == "fp16":
            raise ConfigError("train.precision=fp16 needs a GPU; choose fp32, or bf16 where the processor has it")

    def prepare(self, model: Recommender, optim: Optim) -> None:
        """Places the model and makes its optimizer."""
        self.bare = model.train()  # a backbone comes from its weights in evaluation mode
        self.shards = model.shards()
        self.bare.products = HALVES.get(self.precision)
        self._place(optim)

    @abstractmethod
    def _place(self, optim: Optim) -> None:
        """Sets `model` and `optimizer`, with all state of the optimizer there from the start."""

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Holds back the exchange of gradients for all but the last micro-batch of a step, where that is possible."""
        return nullcontext()

    @abstractmethod
    def backward(self, share: Tensor) -> None:
        """Adds the gradients of this rank's share of the step's loss; over ranks the shares are summed."""

    @abstractmethod
    def update(self, limit: float) -> Tensor:
        """Scales the gradients down to the norm `limit` (0: no limit) and takes a step.

        A step whose gradients are not finite is left out: the device sees to it. The gradients are gone afterwards.

        Returns:
            The norm () before scaling, of the gradients of all ranks, on the device; the same on every rank.
        """

    @property
    def overflows(self) -> Tensor:
        """() 1 if a finite loss may have gradients that are not: fp16's scale is still looked for, and was too large.

        Such a step is left out, and nobody's fault: it happens at the start, and whenever a larger scale is tried.
        """
        return torch.zeros((), device=self.device)

    @abstractmethod
    def pieces(self) -> Iterator[Piece]:
        """What this rank holds of parameters, buffers and moments; the same keys in the same order each time."""

    def restore(self, parts: Parts) -> None:
        """Takes parameters, buffers and moments from a checkpoint; `settle` has to follow on all ranks together.

        Raises:
            CheckpointError: if one of them is not there.
        """
        for piece in self.pieces():
            parts.fill(piece)

    def settle(self) -> None:
        """Makes everything that is derived from the pieces follow them."""
        return

    def scaler(self) -> dict[str, Any]:
        """The state of the loss scaler; empty where there is none."""
        return {}

    def restore_scaler(self, state: dict[str, Any]) -> None:
        """The inverse of `scaler`."""
        return


class Plain(Engine):
    """Every rank holds everything: one process, or DDP over several."""

    def __init__(self, ranks: Ranks, precision: Precision) -> None:
        super().__init__(ranks, precision)
        self.name = "single" if ranks.world == 1 else "ddp"

    def _place(self, optim: Optim) -> None:
        self.bare.to(self.device)
        self.model = self.bare
        rest = [name for name, one in self.bare.named_parameters() if one.requires_grad and name not in self.shards]
        if self.ranks.world > 1 and rest:
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.bare, list(self.shards))
            devices = None if self.device.type == "cpu" else [self.device]
            self.model = DistributedDataParallel(self.bare, device_ids=devices, gradient_as_bucket_view=True)
            self.model.broadcast_buffers = False  # they are constants, a graph for example, and not sent in every pass
        self.optimizer = build_optimizer(self.bare, optim)
        prime(self.optimizer, trained(self.optimizer))
        if isinstance(self.model, DistributedDataParallel):
            fix_buckets(self.model)
            self.optimizer.zero_grad()
        self.scale = torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) and not last else nullcontext()

    def backward(self, share: Tensor) -> None:
        share = share * self.ranks.world  # DDP averages
        (self.scale.scale(share) if self.scale else share).backward()

    def update(self, limit: float) -> Tensor:
        if self.scale:
            self.scale.unscale_(self.optimizer)
        norm = clip(self.bare, self.shards, limit, self.ranks)
        step_if_finite(self.optimizer, norm)
        if self.scale:
            self.scale.update()  # lowers the scale where gradients were not finite
        self.optimizer.zero_grad()
        return norm

    @property
    def overflows(self) -> Tensor:
        one = torch.ones((), device=self.device)
        return super().overflows if self.scale is None else (self.scale.scale(one) >= LEAST_SCALE).float()

    def pieces(self) -> Iterator[Piece]:
        for key, tensor in self.bare.state_dict().items():
            yield self._piece(key, tensor)
        for name, parameter in self.bare.named_parameters():
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                yield self._piece(f"{name}/{moment}", value)

    def _piece(self, key: str, tensor: Tensor) -> Piece:
        shard = self.shards.get(key.partition("/")[0])
        return rows_of_shard(key, tensor, shard) if shard and tensor.ndim else replicated(key, tensor, self.ranks)

    def scaler(self) -> dict[str, Any]:
        return self.scale.state_dict() if self.scale else {}

    def restore_scaler(self, state: dict[str, Any]) -> None:
        if self.scale and state:  # there is none where the run had another precision before
            self.scale.load_state_dict(state)


def fix_buckets(model: DistributedDataParallel) -> None:
    """Has DDP deal its gradients into buckets for good: the order of the parameters backwards.

    It would do so after the first real backward pass, and the place of a gradient in a bucket decides in which order
    three ranks or more are added: the first step after a resume would be rounded in another way than without a stop.
    """
    total = torch.zeros((), device=model.device)
    for parameter in model.module.parameters():
        if parameter.requires_grad:
            total = total + (parameter * 0).sum()
    model.reducer.prepare_for_backward([])
    total.backward()
    model.reducer._rebuild_buckets()


def trained(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters of all groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def prime(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor]) -> None:
    """Makes AdamW's state as its first step would: memory is known at the start, and a checkpoint has a place to go."""
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }


def replicated(key: str, tensor: Tensor, ranks: Ranks) -> Piece:
    """A whole tensor, of which every rank has the same: each writes its share."""
    values = tensor.detach().view(-1)
    return Piece(key, tuple(tensor.shape), 0, values, share(len(values), ranks.rank, ranks.world))
