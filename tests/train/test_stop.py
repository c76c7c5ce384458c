"""How a process hears that it is to stop, and how it ends if it does not: real signals to real processes."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rec.ranks import Ranks
from rec.train import stop as module
from rec.train.status import Status
from rec.train.stop import SIGNALS, Stop
from tests.ranks import run_ranks

UNTOUCHED = 7


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def ends(act: Callable[[Stop], None], said: Path, *, folder: Path | None = None, grace: float = 60) -> int:
    """The exit code of a process that does `act` while it listens: UNTOUCHED if it comes to its own end."""
    child = os.fork()
    if not child:
        try:
            with said.open("w") as file:
                os.dup2(file.fileno(), 2)
                sys.stderr = file
                with Stop() as stop:
                    stop.watch(Status(folder or Path("/nowhere"), steps=9, first=True), grace=grace, restarted=False)
                    act(stop)
            os._exit(UNTOUCHED)
        finally:
            os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of a test, not of a cluster."""
    monkeypatch.setattr(module, "APART", 0.2)
    monkeypatch.setattr(module, "LAST_WORDS", 0.3)
    monkeypatch.setattr(module, "LOOK_EVERY", 0.0)


def watching(folder: Path, *, first: bool = True, restarted: bool = False) -> Stop:
    stop = Stop()
    stop.watch(Status(folder, steps=9, first=first), grace=60, restarted=restarted)
    return stop


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_ends_nothing(number: signal.Signals):
    with Stop() as stop:
        assert not stop.asked
        signal.raise_signal(number)
        assert stop.asked


def test_signals_go_back_to_whoever_had_them():
    before = [signal.getsignal(number) for number in SIGNALS]
    threads = threading.active_count()
    with Stop():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads


def test_one_request_that_arrives_many_times_is_one(tmp_path: Path, quick: None):
    def act(stop: Stop) -> None:
        stop.steps_begin()
        send(*SIGNALS, *SIGNALS)
        time.sleep(0.4)
        assert stop.asked

    assert ends(act, tmp_path / "said") == UNTOUCHED
    assert (tmp_path / "said").read_text().count(
        ": stopping after this step or the next; by force at a second signal, or in 60 seconds\n"
    ) == 1


def test_a_second_request_ends_by_force_and_says_so(tmp_path: Path, quick: None):
    def act(stop: Stop) -> None:
        send(signal.SIGUSR1)
        time.sleep(0.4)
        send(signal.SIGTERM)
        time.sleep(20)

    begun = time.monotonic()
    assert ends(act, tmp_path / "said", folder=tmp_path) == 1
    assert time.monotonic() - begun < 10
    assert "ended by force, by SIGTERM after SIGUSR1; the same command goes on" in (tmp_path / "said").read_text()
    assert '"state": "failed", "step": 0, "steps": 9, "code": 1' in (tmp_path / "status.json").read_text()


def test_a_second_request_after_the_last_word_changes_nothing(tmp_path: Path, quick: None):
    def act(stop: Stop) -> None:
        send(signal.SIGTERM)
        assert stop._status is not None
        stop._status.end("stopped", 3)
        time.sleep(0.4)
        send(signal.SIGTERM)
        time.sleep(0.2)

    assert ends(act, tmp_path / "said", folder=tmp_path) == UNTOUCHED
    assert '"state": "stopped"' in (tmp_path / "status.json").read_text()


def test_after_the_grace_time_the_end_comes_by_force(tmp_path: Path, quick: None):
    def act(stop: Stop) -> None:
        send(signal.SIGTERM)
        while True:
            time.sleep(0.1)

    assert ends(act, tmp_path / "said", folder=tmp_path, grace=0.3) == 1
    assert "ended by force, 0.3 seconds after SIGTERM" in (tmp_path / "said").read_text()
    assert '"state": "failed"' in (tmp_path / "status.json").read_text()


def test_a_signal_from_before_the_configuration_was_read_is_timed_by_it_all_the_same(tmp_path: Path, quick: None):
    def act(stop: Stop) -> None:
        send(signal.SIGTERM)
        time.sleep(0.2)
        stop.watch(Status(tmp_path, steps=9, first=True), grace=0.3, restarted=False)
        time.sleep(20)

    begun = time.monotonic()
    assert ends(act, tmp_path / "said") == 1
    assert time.monotonic() - begun < 10


