"""RUN/status.json at the start, at each save and at every end of a run."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from launch.command import DONE, FAILED, STOPPED, WRONG_INPUT
from launch.train import execute
from rec.config.tree import Data, Run
from rec.data.dataset import Dataset
from rec.errors import CheckpointError
from rec.ranks import Ranks
from rec.train.checkpoint import damage
from rec.train.keeper import Keeper
from rec.train.status import Status
from rec.train.stop import Stop
from rec.train.strategies.engine import Plain
from tests.ranks import run_ranks
from tests.train.runs import make_run, pull_the_plug_in_step, spoil, start, status, train


def told(run: Run) -> tuple[str, int, int | None]:
    content = status(run)
    assert content["steps"] == run.train.steps
    return content["state"], content["step"], content["code"]


def test_a_run_says_at_each_moment_how_much_of_it_is_saved(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run, seen = make_run(mixed, tmp_path), []
    original = Plain.prepare, Plain.update

    def prepare(self: Plain, *arguments: Any) -> None:
        seen.append(told(run))
        original[0](self, *arguments)

    def update(self: Plain, limit: float) -> Any:
        seen.append(told(run))
        step = seen[-1][1]  # a save goes on beside training, and is told of when it is there
        assert not step or damage(run.folder / f"checkpoints/step-{step:08d}") is None
        return original[1](self, limit)

    monkeypatch.setattr(Plain, "prepare", prepare)
    monkeypatch.setattr(Plain, "update", update)
    assert start(run) == DONE
    assert [state for state, _, _ in seen] == ["running"] * 10
    assert [code for _, _, code in seen] == [None] * 10
    steps = [step for _, step, _ in seen]
    assert steps == sorted(steps)
    assert {0} < set(steps) <= {0, 3, 4, 6, 8}  # best at 3, and every 4
    assert told(run) == ("done", 9, DONE)
    assert abs(status(run)["time"] - os.stat(run.folder / "status.json").st_mtime) < 5


def test_stopped(mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run(mixed, tmp_path)
    monkeypatch.setattr(Stop, "asked", True)
    assert start(run) == STOPPED
    assert told(run) == ("stopped", 0, STOPPED)


def test_failed_since_the_numbers_did(mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run(mixed, tmp_path, train=train(skip_limit=1))
    spoil(monkeypatch, {4})
    assert start(run) == FAILED
    assert told(run) == ("failed", 4, FAILED)


def test_failed_since_a_defect_showed(mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = make_run(mixed, tmp_path)
    pull_the_plug_in_step(monkeypatch, 5)
    with pytest.raises(BaseException, match=r"^$"):
        start(run)
    assert told(run) == ("failed", 4, FAILED)


@pytest.mark.parametrize("error", [CheckpointError("no room"), OSError(28, "No space left on device")])
def test_failed_since_the_disk_was_full(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    run, original = make_run(mixed, tmp_path), Keeper.save

    def save(self: Keeper, engine: Plain, progress: Any, *, best: bool) -> None:
        if progress.step > 3:
            raise error
        original(self, engine, progress, best=best)

    monkeypatch.setattr(Keeper, "save", save)
    with pytest.raises(type(error)):
        start(run)
    assert told(run) == ("failed", 3, WRONG_INPUT)


def test_a_start_that_is_refused_is_no_end_of_the_one_before(mixed: Dataset, tmp_path: Path):
    """A script that took the older word for this start's would start it again for ever."""
    run = make_run(mixed, tmp_path)
    assert start(run) == DONE
    with pytest.raises(CheckpointError):
        start(make_run(mixed, tmp_path, train=train(resume="never")))
    assert told(run) == ("failed", 9, WRONG_INPUT)


def test_nothing_is_written_where_there_is_no_run_folder(tmp_path: Path):
    Status(tmp_path / "none", steps=3, first=True).end("failed", WRONG_INPUT)
    assert not (tmp_path / "none").exists()


def test_the_last_word_is_the_last(tmp_path: Path):
    one = Status(tmp_path, steps=3, first=True)
    one.end("stopped", STOPPED)
    one.end("failed", FAILED)
    assert '"stopped"' in one.file.read_text()


def test_only_the_first_rank_writes(tmp_path: Path):
    Status(tmp_path, steps=3, first=False).end("done", DONE)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_refuses_is_reported_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    one = Status(tmp_path, steps=3, first=True)
    before = one.file.read_text()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    one.running(2)
    assert "cannot write" in capsys.readouterr().err
    assert one.file.read_text() == before


@pytest.mark.parametrize("content", ["", "{}", "torn {"])
def test_a_file_that_is_no_status_is_replaced(tmp_path: Path, content: str):
    (tmp_path / "status.json").write_text(content)
    assert Status(tmp_path, steps=3, first=True).step == 0


def test_no_rank_leaves_before_the_last_word_is_written(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A launcher ends the other processes as soon as one has left with a code other than 0."""
    run = make_run(mixed, tmp_path, data=Data(global_batch=12, micro_batch=2, max_items=6, negatives=5))
    original = Status.end

    def end(self: Status, *arguments: Any) -> None:
        time.sleep(0.5 * self.first)
        original(self, *arguments)

    monkeypatch.setattr(Status, "end", end)
    monkeypatch.setattr(Stop, "asked", True)

    def act(ranks: Ranks) -> float:
        assert execute(run) == STOPPED
        return time.time()

    assert run_ranks(act, 2)[1] > status(run)["time"]
