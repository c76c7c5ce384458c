"""Real launchers, real kills: mpirun, torchrun and `kindling launch`, with two processes on this machine.

Importing what training needs takes most of the time of a launch, so each one is asked several questions.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from launch.command import DONE, FAILED, STOPPED
from rec.config.load import dump
from rec.config.tree import Data, Eval, Run
from rec.data.dataset import Dataset
from tests.small import saved_tensors
from tests.train.runs import make_run, measured, status, train

ROOT = Path(__file__).parents[2]
STEPS = 240
MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
UNDER_MPI = (MPIRUN, "--allow-run-as-root", "--oversubscribe", "-n", 2, sys.executable, "-m", "launch.train")
needs_mpi = pytest.mark.skipif(MPIRUN is None, reason="there is no mpirun here")


class Launch:
    """A launcher and its two processes."""

    def __init__(self, run: Run, words: tuple[object, ...]) -> None:
        self.run, folder = run, run.out
        self.log = folder / "log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        for name in ("MASTER_ADDR", "MASTER_PORT"):  # conftest sets them for the tests' own process
            environment.pop(name, None)
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*map(str, words)], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def steps(self) -> int:
        """Optimizer steps that have been measured so far, repeated ones included."""
        file = self.run.folder / "metrics.jsonl"
        return file.read_text().count('"train/loss"') if file.exists() else 0

    def until(self, reached: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.01)

    def rank(self, number: int) -> psutil.Process:
        """The process of a rank."""
        variables = ("RANK", "OMPI_COMM_WORLD_RANK")
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if str(number) in (child.environ().get(name) for name in variables):
                return child
        raise AssertionError(f"rank {number} does not run: {self.log.read_text()}")

    def end(self, seconds: float = 120) -> int:
        """Its exit code, when it has ended by itself."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} seconds: {self.log.read_text()}") from None

    def kill(self) -> None:
        """Whatever is left of it."""
        if self.process.poll() is None:
            for process in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
                process.kill()
            self.process.wait()


@pytest.fixture
def start(mixed: Dataset, tmp_path: Path) -> Iterator[Callable[..., Launch]]:
    """Starts a launcher (words before the module) in a folder of this name, with overrides; ends it with the test."""
    launches: list[Launch] = []

    def begin(name: str, launcher: tuple[object, ...], *words: str) -> Launch:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        settings = train(steps=STEPS, save_every=20, hang_after=60)
        data = Data(global_batch=12, micro_batch=6, max_items=6, negatives=5)
        run = make_run(mixed, folder, train=settings, data=data, eval=Eval(every=0, block=8))
        (folder / "run.yaml").write_text(dump(run))
        launches.append(Launch(run, (*launcher, folder / "run.yaml", *words)))
        return launches[-1]

    yield begin
    for launch in launches:
        launch.kill()


@needs_mpi
def test_a_killed_rank_is_made_good_by_one_restart_and_the_end_is_that_of_mpirun(start: Callable[..., Launch]):
    undisturbed = start("mpi", UNDER_MPI)
    assert undisturbed.end() == DONE, undisturbed.log.read_text()

    launch = (sys.executable, "-m", "launch.launch", "--processes", 2, "--max-restarts", 1, "--strategy", "ddp")
    killed = start("killed", launch)
    killed.until(lambda: killed.steps() >= 50)
    killed.rank(1).kill()
    assert killed.steps() < STEPS
    assert killed.end() == DONE, killed.log.read_text()
    said = killed.log.read_text()
    assert "torch.distributed.run --standalone --nproc-per-node=2 --max-restarts=1" in said
    assert said.count("going on from step") == 1  # the first restart joined at once: there was no second
    assert len(measured(killed.run)) == STEPS + 1
    assert measured(killed.run) == measured(undisturbed.run)
    here, there = saved_tensors(killed.run, STEPS), saved_tensors(undisturbed.run, STEPS)
    assert here.keys() == there.keys()
    assert all(torch.equal(here[key], there[key]) for key in there)


@needs_mpi
def test_a_rank_of_zero_under_mpi_that_hangs_is_noticed_and_a_run_that_is_asked_to_stop_says_so(
    start: Callable[..., Launch],
):
    hung = start("run", UNDER_MPI, "train.hang_after=2", "--strategy", "zero3")
    hung.until(lambda: hung.steps() >= 30)
    first = hung.rank(0)
    hung.rank(1).send_signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    hung.until(lambda: not first.is_running() or first.status() == psutil.STATUS_ZOMBIE, seconds=20)
    assert 1 < time.monotonic() - stopped_at < 12  # some of it for the interpreter to end on a busy machine
    assert hung.end(seconds=30) == FAILED
    assert "Timed out waiting" in hung.log.read_text()

    launch = (sys.executable, "-m", "launch.launch", "--processes", 2)
    again = start("run", launch, "train.steps=1000000")
    done = again.steps()
    again.until(lambda: again.steps() > done + 10)
    again.process.send_signal(signal.SIGUSR1)
    assert again.end(seconds=60) == STOPPED, again.log.read_text()
    assert status(again.run)["state"] == "stopped"


def test_a_killed_rank_ends_the_others_at_once_where_no_restarts_are_left(start: Callable[..., Launch]):
    launch = start("run", (sys.executable, "-m", "launch.launch", "--processes", 2), "train.steps=1000000")
    launch.until(lambda: launch.steps() >= 10)
    other = launch.rank(0)
    launch.rank(1).kill()
    assert launch.end(seconds=20) == FAILED
    assert not other.is_running()
    said = launch.log.read_text()
    assert "a process was killed by signal 9" in said or "Connection" in said