def test_the_end_comes_even_where_no_python_can_run(tmp_path: Path, quick: None):
    def act(stop: Stop) -> None:
        send(signal.SIGTERM)
        time.sleep(0.1)
        ctypes.PyDLL(None).sleep(20)  # holds the interpreter, as a long call into a library may

    begun = time.monotonic()
    assert ends(act, tmp_path / "said", folder=tmp_path, grace=0.3) == 1
    assert time.monotonic() - begun < 10
    assert "test_stop.py" in (tmp_path / "said").read_text()  # the traceback tells where


def test_a_rank_that_waits_for_another_for_ever_ends_in_time(tmp_path: Path, quick: None):
    """Its main thread is in a library and hears nothing; so the signal comes to the thread that keeps the time."""

    def act(ranks: Ranks) -> float:
        file = tmp_path / "pid"
        if ranks.first:
            with Stop() as stop:
                stop.watch(Status(tmp_path, steps=9, first=True), grace=0.3, restarted=False)
                file.with_suffix(".part").write_text(str(os.getpid()))
                file.with_suffix(".part").rename(file)
                ranks.gather(None)
        while not file.exists():
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(int(file.read_text()), signal.SIGTERM)
        time.sleep(1.5)
        return 0.0

    with pytest.raises(AssertionError, match="rank 0 of 2: died") as caught:
        run_ranks(act, 2, seconds=20)
    assert "rank 1" not in str(caught.value)
    assert '"state": "failed"' in (tmp_path / "status.json").read_text()


class TestFile:
    def test_it_asks_and_whoever_was_asked_once_stays_asked(self, tmp_path: Path, quick: None):
        with watching(tmp_path) as stop:
            assert not stop.asked
            (tmp_path / "STOP").touch()
            assert stop.asked
            (tmp_path / "STOP").unlink()
            assert stop.asked

    def test_only_the_first_rank_looks_for_it(self, tmp_path: Path, quick: None):
        with watching(tmp_path, first=False) as stop:
            (tmp_path / "STOP").touch()
            assert not stop.asked

    def test_it_is_looked_for_twice_a_second_at_most(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        looks = []
        monkeypatch.setattr(module, "LOOK_EVERY", 0.1)
        with watching(tmp_path) as stop:
            monkeypatch.setattr(Path, "exists", lambda self: looks.append(self))
            until = time.monotonic() + 0.35
            while time.monotonic() < until:
                assert not stop.asked
            monkeypatch.undo()
        assert 1 <= len(looks) <= 4

    @pytest.mark.parametrize(("restarted", "stays"), [(False, False), (True, True)])
    def test_one_of_before_is_removed_unless_the_launcher_started_anew(
        self, tmp_path: Path, quick: None, restarted: bool, stays: bool
    ):
        (tmp_path / "STOP").touch()
        os.utime(tmp_path / "STOP", (time.time() - 5, time.time() - 5))
        with watching(tmp_path, restarted=restarted) as stop:
            assert (tmp_path / "STOP").exists() == stays
            assert stop.asked == stays

    def test_one_that_came_while_the_job_was_loading_counts(self, tmp_path: Path, quick: None):
        with Stop() as stop:
            time.sleep(0.05)
            (tmp_path / "STOP").touch()
            time.sleep(0.05)
            stop.watch(Status(tmp_path, steps=9, first=True), grace=60, restarted=False)
            assert stop.asked

    def test_its_age_is_told_by_the_clock_of_its_disk(
        self, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
    ):
        """This machine's clock is an hour off the file server's."""
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 3600)
        with Stop() as stop:
            time.sleep(0.05)
            (tmp_path / "STOP").touch()
            stop.watch(Status(tmp_path, steps=9, first=True), grace=60, restarted=False)
            assert stop.asked


def test_listening_needs_no_torch():
    """Importing it takes seconds, in which a signal must not be lost."""
    check = "import rec.train.stop, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
