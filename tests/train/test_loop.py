"""Whole runs in this process: what they write, how they stop, and how they go on."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from launch.command import DONE, FAILED, STOPPED, command
from launch.train import execute
from rec.config.tree import Data, Eval, LossWeights, Optim, Run, Train
from rec.data.dataset import Dataset
from rec.data.feed import Feed
from rec.errors import CheckpointError, ConfigError, DatasetError
from rec.eval.evaluate import validation
from rec.models import saved
from rec.models.soft_token import SoftToken
from rec.ranks import Ranks
from rec.train import loop
from rec.train.engine import Engine
from tests.eval.tiny import write
from tests.small import EVERYTHING, a_run, forget_the_world, make, soft_token


def _run(dataset: Dataset, out: Path, **groups: Any) -> Run:
    defaults: dict[str, Any] = {
        "model": soft_token("gpt2", loss=EVERYTHING, dropout=0.2, user_dropout=0.3),
        "data": Data(global_batch=12, micro_batch=4, max_items=6, negatives=5),
        "optim": Optim(lr=3e-3, warmup=3, weight_decay=0.01, groups={}),
        "train": Train(steps=9, log_every=1, save_every=4, trackers=()),
        "eval": Eval(every=3, block=8),
    }
    return a_run(dataset, out, **{**defaults, **groups})


def _execute(run: Run) -> int:
    forget_the_world()
    return execute(run)


def _lines(run: Run) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def _measured(run: Run) -> list[dict[str, float]]:
    """What was measured, without time, speed and memory."""
    kept = ("step", "train/", "valid/")
    return [{key: value for key, value in line.items() if key.startswith(kept)} for line in _lines(run)]


class _PulledPlug(BaseException):
    """Ends a run as kill -9 does: nothing of the run catches it."""


def _pull_the_plug_in_step(patch: pytest.MonkeyPatch, step: int) -> None:
    """Ends the process's run in the middle of a step, after its backward pass."""
    original = loop.require_finite

    def die(*arguments: Any) -> None:
        if arguments[-1] == step:
            raise _PulledPlug
        original(*arguments)

    patch.setattr(loop, "require_finite", die)


