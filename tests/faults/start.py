"""One start of a run: real processes, forked after all imports are paid for, that meet over TCP as under a launcher."""

import ctypes
import dataclasses
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import torch

from launch.command import FAILED, command
from launch.train import execute
from rec.config.tree import Run
from tests.faults.runs import Case, on
from tests.faults.watch import Board, note_restored, observe
from tests.small import forget_the_world, make, soft_token

LEFT_OVER = 90
"""Exit code of a rank that would leave a thread behind."""


@dataclasses.dataclass(frozen=True)
class Limit:
    """What one rank may not do."""

    rank: int
    file_size: int
    """Bytes; a longer file cannot be written."""


class Start:
    """The ranks of one start, from their fork to their end."""

    def __init__(
        self, run: Run, case: Case, notes: Path, *, limit: Limit | None = None, restored: bool = False
    ) -> None:
        """`notes` gets what the ranks print and tell; also, if it is asked for, what they hold after a resume."""
        notes.mkdir(parents=True)
        self.run, self.case, self.notes = on(run, case.world), case, notes
        self.limit, self.restored = limit, restored
        self.board, self.port = Board(), _free_port()
        self.begun = time.monotonic()
        self.codes: dict[int, int] = {}
        """Rank -> exit code of those that have ended; minus the signal of those that were killed."""
        self.pids = {rank: self._fork(rank) for rank in range(case.world)}

    @property
    def alive(self) -> list[int]:
        """Ranks that have not ended."""
        for rank, pid in self.pids.items():
            if rank not in self.codes:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    self.codes[rank] = os.waitstatus_to_exitcode(status)
        return [rank for rank in self.pids if rank not in self.codes]

    @property
    def seconds(self) -> float:
        """Since the fork."""
        return time.monotonic() - self.begun

    def kill(self, ranks: list[int], number: int = signal.SIGKILL) -> None:
        for rank in ranks:
            if rank in self.alive:
                os.kill(self.pids[rank], number)

    def wait(self, seconds: float) -> float:
        """Until all ranks have ended by themselves; how long that took.

        Those that have not ended in time are killed, and an AssertionError says what they were at.
        """
        begun = time.monotonic()
        while self.alive:
            if time.monotonic() - begun > seconds:
                hanging = {rank: self.board.phase(rank) for rank in self.alive}
                self.kill(list(hanging))
                raise AssertionError(f"ranks {hanging} did not end in {seconds:g} seconds; see {self.notes}")
            time.sleep(0.002)
        return time.monotonic() - begun

    def said(self, rank: int = 0) -> str:
        """What a rank has printed so far."""
        return (self.notes / f"output-{rank}.txt").read_text(errors="replace")

    def _fork(self, rank: int) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            code = FAILED
            try:
                code = self._live(rank)
            except BaseException:  # of this harness itself
                traceback.print_exc()
            _end(code)
        return child

    def _live(self, rank: int) -> int:
        output = os.open(self.notes / f"output-{rank}.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        torch.set_num_threads(1)  # the parent's thread pool does not survive a fork
        forget_the_world()
        world = {"RANK": rank, "WORLD_SIZE": self.case.world, "LOCAL_RANK": rank, "MASTER_PORT": self.port}
        os.environ |= {name: str(value) for name, value in world.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
        if self.limit is not None and self.limit.rank == rank:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit.file_size, self.limit.file_size))
        observe(self.board, rank, self.notes)
        if self.restored:
            note_restored(self.notes / "restored", rank, self.case.world)
        try:
            code = command(lambda: execute(self.run, self.case.strategy))()
        except Exception:
            traceback.print_exc()
            return FAILED
        lasting = [thread.name for thread in threading.enumerate() if not thread.daemon]
        print(f"threads at the end: {lasting}")
        return code if lasting == [threading.current_thread().name] else LEFT_OVER


def _end(code: int) -> NoReturn:
    """As a Python process ends, without what the parent has registered for its own end."""
    sys.stdout.flush()
    sys.stderr.flush()
    threading._shutdown()  # type: ignore[attr-defined]
    os._exit(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def children() -> set[int]:
    """Processes that are children of this one: inside `adopting`, those of dead ranks, too."""
    own, found = os.getpid(), set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                about = (folder / "stat").read_text()
            except OSError:  # it has just ended
                continue
            if int(about.rpartition(")")[2].split()[1]) == own:
                found.add(int(folder.name))
    return found


def prepare() -> None:
    """Pays in this process for what every rank imports.

    Raises:
        ImportError: where DeepSpeed is not installed.
    """
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401

    from rec.train import keeper, trackers  # noqa: F401
    from rec.train.strategies import fsdp  # noqa: F401

    torch.set_num_threads(1)
    for architecture in ("gpt2", "qwen3"):
        make(soft_token(architecture), users=2, items=2)


@contextmanager
def adopting() -> Iterator[None]:
    """Makes what dead ranks leave behind children of this process, so that none of it goes unseen."""
    set_child_subreaper, system = 36, ctypes.CDLL(None, use_errno=True)
    if system.prctl(set_child_subreaper, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    try:
        yield
    finally:
        system.prctl(set_child_subreaper, 0, 0, 0, 0)
