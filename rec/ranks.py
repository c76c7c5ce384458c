"""Who am I among how many. The only door to torch.distributed, and the one answer to "which rank"."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """A value: this process among `world` processes."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in rank order, on every rank. Values are pickled: keep them small."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is raised on any rank: what all ranks must agree on before they act together."""
        return flag if self.world == 1 else any(self.gather(flag))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Element-wise sum over ranks of a tensor on the training device."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()

    def first_only(self, act: Callable[[], T]) -> T:
        """Runs `act` on the first rank while the others wait; its value, or its exception, on every rank."""
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = act()
            except Exception as error:
                outcome[1] = error
        if self.world > 1:
            dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]


def from_environment() -> Ranks:
    """The ranks as the launcher (torchrun, `accelerate launch`, srun with either) has set them."""
    return Ranks(
        rank=int(os.environ.get("RANK", 0)),
        world=int(os.environ.get("WORLD_SIZE", 1)),
        local_rank=int(os.environ.get("LOCAL_RANK", 0)),
    )


def restarts() -> int:
    """How often torchrun, or `accelerate launch`, has started the processes of this job anew after one had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def join(ranks: Ranks) -> None:
    """Joins the group of processes that the launcher started, for work in which only small values are exchanged."""
    if ranks.world > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")


def leave() -> None:
    """Closes the process group, so that a launcher sees a clean end.

    The threads of gloo may need the interpreter once more, to let go of the tensors of the last exchange. Whoever
    frees the group holds the interpreter and waits for those threads: without the pause, about one in twenty ended so.
    """
    if dist.is_available() and dist.is_initialized():
        time.sleep(0.1)
        dist.destroy_process_group()
