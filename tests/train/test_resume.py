"""A run goes on as if nothing had happened, or says why it may not."""

import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.command import DONE
from rec.config.tree import Data, Run
from rec.data.dataset import Dataset
from rec.errors import CheckpointError
from tests.small import EVERYTHING, saved_tensors, soft_token
from tests.train.runs import PulledPlug, lines, make_run, measured, pull_the_plug_in_step, start, train


@pytest.mark.parametrize("plugs", [(5, 7), (2, 8), (4, 5)])
def test_a_run_interrupted_twice_ends_bit_for_bit_where_the_whole_one_does(
    mixed: Dataset, tmp_path: Path, whole: Run, plugs: tuple[int, int]
):
    run = make_run(mixed, tmp_path)
    for step in plugs:
        with pytest.MonkeyPatch.context() as patch:
            pull_the_plug_in_step(patch, step)
            with pytest.raises(PulledPlug):
                start(run)
    assert start(run) == DONE
    got, expected = saved_tensors(run, 9), saved_tensors(whole, 9)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert measured(run) == measured(whole)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 5}, r"step-00000009 is of another run: seed is 5 but was 0;"),
        (
            {"data": Data(global_batch=24, micro_batch=4, max_items=6, negatives=5)},
            "data.global_batch is 24 but was 12",
        ),
        ({"model": soft_token("gpt2", dropout=0.1, loss=EVERYTHING)}, "model.dropout is 0.1 but was 0.2"),
    ],
)
def test_another_experiment_in_the_same_folder_is_refused(whole: Run, change: dict[str, Any], told: str):
    with pytest.raises(CheckpointError, match=told):
        start(dataclasses.replace(whole, **change))


def test_another_dataset_in_the_same_folder_is_refused(whole: Run, rings: Dataset):
    with pytest.raises(CheckpointError, match=r"dataset fingerprint is"):
        start(dataclasses.replace(whole, dataset=rings.root))


def test_resume_never_refuses_a_folder_with_checkpoints(whole: Run):
    with pytest.raises(CheckpointError, match=r"train.resume is never, but .* has checkpoints"):
        start(dataclasses.replace(whole, train=dataclasses.replace(whole.train, resume="never")))


def test_a_kill_between_a_commit_and_what_follows_it_is_made_good_when_the_run_goes_on(mixed: Dataset, tmp_path: Path):
    run = make_run(mixed, tmp_path)
    assert start(run) == DONE
    published = json.loads((run.folder / "model/model.json").read_text())
    best = (run.folder / "checkpoints/best").read_text()
    shutil.rmtree(run.folder / "model")
    (run.folder / "checkpoints/best").write_text("step-00000001\n")
    assert start(run) == DONE
    assert json.loads((run.folder / "model/model.json").read_text()) == published
    assert (run.folder / "checkpoints/best").read_text() == best


def test_tensorboard_has_each_point_of_a_resumed_run_once(
    mixed: Dataset, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(mixed, tmp_path, train=train(trackers=("tensorboard",)))
    with monkeypatch.context() as patch:
        pull_the_plug_in_step(patch, 6)
        with pytest.raises(PulledPlug):
            start(run)
    time.sleep(1.1)  # its files are named, and read in order, by the second
    assert start(run) == DONE
    events = EventAccumulator(str(next(run.folder.rglob("events.*")).parent))
    events.Reload()
    for name in ("train/loss", "valid/ndcg@10"):
        points = [(event.step, event.value) for event in events.Scalars(name)]
        assert points == [(line["step"], pytest.approx(line[name])) for line in lines(whole) if name in line]
