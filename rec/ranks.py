"""Who am I among how many. The only door to torch.distributed, and the one answer to "which rank"."""

import dataclasses
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from rec.errors import ConfigError, UserError
from rec.rendezvous import attempt, torchrun_variables

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """A value: this process among `world` processes."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    group: dist.ProcessGroup | None = field(default=None, compare=False, repr=False)
    """Over which the ranks talk; None is the group that `join` made."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in rank order, on every rank. Values are pickled: keep them small."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.group)
        return values

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Element-wise sum over ranks of a tensor on the training device."""
        if self.world > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def maximum(self, values: torch.Tensor) -> torch.Tensor:
        """Element-wise maximum over ranks of a tensor on the training device."""
        if self.world > 1:
            dist.all_reduce(values, dist.ReduceOp.MAX, group=self.group)
        return values

    def rows(self, own: torch.Tensor) -> tuple[torch.Tensor, slice]:
        """The rows of all ranks, which may have different numbers of them, in rank order, and where this rank's are."""
        if self.world == 1:
            return own, slice(0, len(own))
        told = [torch.empty(1, dtype=torch.int64, device=own.device) for _ in range(self.world)]
        dist.all_gather(told, told[0].new_tensor([len(own)]), group=self.group)
        counts = torch.cat(told).tolist()
        if not max(counts):
            return own, slice(0, 0)
        padded = own.new_zeros(max(counts), *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=self.group)
        start = sum(counts[: self.rank])
        rows = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
        return rows, slice(start, start + len(own))

    def first_only(self, act: Callable[[], T]) -> T:
        """Runs `act` on the first rank while the others wait; its value, or its exception, on every rank."""
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = act()
            except Exception as error:
                outcome[1] = _portable(error)
        if self.world > 1:
            dist.broadcast_object_list(outcome, src=0, group=self.group)
        if outcome[1] is not None:
            raise self._told_once(outcome[1])
        return outcome[0]

    def together(self, act: Callable[[], T]) -> T:
        """Runs `act` on every rank; if it fails on any, all raise, and none is left waiting for the one that failed.

        The error stays what it is, so that wrong input ends every rank as wrong input. It says where it happened,
        unless it happened everywhere.
        """
        value, own = None, None
        try:
            value = act()
        except Exception as error:
            own = error
        failed = {rank: error for rank, error in enumerate(self.gather(_portable(own))) if error is not None}
        if not failed:
            return value  # type: ignore[return-value]
        shown = own or next(iter(failed.values()))
        if len(failed) < self.world:
            where = name_ranks(list(failed))
            shown = type(shown)(f"on {where}: {shown}") if isinstance(shown, UserError) else shown
            shown.add_note(f"this happened on {where} of {self.world}")
        raise self._told_once(shown)

    def _told_once(self, error: Exception) -> Exception:
        """An error that every rank raises, marked as told on all but the first: one sentence is enough for a user."""
        vars(error)["told"] = not self.first
        return error


def share(size: int, rank: int, world: int) -> tuple[int, int]:
    """[start, stop) of `size` elements that rank `rank` of `world` owns: as even as can be, in rank order.

    >>> [share(5, rank, 3) for rank in range(3)]
    [(0, 2), (2, 4), (4, 5)]
    """
    most = -(-size // world)
    return min(size, rank * most), min(size, (rank + 1) * most)


def name_ranks(ranks: list[int]) -> str:
    """Ascending ranks, in words.

    >>> name_ranks([3]), name_ranks([0, 1, 2, 5])
    ('rank 3', 'ranks 0-2, 5')
    """
    spans: list[list[int]] = []
    for rank in ranks:
        if spans and rank == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], rank]
        else:
            spans.append([rank])
    return ("ranks " if len(ranks) > 1 else "rank ") + ", ".join("-".join(map(str, span)) for span in spans)


def _portable(error: Exception | None) -> Exception | None:
    """The error, or one that says the same and can be sent to another rank."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def from_environment() -> Ranks:
    """The ranks as the launcher (torchrun, `accelerate launch`, mpirun, srun with MPI) has set them.

    Under MPI, the variables that torchrun would have set are set here, for everybody who reads them.

    Raises:
        ConfigError: if several processes were started in a way that leaves each of them alone.
    """
    if "RANK" not in os.environ:
        os.environ |= torchrun_variables()
    return Ranks(
        rank=int(os.environ.get("RANK", 0)),
        world=int(os.environ.get("WORLD_SIZE", 1)),
        local_rank=int(os.environ.get("LOCAL_RANK", 0)),
    )


def restarts() -> int:
    """How often torchrun, or `accelerate launch`, has started the processes of this job anew after one had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def device_of(ranks: Ranks) -> torch.device:
    """The accelerator of this rank, where the machine has any.

    Raises:
        ConfigError: if there are fewer than ranks here. One alone may be the rank's own: Slurm can show each its own.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return torch.device("cpu")
    devices = torch.accelerator.device_count()
    if 1 < devices <= ranks.local_rank:
        raise ConfigError(
            f"process {ranks.local_rank} of this machine has no {accelerator.type} device of its own: there are "
            f"{devices}; start {devices} processes per machine"
        )
    return torch.device(accelerator.type, ranks.local_rank % devices)


def device_for_deepspeed(ranks: Ranks) -> None:
    """Tells DeepSpeed, before it is imported, that there is no accelerator, which it would warn of."""
    if device_of(ranks).type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def join(ranks: Ranks, seconds: float) -> None:
    """Joins the group of processes that the launcher started, before anybody else makes one.

    A rank that keeps the others waiting for longer than `seconds` in an exchange ends them with an error, in groups
    that are made later, too. Values travel over gloo; tensors on an accelerator by its own means.
    """
    if ranks.world == 1:
        return
    limit, device = timedelta(seconds=seconds), device_of(ranks)
    # DeepSpeed trains in groups of its own, which it makes with torch's default of half an hour
    dist.distributed_c10d.default_pg_timeout = limit
    dist.distributed_c10d.default_pg_nccl_timeout = limit  # type: ignore[attr-defined]
    if dist.is_initialized():
        return
    backend = "gloo"
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)
        os.environ["LOCAL_RANK"] = str(device.index)  # by which Accelerate and DeepSpeed take theirs
        backend = f"cpu:gloo,{device.type}:{dist.get_default_backend_for_device(device)}"
    store, rank, world = next(rendezvous("env://", timeout=limit))
    store = dist.PrefixStore(attempt(store, rank, world, seconds), store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=limit)


def beside(ranks: Ranks, seconds: float) -> Ranks:
    """The same ranks over a second group, for a thread that exchanges small values while the first group is busy.

    Every rank has to call it. In the new group a rank may keep the others waiting for `seconds`; a thread that waits
    in it should be a daemon, so that an error in the first group ends the process at once.
    """
    if ranks.world == 1:
        return ranks
    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))
    return dataclasses.replace(ranks, group=group)


def leave() -> None:
    """Closes the process group, so that a launcher sees a clean end.

    The threads of gloo may need the interpreter once more, to let go of the tensors of the last exchange. Whoever
    frees the group holds the interpreter and waits for those threads: without the pause, about one in twenty ended so.
    """
    if dist.is_available() and dist.is_initialized():
        time.sleep(0.1)
        dist.destroy_process_group()
