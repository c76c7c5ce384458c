"""Whole runs in this process: what they write, when they end, and what they refuse."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.command import DONE, command
from rec.config.tree import Data, Eval, LossWeights, Optim, Run, Train
from rec.data.dataset import Dataset
from rec.data.feed import Feed
from rec.errors import CheckpointError, ConfigError, DatasetError
from rec.eval.evaluate import validation
from rec.models import saved, view
from rec.ranks import Ranks
from rec.train.strategies.engine import Plain
from tests.eval.tiny import write
from tests.small import make, saved_tensors, soft_token
from tests.train.runs import lines, make_run, start


def test_metrics_have_each_measurement_of_each_step_once(whole: Run):
    kinds = [(line["step"], "valid" if "valid/ndcg@10" in line else "train") for line in lines(whole)]
    assert len(set(kinds)) == len(kinds)
    assert [step for step, kind in kinds if kind == "train"] == list(range(1, 10))
    assert [step for step, kind in kinds if kind == "valid"] == [3, 6, 9]


def test_a_line_of_metrics_says_all_that_its_schema_names(whole: Run):
    first = lines(whole)[0]
    assert set(first) == {
        "step", "time", "train/loss", "train/grad_norm", "train/lr", "train/skipped", "speed/positions_per_second",
        "speed/seconds_per_step", "speed/wait_share", "memory/peak_gib",
        *(f"train/{name}" for name in ("cross_entropy", "sampled_softmax", "gbce", "bpr_context", "bpr_user", "l2")),
    }  # fmt: skip
    assert first["train/lr"] == pytest.approx(1e-3)  # the first of three steps of warm-up to 3e-3
    assert 0 <= first["speed/wait_share"] <= 1


def test_a_finished_run_started_again_does_nothing(whole: Run, monkeypatch: pytest.MonkeyPatch):
    before = {path: path.stat().st_mtime_ns for path in whole.folder.rglob("*.safetensors")}
    before_lines = lines(whole)
    monkeypatch.setattr(Plain, "backward", None)
    assert start(whole) == DONE
    assert {path: path.stat().st_mtime_ns for path in whole.folder.rglob("*.safetensors")} == before
    assert lines(whole) == before_lines


def test_a_run_may_be_made_longer(mixed: Dataset, tmp_path: Path, whole: Run):
    constant = Optim(lr=3e-3, schedule="constant")
    short = make_run(mixed, tmp_path / "grown", optim=constant, train=Train(steps=5, log_every=1, trackers=()))
    long = dataclasses.replace(short, train=dataclasses.replace(short.train, steps=8))
    straight = dataclasses.replace(long, out=tmp_path / "straight")
    for run in (short, long, straight):
        assert start(run) == DONE
    losses = [[line["train/loss"] for line in lines(run) if "train/loss" in line] for run in (long, straight)]
    assert losses[0] == losses[1]


def test_training_ends_when_patience_does_and_the_best_model_is_published(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    values = iter([0.1, 0.3, 0.2, 0.3, 0.25, 0.9])
    monkeypatch.setattr("rec.eval.evaluate.validation", lambda *a, **k: {"ndcg@10": next(values)})
    run = make_run(
        mixed, tmp_path, eval=Eval(every=1, patience=3), train=Train(steps=50, save_every=100, keep=1, trackers=())
    )
    assert start(run) == DONE
    evaluated = [line["valid/ndcg@10"] for line in lines(run) if "valid/ndcg@10" in line]
    assert evaluated == [0.1, 0.3, 0.2, 0.3, 0.25]  # an equal value is no improvement
    opened = saved.load(run.folder)
    assert (opened.about["step"], opened.about["ndcg@10"]) == (2, 0.3)
    assert {path.name for path in (run.folder / "checkpoints").iterdir()} == {
        "step-00000002",
        "step-00000005",
        "best",
        "latest",
    }
    best = saved_tensors(run, 2)
    assert all(torch.equal(value, best[name]) for name, value in opened.model.state_dict().items())
    assert start(run) == DONE  # patience is remembered: nothing is evaluated again


@pytest.mark.parametrize(
    ("groups", "error", "told"),
    [
        ({"eval": Eval(select="ndgc@10")}, ConfigError, "unknown metric 'ndgc@10'; did you mean 'ndcg@10'"),
        ({"optim": Optim(groups={"table.*": {}})}, ConfigError, r"'table\.\*' fits no trainable parameter"),
        ({"data": Data(global_batch=12, micro_batch=4, max_items=64, negatives=5)}, ConfigError, "at most 63"),
        ({"train": Train(precision="fp16", trackers=())}, ConfigError, "needs a GPU"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(
    mixed: Dataset, tmp_path: Path, groups: dict[str, Any], error: type[Exception], told: str
):
    if "precision" in told and torch.accelerator.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(error, match=told):
        start(make_run(mixed, tmp_path, **groups))
    assert not (tmp_path / "run/metrics.jsonl").exists()


def test_a_dataset_without_validation_targets_is_refused(tmp_path: Path):
    dataset = write(tmp_path / "d", [[1, 2, 3]], 5, bounds=[(3, 3, 3, 3, 3)])
    with pytest.raises(DatasetError, match=r"no targets in the split 'valid'"):
        start(make_run(dataset, tmp_path))


def test_user_errors_end_with_code_2_and_one_sentence(capsys: pytest.CaptureFixture[str]):
    def main() -> int:
        raise ConfigError("optim.lr is -1; choose a positive rate")

    assert command(main)() == 2
    assert capsys.readouterr().err.strip().endswith("optim.lr is -1; choose a positive rate")


def test_a_model_that_finds_nothing_is_evaluated_all_the_same(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("rec.eval.evaluate.validation", lambda *a, **k: {"ndcg@10": 0.0})
    run = make_run(mixed, tmp_path, train=Train(steps=1, trackers=()))
    assert start(run) == DONE
    assert "best ndcg@10 0.0000 at step 1" in capsys.readouterr().err


def test_validation_of_some_users_says_of_how_many_and_they_are_part_of_what_a_run_is(
    mixed: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def a_run(steps: int, users: int) -> Run:
        evaluation = Eval(every=1, users=users)
        return make_run(
            mixed, tmp_path, model=soft_token("gpt2"), train=Train(steps=steps, trackers=()), eval=evaluation
        )

    assert start(a_run(2, 5)) == DONE
    assert "step 2/2  valid of 5 users  ndcg@10 0." in capsys.readouterr().err
    assert [line["valid/users"] for line in lines(a_run(2, 5)) if "valid/users" in line] == [5, 5]
    with pytest.raises(CheckpointError, match=r"eval\.users"):
        start(a_run(3, 6))
    assert start(a_run(3, 5)) == DONE


def test_what_is_published_scores_as_the_trained_model_did(mixed: Dataset, tmp_path: Path):
    """The folder alone is enough: the metric recomputed from it is the one that was logged."""
    run = make_run(mixed, tmp_path, model=soft_token("qwen3", loss=LossWeights()), eval=Eval())
    assert start(run) == DONE
    opened = saved.load(run.folder)
    again = validation(
        opened.model, mixed, config=run.eval, max_items=6, ranks=Ranks(), device=torch.device("cpu"), seed=run.seed
    )  # fmt: skip
    assert again["ndcg@10"] == lines(run)[-1]["valid/ndcg@10"] == opened.about["ndcg@10"]
    assert opened.run == run
    assert opened.item_ids[1:3] == ["i1", "i2"]


def test_the_curve_is_that_of_ten_plain_lines_of_pytorch(mixed: Dataset, tmp_path: Path):
    """Another loop, written out: fresh gradients, a mean over the step's targets, clipping before the step."""
    run = make_run(mixed, tmp_path, optim=Optim(lr=1e-2, schedule="constant", clip=0.5, weight_decay=0.1))
    assert start(run) == DONE
    model = make(run.model, mixed.users, mixed.items, run.seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": 0.1},
        {"params": [parameter for parameter in trained if parameter.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    feed = Feed(view(run, mixed), run.data, seed=run.seed, ranks=Ranks())
    expected = []
    for step in range(run.train.steps):
        batches = feed.step(step).batches
        targets = sum(int((batch.targets_BT > 0).sum()) for batch in batches)
        loss = torch.stack([model(batch).total for batch in batches]).sum() / targets
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 0.5)
        optimizer.step()
        optimizer.zero_grad()
        expected.append((loss.item(), norm.item()))
    feed.close()
    measured = [(line["train/loss"], line["train/grad_norm"]) for line in lines(run) if "train/loss" in line]
    assert measured == [pytest.approx(pair, rel=1e-4) for pair in expected]
