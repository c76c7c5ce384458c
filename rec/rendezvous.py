"""How processes that were started together find each other, before they are a group. The only door to mpi4py."""

import os
import socket
import time
from typing import Protocol
from uuid import uuid4

from rec.errors import ConfigError

SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where Open MPI, MPICH, Intel MPI, Slurm's pmi2 and MVAPICH say how many processes they have started."""


def torchrun_variables() -> dict[str, str]:
    """What torchrun would have put into the environment of this process; empty for a process that is alone.

    Raises:
        ConfigError: without mpi4py or an MPI that knows the launcher, or for tasks of Slurm that nothing connects:
            each of them would train the whole run by itself.
    """
    processes = _processes()
    if processes == 1:
        return {}
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the latter where no MPI library is found
        raise ConfigError(
            f"an MPI launcher has started {processes} processes, but mpi4py cannot be used ({error}); "
            "pip install 'kindling[mpi]' beside an MPI library, or start them with torchrun"
        ) from None
    everyone = MPI.COMM_WORLD
    if everyone.size != processes:
        raise ConfigError(
            f"the launcher has started {processes} processes, but {_library(MPI)} sees {everyone.size}: it does not "
            "belong to this launcher; use the mpirun of that library, or another `srun --mpi=...`"
        )
    here = everyone.Split_type(MPI.COMM_TYPE_SHARED)
    address, port = everyone.bcast(_meeting_place(alone=here.size == everyone.size) if everyone.rank == 0 else None)
    found = {
        "RANK": str(everyone.rank),
        "WORLD_SIZE": str(everyone.size),
        "LOCAL_RANK": str(here.rank),
        "LOCAL_WORLD_SIZE": str(here.size),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }
    MPI.Finalize()  # at the end of the process it would wait for all ranks, those that hang too
    return found


def _processes() -> int:
    """How many processes the launcher has started together."""
    for name in SIZES:
        if name in os.environ:
            return int(os.environ[name])
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))  # of a step: a batch script has SLURM_NTASKS, but no step
    if tasks > 1 and "PMIX_RANK" not in os.environ:
        raise ConfigError(
            f"srun has started {tasks} copies of this command, which do not know of each other; start it with "
            f"`sbatch slurm/train.sh`, with `srun --ntasks-per-node=1 torchrun ...`, or with `srun --mpi=pmix`"
        )
    return tasks


def _library(mpi: object) -> str:
    return str(mpi.Get_library_version()).split(",")[0].strip("\n\0 ")  # type: ignore[attr-defined]


def _meeting_place(*, alone: bool) -> tuple[str, int]:
    """An address of this machine that all ranks reach, and a port that is free; `alone`: they are all on it."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return "127.0.0.1" if alone else socket.gethostname(), probe.getsockname()[1]


class Store(Protocol):
    """What all ranks read and write: the part of torch's store that is used here."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...


def attempt(store: Store, rank: int, world: int, seconds: float) -> str:
    """A word that the ranks of this attempt share, and no earlier attempt has had.

    A launcher that restarts dead ranks gives the new ones the same store, with the addresses of the dead in it; nodes
    do not count their restarts alike. So every rank greets with a word of its own, the first rank answers all
    greetings, also those of the dead, and every living rank confirms the answer to its own.

    Raises:
        TimeoutError: on the first rank, if another has not come within `seconds`.
    """
    word = uuid4().hex
    if rank > 0:
        store.set(f"greeting/{rank}", word)
        answer = store.get(f"answer/{word}").decode()
        store.set(f"{answer}/{rank}", "confirmed")
        return answer
    deadline = time.monotonic() + seconds
    missing = list(range(1, world))
    while missing:
        for other in missing:
            store.set(f"answer/{store.get(f'greeting/{other}').decode()}", word)
        missing = [other for other in missing if not store.check([f"{word}/{other}"])]
        if time.monotonic() > deadline:
            raise TimeoutError(f"rank {missing[0]} has not come within {seconds:g} seconds")
        time.sleep(0.01)
    return word
