"""What a run may change on its way, and what it may not."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from launch.command import DONE
from rec.config.load import to_values
from rec.config.tree import Optim, Run
from rec.data.dataset import Dataset
from rec.errors import CheckpointError
from rec.models import build
from rec.train.identity import changes
from tests.small import soft_token
from tests.train.runs import make_run, start, train


def test_every_value_that_is_another_one_is_told_with_the_one_before(mixed: Dataset, tmp_path: Path):
    before = make_run(mixed, tmp_path, optim=Optim(lr=3e-3, groups={"tables": 0.5}))
    saved = json.loads(json.dumps(to_values(before)))
    assert changes(saved, to_values(before)) == []
    now = dataclasses.replace(
        before, optim=Optim(lr=0.5, betas=(0.1, 0.2), groups={}), train=train(precision="bf16", trackers=("wandb",))
    )
    assert changes(saved, to_values(now)) == [
        "goes on with optim.betas=[0.1, 0.2] (was [0.9, 0.999])",
        "goes on with optim.groups.tables=nothing (was 0.5)",
        "goes on with optim.lr=0.5 (was 0.003)",
        "goes on with train.precision=bf16 (was fp32)",
        'goes on with train.trackers=["wandb"] (was [])',
    ]


def _saved_backbone(folder: Path, **values: Any) -> Path:
    """A folder with the configuration of a small qwen3, of which some values are others."""
    build(soft_token("qwen3"), users=2, items=2).save(folder)
    file = folder / "backbone/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return file.parent


def _run(mixed: Dataset, out: Path, source: Path) -> Run:
    model = soft_token()
    backbone = dataclasses.replace(model.backbone, source=str(source), pretrained=False, config={})
    return make_run(mixed, out, model=dataclasses.replace(model, backbone=backbone), train=train(steps=1))


def test_a_source_may_lie_elsewhere_and_may_not_be_another_language_model(mixed: Dataset, tmp_path: Path):
    assert start(_run(mixed, tmp_path, _saved_backbone(tmp_path / "a"))) == DONE
    moved = _saved_backbone(tmp_path / "b", transformers_version="0.0.0", architectures=["Other"])
    assert start(_run(mixed, tmp_path, moved)) == DONE
    with pytest.raises(CheckpointError, match=r"the backbone's rms_norm_eps is 0.5 but was 1e-06;"):
        start(_run(mixed, tmp_path, _saved_backbone(tmp_path / "c", rms_norm_eps=0.5)))
