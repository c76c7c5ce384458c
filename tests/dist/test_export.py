"""What several ranks have saved, as one file."""

import sys
from pathlib import Path

import pytest
import torch

import rec
from launch import export
from launch.command import DONE, WRONG_INPUT
from rec.data.dataset import Dataset
from tests.dist.runs import STEPS, a_random_run, execute_on
from tests.small import saved_tensors

pytest.importorskip("deepspeed.runtime.zero.muon.muon_optimizer", reason="install kindling[deepspeed]")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["kindling export", *map(str, arguments)])
    return export.main()


@pytest.mark.parametrize("strategy", ["zero3", "fsdp2"])
def test_a_sharded_checkpoint_becomes_one_file_of_the_same_weights(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], strategy: str
):
    run = a_random_run(mixed, tmp_path, "qwen3", 3)
    assert execute_on(run, 2, strategy) == DONE
    whole = saved_tensors(run, STEPS)
    assert call(monkeypatch, run.folder, "--out", tmp_path / "fp32", "--checkpoint", "latest") == DONE
    weights = rec.load(tmp_path / "fp32").saved.model.state_dict()
    assert weights.keys() == {key for key in whole if "/" not in key}
    assert all(torch.equal(value, whole[key]) for key, value in weights.items())
    assert call(monkeypatch, run.folder, "--out", tmp_path / "bf16", "--checkpoint", STEPS, "--dtype", "bf16") == DONE
    halves = rec.load(tmp_path / "bf16").saved.model.state_dict()
    assert all(torch.equal(value, whole[key].bfloat16().float()) for key, value in halves.items())

    assert call(monkeypatch, run.folder, "--out", tmp_path / "bf16") == WRONG_INPUT
    assert call(monkeypatch, run.folder, "--out", tmp_path / "new", "--checkpoint", "5") == WRONG_INPUT
    file = run.folder / f"checkpoints/step-{STEPS:08d}/rank-00001-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert call(monkeypatch, run.folder, "--out", tmp_path / "new", "--checkpoint", "latest") == WRONG_INPUT
    told = capsys.readouterr().err
    assert "is there already" in told
    assert "has no checkpoint '5'; choose latest, or one of" in told
    assert "is damaged (rank-00001-of-00002.safetensors has" in told
    assert not (tmp_path / "new").exists()