@pytest.fixture(scope="module")
def whole(mixed: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of nine steps that nothing interrupted."""
    run = _run(mixed, tmp_path_factory.mktemp("whole"))
    assert _execute(run) == DONE
    return run


@pytest.mark.parametrize("plugs", [(5, 7), (2, 8), (4, 5)])
def test_a_run_interrupted_twice_ends_bit_for_bit_where_the_whole_one_does(
    mixed: Dataset, tmp_path: Path, whole: Run, plugs: tuple[int, int]
):
    run = _run(mixed, tmp_path)
    for step in plugs:
        with pytest.MonkeyPatch.context() as patch:
            _pull_the_plug_in_step(patch, step)
            with pytest.raises(_PulledPlug):
                _execute(run)
    assert _execute(run) == DONE
    for file in ("model.safetensors", "optimizer.safetensors"):
        expected = load_file(whole.folder / "checkpoints/step-00000009" / file)
        got = load_file(run.folder / "checkpoints/step-00000009" / file)
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name], expected[name]) for name in expected), file
    assert _measured(run) == _measured(whole)


def test_metrics_have_each_measurement_of_each_step_once(whole: Run):
    kinds = [(line["step"], "valid" if "valid/ndcg@10" in line else "train") for line in _lines(whole)]
    assert len(set(kinds)) == len(kinds)
    assert [step for step, kind in kinds if kind == "train"] == list(range(1, 10))
    assert [step for step, kind in kinds if kind == "valid"] == [3, 6, 9]


def test_a_line_of_metrics_says_all_that_its_schema_names(whole: Run):
    first = _lines(whole)[0]
    assert set(first) == {
        "step", "time", "train/loss", "train/grad_norm", "train/lr", "speed/positions_per_second",
        "speed/seconds_per_step", "speed/wait_share", "memory/peak_gib",
        *(f"train/{name}" for name in ("cross_entropy", "sampled_softmax", "gbce", "bpr_context", "bpr_user", "l2")),
    }  # fmt: skip
    assert first["train/lr"] == pytest.approx(1e-3)  # the first of three steps of warm-up to 3e-3
    assert 0 <= first["speed/wait_share"] <= 1


def test_a_finished_run_started_again_does_nothing(whole: Run, monkeypatch: pytest.MonkeyPatch):
    before = {path: path.stat().st_mtime_ns for path in whole.folder.rglob("*.safetensors")}
    lines = _lines(whole)
    monkeypatch.setattr(Engine, "backward", None)
    assert _execute(whole) == DONE
    assert {path: path.stat().st_mtime_ns for path in whole.folder.rglob("*.safetensors")} == before
    assert _lines(whole) == lines


def test_a_run_may_be_made_longer(mixed: Dataset, tmp_path: Path, whole: Run):
    constant = Optim(lr=3e-3, schedule="constant")
    short = _run(mixed, tmp_path / "grown", optim=constant, train=Train(steps=5, log_every=1, trackers=()))
    long = dataclasses.replace(short, train=dataclasses.replace(short.train, steps=8))
    straight = dataclasses.replace(long, out=tmp_path / "straight")
    for run in (short, long, straight):
        assert _execute(run) == DONE
    losses = [[line["train/loss"] for line in _lines(run) if "train/loss" in line] for run in (long, straight)]
    assert losses[0] == losses[1]


def test_the_stop_file_ends_a_run_after_its_step_with_a_checkpoint(
    mixed: Dataset, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
):
    run = _run(mixed, tmp_path)
    original = Engine.update

    def touch(self: Engine, limit: float) -> float:
        (run.folder / "STOP").touch()
        return original(self, limit)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "update", touch)
        assert _execute(run) == STOPPED
    assert (run.folder / "checkpoints/step-00000002").is_dir()  # the file was there when the second step looked
    assert _execute(run) == DONE
    assert not (run.folder / "STOP").exists()
    assert _measured(run) == _measured(whole)


@pytest.mark.parametrize("step", [3, 9])
def test_an_evaluation_that_a_stop_cut_off_comes_first_when_the_run_goes_on(
    mixed: Dataset, tmp_path: Path, whole: Run, step: int, monkeypatch: pytest.MonkeyPatch
):
    run = _run(mixed, tmp_path)
    original, done = Engine.backward, []

    def ask(self: Engine, share: torch.Tensor) -> None:
        done.append(share)
        if len(done) == 3 * step:  # three micro-batches a step
            (run.folder / "STOP").touch()
        original(self, share)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "backward", ask)
        assert _execute(run) == STOPPED
    assert max(line["step"] for line in _lines(run)) == step
    assert _execute(run) == DONE
    assert _measured(run) == _measured(whole)
    assert saved.load(run.folder).about["step"] == saved.load(whole.folder).about["step"]


def test_a_loss_that_is_not_finite_names_step_parts_and_users_and_saves_nothing(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run = _run(mixed, tmp_path, train=Train(steps=9, log_every=1, save_every=1, trackers=()))
    original = SoftToken.loss

    def loss(self: SoftToken, batch: Any) -> Any:
        value = original(self, batch)
        ill = (batch.user_B == 8).any() and float(self.tables.item.weight[1, 0].detach()) != start
        return value._replace(total=value.total * torch.inf) if ill else value

    start = make(run.model, mixed.users, mixed.items, run.seed).tables.item.weight[1, 0].item()
    monkeypatch.setattr(SoftToken, "loss", loss)
    assert _execute(run) == FAILED
    told = capsys.readouterr().err
    assert "the loss of step " in told
    assert "is not finite (loss inf, cross_entropy " in told
    assert "u8" in told
    steps = [line["step"] for line in _lines(run) if "train/loss" in line]
    newest = max(path.name for path in (run.folder / "checkpoints").glob("step-????????"))
    assert newest == f"step-{max(steps):08d}"
    assert f"the loss of step {max(steps) + 1} " in told


def test_an_infinite_gradient_of_a_finite_loss_saves_nothing_either(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run = _run(mixed, tmp_path, train=Train(steps=9, log_every=1, save_every=1, trackers=()))
    original, calls = Engine.update, []

    def update(self: Engine, limit: float) -> float:
        calls.append(limit)
        if len(calls) == 3:
            self.bare.tables.item.weight.grad[2, 0] = torch.inf
        return original(self, limit)

    monkeypatch.setattr(Engine, "update", update)
    assert _execute(run) == FAILED
    assert "the gradient norm of step 3 is inf" in capsys.readouterr().err
    assert max(path.name for path in (run.folder / "checkpoints").glob("step-????????")) == "step-00000002"


def test_training_ends_when_patience_does_and_the_best_model_is_published(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    values = iter([0.1, 0.3, 0.2, 0.3, 0.25, 0.9])
    monkeypatch.setattr("rec.eval.evaluate.validation", lambda *a, **k: {"ndcg@10": next(values)})
    run = _run(
        mixed, tmp_path, eval=Eval(every=1, patience=3), train=Train(steps=50, save_every=100, keep=1, trackers=())
    )
    assert _execute(run) == DONE
    evaluated = [line["valid/ndcg@10"] for line in _lines(run) if "valid/ndcg@10" in line]
    assert evaluated == [0.1, 0.3, 0.2, 0.3, 0.25]  # an equal value is no improvement
    opened = saved.load(run.folder)
    assert (opened.about["step"], opened.about["ndcg@10"]) == (2, 0.3)
    assert {path.name for path in (run.folder / "checkpoints").iterdir()} == {"step-00000002", "step-00000005", "best"}
    best = load_file(run.folder / "checkpoints/step-00000002/model.safetensors")
    assert all(torch.equal(value, best[name]) for name, value in opened.model.state_dict().items())
    assert _execute(run) == DONE  # patience is remembered: nothing is evaluated again


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 5}, r"seed is 5 but .*step-00000009 was trained with 0"),
        ({"data": Data(global_batch=24, micro_batch=4, max_items=6, negatives=5)}, "data.global_batch is 24 but .* 12"),
        ({"model": soft_token("gpt2", dropout=0.1, loss=EVERYTHING)}, "model.dropout is 0.1 but .* with 0.2"),
    ],
)
def test_another_experiment_in_the_same_folder_is_refused(whole: Run, change: dict[str, Any], told: str):
    with pytest.raises(CheckpointError, match=told):
        _execute(dataclasses.replace(whole, **change))


def test_another_dataset_in_the_same_folder_is_refused(whole: Run, rings: Dataset):
    with pytest.raises(CheckpointError, match=r"dataset fingerprint is"):
        _execute(dataclasses.replace(whole, dataset=rings.root))


def test_resume_never_refuses_a_folder_with_checkpoints(whole: Run):
    with pytest.raises(CheckpointError, match=r"train.resume is never, but .* has checkpoints"):
        _execute(dataclasses.replace(whole, train=dataclasses.replace(whole.train, resume="never")))


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
        _execute(_run(mixed, tmp_path, **groups))
    assert not (tmp_path / "run/metrics.jsonl").exists()


def test_a_dataset_without_validation_targets_is_refused(tmp_path: Path):
    dataset = write(tmp_path / "d", [[1, 2, 3]], 5, bounds=[(3, 3, 3, 3, 3)])
    with pytest.raises(DatasetError, match=r"no targets in the split 'valid'"):
        _execute(_run(dataset, tmp_path))


def test_user_errors_end_with_code_2_and_one_sentence(capsys: pytest.CaptureFixture[str]):
    def main() -> int:
        raise ConfigError("optim.lr is -1; choose a positive rate")

    assert command(main)() == 2
    assert capsys.readouterr().err.strip().endswith("optim.lr is -1; choose a positive rate")


def test_a_model_that_finds_nothing_is_evaluated_all_the_same(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("rec.eval.evaluate.validation", lambda *a, **k: {"ndcg@10": 0.0})
    run = _run(mixed, tmp_path, train=Train(steps=1, trackers=()))
    assert _execute(run) == DONE
    assert "best ndcg@10 0.0000 at step 1" in capsys.readouterr().err


def test_what_is_published_scores_as_the_trained_model_did(mixed: Dataset, tmp_path: Path):
    """The folder alone is enough: the metric recomputed from it is the one that was logged."""
    run = _run(mixed, tmp_path, model=soft_token("qwen3", loss=LossWeights()), eval=Eval())
    assert _execute(run) == DONE
    opened = saved.load(run.folder)
    again = validation(
        opened.model, mixed, config=run.eval, max_items=6, ranks=Ranks(), device=torch.device("cpu")
    )  # fmt: skip
    assert again["ndcg@10"] == _lines(run)[-1]["valid/ndcg@10"] == opened.about["ndcg@10"]
    assert opened.run == run
    assert opened.item_ids[1:3] == ["i1", "i2"]


def test_the_curve_is_that_of_ten_plain_lines_of_pytorch(mixed: Dataset, tmp_path: Path):
    """Another loop, written out: fresh gradients, a mean over the step's targets, clipping before the step."""
    run = _run(mixed, tmp_path, optim=Optim(lr=1e-2, schedule="constant", clip=0.5, weight_decay=0.1))
    assert _execute(run) == DONE
    model = make(run.model, mixed.users, mixed.items, run.seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": 0.1},
        {"params": [parameter for parameter in trained if parameter.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    feed = Feed(mixed, run.data, predict_first=False, seed=run.seed, ranks=Ranks())
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
    measured = [(line["train/loss"], line["train/grad_norm"]) for line in _lines(run) if "train/loss" in line]
    assert measured == [pytest.approx(pair, rel=1e-4) for pair in expected]


def test_a_kill_between_a_commit_and_what_follows_it_is_made_good_when_the_run_goes_on(mixed: Dataset, tmp_path: Path):
    run = _run(mixed, tmp_path)
    assert _execute(run) == DONE
    published = json.loads((run.folder / "model/model.json").read_text())
    best = (run.folder / "checkpoints/best").read_text()
    shutil.rmtree(run.folder / "model")
    (run.folder / "checkpoints/best").write_text("step-00000001\n")
    assert _execute(run) == DONE
    assert json.loads((run.folder / "model/model.json").read_text()) == published
    assert (run.folder / "checkpoints/best").read_text() == best
