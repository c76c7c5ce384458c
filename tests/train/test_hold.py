"""One run folder, one job; and what a start leaves behind that ended before it began."""

import dataclasses
import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from launch.command import DONE
from launch.train import execute
from rec.data.dataset import Dataset
from rec.errors import CheckpointError, DatasetError
from rec.files import lock
from rec.ranks import Ranks
from rec.train import hold
from rec.train.hold import Hold
from rec.train.status import Status
from tests.train.runs import make_run, start


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hold, "PATIENCE", 0.0)


def test_of_two_starts_at_once_the_second_touches_nothing(mixed: Dataset, tmp_path: Path):
    run = make_run(mixed, tmp_path)
    with Hold(run.folder, Ranks()):
        Status(run.folder, steps=9, first=True).running(3)
        before = {path: path.read_bytes() for path in run.folder.iterdir()}
        with pytest.raises(CheckpointError, match=r"another job is training .*/run; wait for its end, or choose"):
            execute(run)
        assert {path: path.read_bytes() for path in run.folder.iterdir()} == before
    assert start(run) == DONE


def test_a_lock_that_goes_away_in_time_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hold, "PATIENCE", 20.0)
    first = lock(tmp_path / "run/lock")
    assert first is not None
    threading.Timer(0.3, first.close).start()
    with Hold(tmp_path / "run", Ranks()):
        assert lock(tmp_path / "run/lock") is None


@pytest.mark.parametrize("before", [False, True])
def test_a_start_with_wrong_input_leaves_no_new_folder_and_takes_no_old_one_away(
    mixed: Dataset, tmp_path: Path, before: bool
):
    run = dataclasses.replace(make_run(mixed, tmp_path / "runs"), dataset=tmp_path / "nothing")
    if before:
        run.folder.mkdir(parents=True)
    with pytest.raises(DatasetError):
        execute(run)
    assert run.folder.exists() == before


def test_a_file_that_its_last_owner_removed_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Who waits for a lock has the file open, and could get it when nobody else can see it any more."""
    file, original = tmp_path / "lock", fcntl.flock
    removals = iter([file.unlink])

    def flock(*words: object) -> None:
        next(removals, lambda: None)()
        original(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", flock)
    handle = lock(file, patience=5)
    assert handle is not None
    assert lock(file) is None
    handle.close()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_told_of_and_trained_on(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
):
    def refuse(*words: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert start(make_run(mixed, tmp_path)) == DONE
    assert capsys.readouterr().err.count("this disk knows no locks") == 1


def test_any_other_refusal_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*words: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output"):
        lock(tmp_path / "lock")
