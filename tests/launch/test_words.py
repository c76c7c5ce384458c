"""What `kindling train` says while a user waits for its first step."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from launch.train import execute
from launch.words import EMULATED, emulates
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


@pytest.mark.parametrize(
    ("has", "precision", "device", "told"),
    [
        ({"avx2"}, "bf16", "cpu", True),
        ({"avx2"}, "fp32", "cpu", False),
        ({"avx2"}, "bf16", "cuda", False),
        ({"avx512_f"}, "bf16", "cpu", True),
        ({"avx512_f", "avx512_bf16"}, "bf16", "cpu", False),
        ({"amx_bf16"}, "bf16", "cpu", False),
        ({"neon"}, "bf16", "cpu", True),
        ({"neon", "bf16"}, "bf16", "cpu", False),
    ],
)
def test_bf16_is_emulated_where_a_processor_has_none(
    monkeypatch: pytest.MonkeyPatch, has: set[str], precision: str, device: str, told: bool
):
    everything = {"avx2", "avx512_f", "avx512_bf16", "amx_bf16", "neon", "bf16", "sve_bf16"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {name: name in has for name in everything})
    assert emulates(precision, torch.device(device)) == told


@pytest.mark.parametrize("native", [False, True])
def test_a_run_in_bf16_on_a_cpu_says_at_its_start_that_it_is_emulated_and_runs(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], native: bool
):
    if torch.accelerator.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    assert execute(replace(run, train=replace(run.train, precision="bf16"))) == 0
    said = capsys.readouterr().err
    assert said.startswith(f"{EMULATED}\ncutting " if not native else "cutting ")
    assert said.count("emulated") == (not native)
