"""DeepSpeed ZeRO: moments (stage 1), gradients (2) and parameters (3) are dealt to the ranks."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import deepspeed
import torch
from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError
from torch import Tensor

from rec.config.tree import Optim
from rec.errors import CheckpointError, ConfigError
from rec.nn.backbone import blocks
from rec.ranks import Ranks
from rec.train.optim import build_optimizer
from rec.train.pieces import Parts, Piece
from rec.train.strategies.engine import Engine, Precision, prime, replicated


class Held(NamedTuple):
    """Where this rank keeps its stretch of a trained parameter: in a vector that holds many of them."""

    start: int
    """First element, of the flattened parameter."""
    size: int
    vector: Tensor
    offset: int
    """Of the stretch in the vector, and in the vectors of its moments."""


class Zero(Engine):
    """DeepSpeed's engine around the model.

    Stages 1 and 2 keep all parameters on every rank; of their fp32 masters and moments, one long vector for each group
    of parameters, a rank has a stretch. Stage 3 cuts every flattened parameter into equal parts.
    """

    goes_ahead = False
    """DeepSpeed waits for the norm in its own step, and has no way to throw away gradients that it has gathered."""

    def __init__(self, ranks: Ranks, precision: Precision, settings: Mapping[str, Any]) -> None:
        """`settings` is DeepSpeed's own configuration, with every number of the run in its place.

        Raises:
            ConfigError: for fp16, which is not offered here, and for settings that DeepSpeed refuses.
        """
        super().__init__(ranks, precision)
        if precision == "fp16":
            raise ConfigError("train.precision=fp16 is not offered under ZeRO; choose bf16, or the strategy ddp")
        try:
            DeepSpeedConfig(dict(settings))
        except (DeepSpeedConfigError, ValueError, TypeError, AssertionError) as error:
            raise ConfigError(f"DeepSpeed refuses its file: {' '.join(str(error).split())}") from None
        self.settings, self.stage = dict(settings), int(settings["zero_optimization"]["stage"])
        self.name = f"zero{self.stage}"
        # DeepSpeed calls exchanges by names that torch has changed since; it warns at each, and a user can do nothing
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")

    def _place(self, optim: Optim) -> None:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it is compiled on a CPU, and not used
        optimizer = build_optimizer(self.bare, optim)
        self.engine, self.zero, *_ = deepspeed.initialize(model=self.bare, optimizer=optimizer, config=self.settings)
        self.model, self.optimizer = self.engine, self.zero.optimizer
        if self.stage == 3:
            # What lies outside the blocks is gathered for the whole of a forward pass, as under FSDP2: the loss reads
            # the item table itself, not through a module that would fetch it.
            inside = {id(parameter) for block in blocks(self.bare) for parameter in block.parameters()}
            for parameter in self.bare.parameters():
                if id(parameter) not in inside:
                    deepspeed.zero.register_external_parameter(self.bare, parameter)
        self.vectors: list[Tensor] = (
            self.zero.fp32_partitioned_groups_flat if self.stage == 3 else self.zero.single_partition_of_fp32_groups
        )
        self.places = {} if self.stage == 3 else self._places()
        prime(self.optimizer, self.vectors)

    def accumulate(self, *, last: bool) -> AbstractContextManager[None]:
        self.engine.set_gradient_accumulation_boundary(is_boundary=last)
        return super().accumulate(last=last)

    def backward(self, share: Tensor) -> None:
        self.engine.backward(share * self.ranks.world)  # ZeRO averages

    def update(self, limit: float) -> Tensor:
        self.engine.step()  # clips to the limit in its settings; leaves out a step that is not finite, with norm inf
        return torch.as_tensor(self.engine.get_global_grad_norm(), dtype=torch.float32, device=self.device)

    def pieces(self) -> Iterator[Piece]:
        for name, tensor in self.bare.state_dict(keep_vars=True).items():
            if tensor.requires_grad:
                yield from self._stretch(name, tensor)
            elif self.stage == 3 and hasattr(tensor, "ds_tensor"):
                size = len(tensor.ds_tensor)
                yield self._part(name, tensor, tensor.ds_tensor, self.ranks.rank * size, size)
            else:
                yield replicated(name, tensor, self.ranks)

    def _stretch(self, name: str, parameter: Tensor) -> Iterator[Piece]:
        """The master of a trained parameter, and its moments."""
        held = self._held(parameter)
        if held is None:
            return
        state = self.optimizer.state[held.vector]
        for key, vector in [(name, held.vector), *((f"{name}/{moment}", value) for moment, value in state.items())]:
            if vector.ndim:
                yield self._part(key, parameter, vector[held.offset :], held.start, held.size)
            else:  # the count of steps, one for the whole vector
                yield Piece(key, (), 0, vector.view(1), (0, int(held.start == 0)))

    def _held(self, parameter: Tensor) -> Held | None:
        """None where this rank has nothing of the parameter."""
        if self.stage == 3:
            group, offset, size = self.zero.grad_position[self.zero.get_param_id(parameter)]
            return Held(self.ranks.rank * size, size, self.vectors[group], offset)
        group, offset = self.places[parameter]
        vector = self.vectors[group]
        first = self.ranks.rank * len(vector)
        start, stop = max(first, offset), min(first + len(vector), offset + parameter.numel())
        return Held(start - offset, stop - start, vector, start - first) if start < stop else None

    def _places(self) -> dict[Tensor, tuple[int, int]]:
        """Group of each trained parameter, and its first element in the group's vector, over all ranks.

        Taken from where its memory lies: DeepSpeed's own table is of another order where the JSON says
        round_robin_gradients.
        """
        return {
            parameter: (group, (parameter.data_ptr() - flat.data_ptr()) // flat.element_size())
            for group, flat in enumerate(self.zero.bit16_groups_flat)
            for parameter in self.zero.bit16_groups[group]
        }

    def _part(self, key: str, parameter: Any, values: Tensor, start: int, size: int) -> Piece:
        """The stretch without what stage 3 has added to make the parts equal."""
        shape = tuple(parameter.ds_shape if self.stage == 3 else parameter.shape)
        numel = parameter.ds_numel if self.stage == 3 else parameter.numel()
        real = max(0, min(size, numel - start))
        return Piece(key, shape, min(start, numel), values.detach()[:real], (0, real))

    def restore(self, parts: Parts) -> None:
        """As every engine.

        Raises:
            CheckpointError: also if parameters whose moments ZeRO keeps together were not updated equally often.
        """
        counts = {key: int(parts.whole(key)) for key in parts.shapes if key.endswith("/step")}
        if len(set(counts.values())) > 1:
            least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
            raise CheckpointError(
                f"{parts.folder}: {least} is {counts[least]} but {most} is {counts[most]}, and ZeRO keeps one count "
                "for all; go on with the strategy ddp or fsdp2"
            )
        if self.stage == 3:
            self.zero._partition_all_parameters()
        super().restore(parts)

    def settle(self) -> None:
        """The parameters follow their masters."""
        if self.stage < 3:
            self.zero.update_lp_params()
            return
        for group in range(len(self.vectors)):
            self.zero._reassign_or_swap_out_partitioned_parameters(group)
        if self.zero.persistent_parameters:  # small ones, which every rank keeps whole
            self.zero.persistent_parameters[0].all_gather(self.zero.persistent_parameters)
