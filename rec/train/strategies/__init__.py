"""How a model, its gradients and its moments lie on the ranks. The loop is the same for all; a launch chooses one."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rec.config.tree import Run
from rec.errors import ConfigError
from rec.ranks import Ranks, device_for_deepspeed
from rec.train.strategies.engine import Engine, Plain

Name = Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp2"]


@dataclass(frozen=True)
class Strategy:
    """What a launch asks for."""

    name: Name
    deepspeed: Mapping[str, Any] = field(default_factory=dict)
    """DeepSpeed's JSON, under ZeRO."""
    reshard_after_forward: bool = True
    """FSDP2: whether a block is freed after its forward pass and gathered again for its backward pass."""
    offload: bool = False
    """FSDP2: whether shards lie in CPU memory."""


def require_offered(name: Name, run: Run) -> None:
    """Raises ConfigError for a strategy that the run's model cannot be trained under."""
    if fault := refusal(name, run):
        raise ConfigError(fault)
    if run.model.shard_tables and run.train.precision == "fp16":
        raise ConfigError(
            "train.precision=fp16 is not offered with model.shard_tables; choose bf16, or set model.shard_tables=false"
        )


def refusal(name: Name, run: Run) -> str:
    """Why the run's model cannot be trained under a strategy; empty where it can."""
    if not run.model.shard_tables or not name.startswith("zero"):
        return ""
    return (
        f"model.shard_tables deals the tables' rows out by itself, and {name} would deal them out again; "
        "choose the strategy ddp or fsdp2, or set model.shard_tables=false"
    )


def build(strategy: Strategy, run: Run, ranks: Ranks) -> Engine:
    """The engine of a strategy. DeepSpeed and FSDP2 are imported only where they are asked for.

    Raises:
        ConfigError: if the strategy does not fit the number of ranks, the run, or this machine.
    """
    if strategy.name != "single" and ranks.world == 1:
        raise ConfigError(
            f"{strategy.name} is asked for but one process runs alone; start several (kindling launch --processes N, "
            "torchrun, or `accelerate launch` with a file of configs/accelerate), or choose --strategy single"
        )
    if strategy.name == "single" and ranks.world > 1:
        raise ConfigError(f"the strategy is single but {ranks.world} processes run; choose ddp, zero1-3 or fsdp2")
    precision = run.train.precision
    match strategy.name:
        case "single" | "ddp":
            return Plain(ranks, precision)
        case "fsdp2":
            from rec.train.strategies.fsdp import Fsdp

            return Fsdp(ranks, precision, reshard=strategy.reshard_after_forward, offload=strategy.offload)
        case _:
            from rec.train.strategies.settings import fill

            settings = fill(strategy.deepspeed, run, ranks.world)
            replaced = [section for section in ("optimizer", "scheduler") if section in strategy.deepspeed]
            if replaced and ranks.first:
                print(f"in place of the DeepSpeed file's {' and '.join(replaced)}: the run's optim.*", file=sys.stderr)
            device_for_deepspeed(ranks)
            try:
                from rec.train.strategies.zero import Zero
            except ImportError as error:
                raise ConfigError(
                    f"the strategy {strategy.name} needs DeepSpeed, which cannot be imported ({error}); "
                    "pip install 'kindling[deepspeed]'"
                ) from None
            return Zero(ranks, precision, settings)
