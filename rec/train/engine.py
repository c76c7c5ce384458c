"""The only file that knows Accelerate: it places the model, runs backward across ranks, and checks the world."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor, nn

from rec.errors import ConfigError
from rec.models.base import Recommender
from rec.ranks import Ranks


class Engine:
    """A model and its optimizer on one rank of a world."""

    def __init__(self, precision: Literal["fp32", "bf16", "fp16"], ranks: Ranks) -> None:
        """Joins the process group.

        Raises:
            ConfigError: if the ranks that run are not the ranks that were launched, or fp16 is asked of a CPU.
        """
        on_cpu = not torch.accelerator.is_available()
        if on_cpu and precision == "fp16":
            raise ConfigError("train.precision=fp16 needs a GPU; choose fp32 (or bf16, slow on most CPUs)")
        mixed = "no" if precision == "fp32" else precision
        self.ranks = ranks
        plugin = GradientAccumulationPlugin(num_steps=1)  # the loop accumulates; the environment may not say otherwise
        self.accelerator = Accelerator(cpu=on_cpu, mixed_precision=mixed, gradient_accumulation_plugin=plugin)
        kind = self.accelerator.distributed_type
        if kind in (DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM):
            raise ConfigError(
                f"the Accelerate file asks for {kind.value}, which this version does not train under; "
                "use accelerate_config.yaml"
            )
        if self.accelerator.num_processes != ranks.world:
            raise ConfigError(
                f"{ranks.world} processes were launched but Accelerate runs {self.accelerator.num_processes} "
                f"({kind.value}); launch with torchrun or one of configs/accelerate"
            )
        self.device: torch.device = self.accelerator.device
        self.model: nn.Module
        self.optimizer: Any

    def prepare(self, model: Recommender, optimizer: torch.optim.Optimizer) -> None:
        """Moves both to the device and, with several ranks, joins their gradients."""
        self.bare = model.train()  # a backbone comes from its weights in evaluation mode
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        """Holds back the exchange of gradients for all but the last micro-batch of a step."""
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def backward(self, share: Tensor) -> None:
        """Adds the gradients of this rank's share of the step's loss; over ranks the shares are summed.

        DDP averages over ranks, hence the factor.
        """
        self.accelerator.backward(share * self.ranks.world)

    def update(self, limit: float) -> float:
        """One optimizer step on the gathered gradients, scaled down to the norm `limit` (0: no limit).

        Returns:
            Their norm before. Where it is not finite, the step is left out: parameters and moments stay as they are.
        """
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), limit or torch.inf))
        if math.isfinite(norm):
            self.optimizer.step()
        elif self.accelerator.scaler is not None:
            self.accelerator.scaler.update()  # clipping has unscaled, and so told it of the overflow: the scale falls
        self.optimizer.zero_grad()
        return norm

    def state(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The model's tensors, and the optimizer's under `NAME/moment`; by parameter name, whole, on this rank."""
        moments = {
            f"{name}/{moment}": value
            for name, parameter in self.bare.named_parameters()
            for moment, value in self.optimizer.state.get(parameter, {}).items()
        }
        if self.accelerator.scaler is not None:
            scaler = self.accelerator.scaler.state_dict()
            moments |= {f"scaler/{key}": torch.tensor(float(value)) for key, value in scaler.items()}
        return dict(self.bare.state_dict()), moments

    def restore(self, model: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.bare.load_state_dict(model)
        for name, parameter in self.bare.named_parameters():
            saved = {key.rpartition("/")[2]: value for key, value in moments.items() if key.startswith(f"{name}/")}
            if saved:
                self.optimizer.state[parameter] = {moment: value.to(self.device) for moment, value in saved.items()}
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {}
        if scaler and f"scaler/{next(iter(scaler))}" in moments:  # absent where the run had another precision before
            self.accelerator.scaler.load_state_dict(
                {key: type(value)(moments[f"scaler/{key}"].item()) for key, value in scaler.items()}
            )
