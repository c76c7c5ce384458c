"""What a run may change on its way, and what it may not."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from launch.command import DONE
from rec.config.load import to_values
from rec.config.tree import LearnedRelations, Optim, Run, Sasrec
from rec.data.dataset import Dataset
from rec.errors import CheckpointError
from rec.graph.build import build as build_graph
from rec.models import build
from rec.train.identity import changes
from tests.eval.tiny import write
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


def test_another_graph_is_refused_with_the_command_that_makes_the_old_one_and_it_works(tmp_path: Path):
    dataset = write(tmp_path / "d", [[1, 2, 3, 4, 5, 6, 7], [2, 3, 1, 4, 6, 5], [5, 1, 3, 2]], 12)
    build_graph(dataset, top=3)
    run = make_run(dataset, tmp_path, model=Sasrec(), train=train(steps=1))
    run = dataclasses.replace(run, model=soft_token(relations=LearnedRelations()))
    assert start(run) == DONE
    build_graph(dataset, top=2)
    digits = "[0-9a-f]{12}"
    command = f"kindling graph {dataset.root} --top 3"
    with pytest.raises(
        CheckpointError,
        match=rf"of another run: graph fingerprint is {digits} but was {digits}; make the old graph again with "
        rf"`{command}`, or another name=",
    ):
        start(run)
    build_graph(dataset, top=3)
    assert start(run) == DONE


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
