"""`kindling launch`: what it checks, what it runs, and which exit code it takes from the run's last word."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from launch import launch
from launch.command import DONE, FAILED, STOPPED, WRONG_INPUT
from rec.config.load import dump
from rec.config.tree import Run
from rec.data.dataset import Dataset
from rec.errors import ConfigError
from tests.train.runs import make_run


@pytest.fixture
def run(mixed: Dataset, tmp_path: Path) -> Run:
    return make_run(mixed, tmp_path)


@pytest.fixture
def config(run: Run, tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(dump(run))
    return file


def type_in(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["kindling launch", *map(str, words)])


def test_the_command_is_shown_as_it_could_be_typed_and_its_code_is_given_back(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    started: list[list[str]] = []
    monkeypatch.setattr(launch, "start", lambda words, folder: started.append(words) or STOPPED)
    type_in(
        monkeypatch, config, "name=my run", "--processes", 3, "--strategy", "zero3", "--max-restarts", 2, "--profile"
    )
    assert launch.main() == STOPPED
    (shown,) = capsys.readouterr().err.splitlines()
    assert shown == (
        f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node=3 --max-restarts=2 "
        "--signals-to-handle=SIGTERM,SIGINT,SIGUSR1,SIGHUP,SIGQUIT --shutdown-timeout=120 "
        f"-m launch.train {config} 'name=my run' --strategy zero3 --profile 10"
    )
    (words,) = started
    asked = ["--strategy", "zero3", "--profile", "10"]
    assert words[-8:] == ["-m", "launch.train", str(config), "name=my run", *asked]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["optim.lrr=1"], "did you mean 'lr'?"),
        (["dataset=nowhere"], "nowhere is not a prepared dataset"),
        (["--processes", "5"], "is not a multiple of data.micro_batch (4) times 5 processes"),
        (["--processes", "0"], "--processes is 0; choose 1 or more"),
        (["--strategy", "zero4"], "--strategy is zero4; choose one of"),
    ],
)
def test_what_is_wrong_is_said_once_before_anything_starts(
    config: Path, words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(launch, "start", lambda *_: pytest.fail("processes were started"))
    type_in(monkeypatch, config, *words)
    assert launch.main() == WRONG_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_there_is_one_process_per_gpu_and_one_without(run: Run, monkeypatch: pytest.MonkeyPatch):
    assert launch.check(run, None, None) == 1
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 3)
    assert launch.check(run, None, None) == 3
    with pytest.raises(ConfigError, match="--processes is 6 but this machine has 3 GPUs"):
        launch.check(run, 6, None)


class TestExitCode:
    @pytest.fixture
    def processes(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        """torchrun, whose processes write this last word and end with these exit codes."""
        from torch.distributed import run as torch_run
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

        def end(exitcode: int, last_word: dict[str, object] | None, age: float = 0.0) -> int:
            def run(arguments: object) -> None:
                if last_word is not None:
                    content = {"time": time.time() - age, **last_word}
                    (tmp_path / "status.json").write_text(json.dumps(content))
                if exitcode:
                    failure = ProcessFailure(local_rank=1, pid=0, exitcode=exitcode, error_file="none")
                    raise ChildFailedError("launch.train", {1: failure})

            monkeypatch.setattr(torch_run, "run", run)
            return launch.start(["--standalone", "-m", "launch.train"], tmp_path)

        return end

    @pytest.mark.parametrize(
        ("exitcode", "last_word", "code"),
        [
            (0, {"state": "done", "code": DONE}, DONE),
            (0, {"state": "stopped", "code": STOPPED}, STOPPED),  # with restarts, a stop may not look like a failure
            (3, {"state": "stopped", "code": STOPPED}, STOPPED),
            (-9, {"state": "failed", "code": FAILED}, FAILED),
            (-9, {"state": "running", "code": None}, FAILED),
            (2, None, WRONG_INPUT),
            (1, None, FAILED),
        ],
    )
    def test_it_is_the_runs_own(self, processes, exitcode: int, last_word: dict[str, object] | None, code: int):
        assert processes(exitcode, last_word) == code

    def test_what_an_earlier_start_has_said_does_not_count(self, processes):
        assert processes(-9, {"state": "done", "code": DONE}, age=60) == FAILED
