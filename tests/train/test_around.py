"""What stands around the loop: patience, trackers, the engine and its refusals."""

import copy
import math
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rec.config.tree import Eval, Optim, Train
from rec.data.dataset import Dataset
from rec.errors import ConfigError
from rec.nn.shards import Shard
from rec.ranks import Ranks
from rec.train import trackers
from rec.train.progress import Progress
from rec.train.strategies.engine import Plain
from tests.small import a_run, soft_token


class TestProgress:
    def test_patience_counts_evaluations_since_the_best(self):
        progress, out = Progress(), []
        for step, value in enumerate([0.1, 0.2, 0.2, 0.15, 0.3, 0.1, 0.2, 0.3], 1):
            progress.step = step
            progress.judge(value)
            out.append(progress.patience_is_out(Eval(patience=3)))
        assert out == [False] * 7 + [True]
        assert (progress.best, progress.best_step) == (0.3, 5)

    def test_no_patience_never_ends(self):
        assert not Progress(waited=1000).patience_is_out(Eval(patience=0))


class TestTrackers:
    def test_tensorboard_gets_every_measurement(self, mixed: Dataset, tmp_path: Path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        run = a_run(mixed, tmp_path, soft_token(), train=Train(trackers=("tensorboard",)))
        (tracker,) = trackers.start(run, 0)
        for step in (1, 2):
            tracker.log({"train/loss": 3.0 - step}, step=step)
        tracker.finish()
        events = EventAccumulator(str(next(run.folder.rglob("events.*")).parent))
        events.Reload()
        assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 2.0), (2, 1.0)]

    def test_tensorboard_forgets_the_abandoned_future_and_nothing_else(self, mixed: Dataset, tmp_path: Path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        run = a_run(mixed, tmp_path, soft_token(), train=Train(trackers=("tensorboard",)))
        for done, steps in ((0, (1, 2, 3, 4)), (2, (3, 4, 5))):  # killed after step 4, resumed from the save of step 2
            (tracker,) = trackers.start(run, done)
            for step in steps:
                tracker.log({"train/loss": float(done + 1)}, step=step)
            tracker.finish()
            time.sleep(1.1)  # its files are named, and read in order, by the second
        events = EventAccumulator(str(next(run.folder.rglob("events.*")).parent))
        events.Reload()
        points = [(event.step, event.value) for event in events.Scalars("train/loss")]
        assert points == [(1, 1.0), (2, 1.0), (3, 3.0), (4, 3.0), (5, 3.0)]

    def test_an_evaluation_that_comes_again_is_there_once(self, mixed: Dataset, tmp_path: Path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        run = a_run(mixed, tmp_path, soft_token(), train=Train(trackers=("tensorboard",)))
        run.folder.mkdir(parents=True)
        for owed in (False, True):
            (tracker,) = trackers.start(run, 2 * owed, owed=owed)
            if not owed:
                tracker.log({"train/loss": 0.5}, step=2)
                (run.folder / "metrics.jsonl").write_text('{"step": 2, "train/loss": 0.5, "train/lr": null}\n{"ste')
            tracker.log({"valid/ndcg": 0.25 + owed}, step=2)
            tracker.finish()
            time.sleep(1.1)
        events = EventAccumulator(str(next(run.folder.rglob("events.*")).parent))
        events.Reload()
        for name, value in (("train/loss", 0.5), ("valid/ndcg", 1.25)):
            assert [(event.step, event.value) for event in events.Scalars(name)] == [(2, value)]

    def test_a_folder_has_one_tracker_run_and_a_new_folder_of_the_same_name_another(
        self, mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        run = a_run(mixed, tmp_path, soft_token(), train=Train(trackers=("wandb", "mlflow", "trackio")))
        given = iter(["chosen", "chosen too"])

        def server(self: trackers.MLflowTracker) -> None:
            chosen = self.run_id or next(given)
            self.active_run = SimpleNamespace(info=SimpleNamespace(run_id=chosen))

        monkeypatch.setattr(trackers.WandBTracker, "start", lambda self: None)
        monkeypatch.setattr(trackers.TrackioTracker, "start", lambda self: None)
        monkeypatch.setattr(trackers.MLflowTracker, "start", server)

        def ids() -> tuple[str, str, str]:
            run.folder.mkdir(parents=True, exist_ok=True)
            wandb, mlflow, trackio = trackers.start(run, 0)
            return wandb.init_kwargs["id"], mlflow.tracker.info.run_id, trackio.init_kwargs["name"]

        first = ids()
        assert ids() == first
        shutil.rmtree(run.folder)
        assert not set(ids()) & set(first)

    @pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
    def test_a_tracker_that_is_not_installed_is_the_users_error(self, mixed: Dataset, tmp_path: Path, name: str):
        from importlib.util import find_spec

        if find_spec(name):
            pytest.skip(f"{name} is installed")
        run = a_run(mixed, tmp_path, soft_token(), train=Train(trackers=(name,)))
        run.folder.mkdir(parents=True)
        with pytest.raises(ConfigError, match=rf"names {name}, which is not installed; run `pip install -e '\.\["):
            trackers.start(run, 0)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_fp16_without_a_gpu_is_refused():
    with pytest.raises(ConfigError, match=r"train.precision=fp16 needs a GPU"):
        Plain(Ranks(), "fp16")


class Weights(nn.Linear):
    """As much of a recommender as an engine asks for."""

    def shards(self) -> dict[str, Shard]:
        return {}


class TestUpdate:
    def _engine(self, *, scaled: bool) -> tuple[Plain, nn.Linear, torch.optim.Optimizer]:
        engine, model = Plain(Ranks(), "fp32"), Weights(3, 1, bias=False)
        engine.prepare(model, Optim(lr=0.1))  # type: ignore[arg-type]
        if scaled:  # what fp16 brings with it, on a machine without a GPU
            engine.scale = torch.amp.GradScaler("cpu", init_scale=8.0)
        return engine, model, engine.optimizer

    @pytest.mark.parametrize("scaled", [False, True])
    @pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
    def test_a_step_whose_norm_is_not_finite_is_left_out_and_leaves_nothing_behind(self, scaled: bool, bad: float):
        engine, model, optimizer = self._engine(scaled=scaled)

        def step(value: float) -> float:
            engine.backward(engine.model(torch.tensor([value, 1.0, 1.0])).sum())
            norm = engine.update(1.0)
            assert all(parameter.grad is None for parameter in model.parameters())
            return norm

        assert step(1.0) == pytest.approx(3**0.5, rel=1e-3)
        weight, moments = model.weight.detach().clone(), copy.deepcopy(optimizer.state_dict()["state"])
        assert not math.isfinite(step(bad))
        assert torch.equal(model.weight, weight)
        assert optimizer.state_dict()["state"][0]["step"] == moments[0]["step"]
        assert torch.equal(optimizer.state_dict()["state"][0]["exp_avg"], moments[0]["exp_avg"])
        assert not scaled or engine.scale.get_scale() == 4.0  # the scaler has learned from it
        assert math.isfinite(step(1.0))
        assert not torch.equal(model.weight, weight)

    def test_an_overflow_is_the_scales_until_the_scale_is_tiny(self):
        engine, *_ = self._engine(scaled=True)
        assert not self._engine(scaled=False)[0].overflows
        seen = []
        for _ in range(5):
            engine.backward(engine.model(torch.tensor([torch.inf, 1.0, 1.0])).sum())
            engine.update(1.0)
            seen.append(engine.overflows)
        assert seen == [True, True, True, False, False]  # scales 4, 2, 1, 1/2, 1/4

    @pytest.mark.parametrize(("limit", "factor"), [(0.0, 1.0), (0.5, 0.5 / 3**0.5), (9.0, 1.0)])
    def test_gradients_are_scaled_down_to_the_limit(self, limit: float, factor: float):
        engine, _model, optimizer = self._engine(scaled=False)
        engine.backward(engine.model(torch.ones(3)).sum())
        assert engine.update(limit) == pytest.approx(3**0.5)
        first_moment = optimizer.state_dict()["state"][0]["exp_avg"]
        torch.testing.assert_close(first_moment, torch.full((1, 3), 0.1 * factor))
