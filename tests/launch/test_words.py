"""What `kindling train` says while a user waits for its first step."""

import re
from pathlib import Path

import pytest

from launch.train import execute
from rec.config.tree import Data, Run
from rec.data.dataset import Dataset
from tests.small import soft_token
from tests.train.runs import make_run, train


@pytest.fixture
def run(mixed: Dataset, tmp_path: Path) -> Run:
    return make_run(mixed, tmp_path, train=train(steps=1), model=soft_token(), data=Data(global_batch=4, micro_batch=4))


def test_every_slow_stage_is_said_before_it_is_waited_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    said: dict[str, str] = {}
    for name in ("rec.models.view", "launch.train.made"):
        monkeypatch.setattr(name, lambda *_, name=name, **__: said.update({name: capsys.readouterr().err}) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            execute(run)
        monkeypatch.undo()
    assert said["rec.models.view"] == f"cutting the histories of {run.dataset} into windows of 50 items\n"
    assert said["launch.train.made"].endswith("\nbuilding soft_token on gpt2 for 16 users and 30 items\n")


def test_the_arithmetic_counts_one_of_a_thing_in_the_singular(run: Run, capsys: pytest.CaptureFixture[str]):
    assert execute(run) == 0
    assert re.search(
        r"^a step of 4 windows = 1 micro-batch of 4 on 1 process \(single\); 1 step = 0\.\d epochs$",
        capsys.readouterr().err,
        re.MULTILINE,
    )
