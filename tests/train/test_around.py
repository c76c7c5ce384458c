"""What stands around the loop: stopping, patience, trackers, the report, the engine's refusals."""

import json
import signal
from pathlib import Path

import pytest
import torch

from rec.config.tree import Eval, Train
from rec.data.dataset import Dataset
from rec.errors import ConfigError
from rec.ranks import Ranks
from rec.report import Report
from rec.train import trackers
from rec.train.engine import Engine
from rec.train.progress import Progress
from rec.train.stop import Stop
from tests.small import a_run, soft_token


class TestStop:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
    def test_a_signal_is_noted_and_ends_nothing(self, tmp_path: Path, number: signal.Signals):
        stop = Stop(tmp_path)
        try:
            assert not stop.asked
            signal.raise_signal(number)
            assert stop.asked
        finally:
            stop.close()

    def test_signals_go_back_to_whoever_had_them(self, tmp_path: Path):
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
        Stop(tmp_path).close()
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before

    def test_a_second_signal_ends_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        stop, raised = Stop(tmp_path), []
        try:
            signal.raise_signal(signal.SIGINT)
            monkeypatch.setattr(signal, "raise_signal", raised.append)
            stop._on_signal(signal.SIGINT, None)
            assert raised == [signal.SIGINT]
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        finally:
            stop.close()

    def test_the_file_asks_as_long_as_it_is_there(self, tmp_path: Path):
        stop = Stop(tmp_path)
        try:
            (tmp_path / "STOP").touch()
            assert stop.asked
            (tmp_path / "STOP").unlink()
            assert not stop.asked
        finally:
            stop.close()


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

        Engine("fp32", Ranks())
        run = a_run(mixed, tmp_path, soft_token(), train=Train(trackers=("tensorboard",)))
        (tracker,) = trackers.start(run, 0, {})
        for step in (1, 2):
            tracker.log({"train/loss": 3.0 - step}, step=step)
        tracker.finish()
        events = EventAccumulator(str(next(run.folder.rglob("events.*")).parent))
        events.Reload()
        assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 2.0), (2, 1.0)]

    @pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
    def test_a_tracker_that_is_not_installed_is_the_users_error(self, mixed: Dataset, tmp_path: Path, name: str):
        from importlib.util import find_spec

        if find_spec(name):
            pytest.skip(f"{name} is installed")
        Engine("fp32", Ranks())
        run = a_run(mixed, tmp_path, soft_token(), train=Train(trackers=(name,)))
        with pytest.raises(ConfigError, match=rf"names {name}, which is not installed; run `pip install -e '\.\["):
            trackers.start(run, 0, {})


class TestReport:
    def _report(self, folder: Path, **options) -> Report:
        return Report(folder, **{"steps": 4, "start": 0, "first": True, **options})

    def test_without_a_terminal_it_prints_plain_lines(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        report = self._report(tmp_path)
        report.advance(100)
        report.train(1, {"loss": 2.5, "lr": 0.1})
        report.evaluation(1, {"ndcg@10": 0.25}, best=True)
        report.close()
        lines = capsys.readouterr().err.splitlines()
        assert lines[0].startswith("step 1/4  loss 2.5000  ")
        assert lines[0].endswith(" left")
        assert lines[1] == "step 1/4  valid  ndcg@10 0.2500  (best)"

    def test_on_a_terminal_it_draws_a_bar_and_no_plain_lines(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        report = self._report(tmp_path)
        for step in range(1, 5):
            report.advance(1)
            report.train(step, {"loss": 2.5})
        report.close()
        told = capsys.readouterr().err
        assert "4/4" in told
        assert "loss=2.5000" in told
        assert "step 4/4" not in told

    def test_other_ranks_are_silent_and_write_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        report = self._report(tmp_path / "run", first=False)
        report.advance(1)
        report.train(1, {"loss": 1.0})
        report.say("hello")
        report.close()
        assert capsys.readouterr().err == ""
        assert not (tmp_path / "run").exists()

    def test_resuming_drops_lines_of_steps_to_be_done_again_and_torn_ones(self, tmp_path: Path):
        file = tmp_path / "metrics.jsonl"
        file.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 2, 3, 4)) + '{"step": 5, "tra')
        self._report(tmp_path, start=2).close()
        assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 2]

    def test_speed_counts_the_steps_since_the_last_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        clock = iter([0.0, 10.0, 10.0, 14.0, 14.0])
        monkeypatch.setattr("rec.report.time.perf_counter", lambda: next(clock))
        report = self._report(tmp_path)
        for _ in range(2):
            report.advance(30)
            report.waited(0.5)
        report.train(2, {"loss": 1.0})
        report.advance(8)
        report.train(3, {"loss": 1.0})
        report.close()
        first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
        assert (first["speed/positions_per_second"], first["speed/seconds_per_step"]) == (6.0, 5.0)
        assert first["speed/wait_share"] == 0.1
        assert second["speed/positions_per_second"] == 2.0

    def test_trackers_get_what_the_file_gets(self, tmp_path: Path):
        class Tracker:
            logged: list[tuple[int, dict[str, float]]] = []  # noqa: RUF012
            finished = False

            def log(self, values: dict[str, float], step: int) -> None:
                self.logged.append((step, values))

            def finish(self) -> None:
                self.finished = True

        tracker = Tracker()
        report = self._report(tmp_path, trackers=[tracker])
        report.evaluation(3, {"ndcg@10": 0.25}, best=False)
        report.close()
        assert tracker.logged == [(3, {"valid/ndcg@10": 0.25})]
        assert tracker.finished


def test_ranks_that_were_launched_but_do_not_run_are_an_error():
    with pytest.raises(ConfigError, match=r"3 processes were launched but Accelerate runs 1"):
        Engine("fp32", Ranks(0, 3, 0))


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_fp16_without_a_gpu_is_refused():
    with pytest.raises(ConfigError, match=r"train.precision=fp16 needs a GPU"):
        Engine("fp16", Ranks())
