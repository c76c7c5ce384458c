"""Parameter groups by name pattern, and the learning rate as a function of the step."""

import math
from collections.abc import Container
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from rec.config.tree import Group, Optim
from rec.errors import ConfigError


def build_optimizer(model: nn.Module, optim: Optim, apart: Container[str] = ()) -> torch.optim.AdamW:
    """AdamW over the trainable parameters. Vectors (norms, biases) are not decayed.

    Each group keeps its own peak rate under `peak`; `set_rates` scales it. Parameters whose names are `apart` have
    groups of their own, where one kernel cannot update them together with the others.

    Raises:
        ConfigError: if a pattern of `optim.groups` fits no trainable parameter.
    """
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    unused = set(optim.groups)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        pattern = next((pattern for pattern in optim.groups if fnmatchcase(name, pattern)), None)
        unused.discard(str(pattern))
        group = optim.groups[pattern] if pattern is not None else Group()
        lr = optim.lr if group.lr is None else group.lr
        decay = optim.weight_decay if group.weight_decay is None else group.weight_decay
        groups.setdefault((lr, decay if parameter.ndim > 1 else 0.0, name in apart), []).append(parameter)
    if unused:
        parts = ", ".join(f"{name}.*" for name, _ in model.named_children())
        raise ConfigError(f"optim.groups.'{min(unused)}' fits no trainable parameter; the parts are {parts}")
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": lr, "peak": lr, "weight_decay": decay}
            for (lr, decay, _), parameters in groups.items()
        ],
        betas=optim.betas,
        eps=optim.eps,
        fused=True,
    )


def step_if_finite(optimizer: torch.optim.Optimizer, norm: Tensor) -> None:
    """Takes a step of a fused AdamW if the norm () is finite; else parameters, moments and counts stay as they are.

    The device decides: nobody waits for the norm. `found_inf` is what torch's own gradient scaler tells an optimizer.
    """
    optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
    optimizer.step()


def rate_at(step: int, optim: Optim, steps: int) -> float:
    """Share of the peak rate in optimizer step `step` of `steps`, counted from 0.

    >>> [round(rate_at(step, Optim(warmup=2, schedule="linear"), 6), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < optim.warmup:
        return (step + 1) / optim.warmup
    done = (step - optim.warmup) / max(1, steps - optim.warmup)
    match optim.schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1 - (1 - optim.final) * done
        case "cosine":
            return optim.final + (1 - optim.final) * (1 + math.cos(math.pi * done)) / 2


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Sets every group's rate to its share of the group's peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
