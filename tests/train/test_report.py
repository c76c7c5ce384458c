"""What a run says, and that it says each thing once."""

import json
from pathlib import Path

import pytest

from launch.command import WRONG_INPUT
from launch.train import execute
from rec.config.tree import Data
from rec.data.dataset import Dataset
from rec.ranks import Ranks
from rec.report import Report
from tests.ranks import run_ranks
from tests.train.runs import make_run, newest, status, train


class Tracker:
    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


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

    def test_an_evaluation_that_comes_again_is_dropped_though_its_step_is_done(self, tmp_path: Path):
        """The run was killed after it was written and before it was saved."""
        file = tmp_path / "metrics.jsonl"
        points = [{"step": 4, "valid/ndcg@10": 0.1}, {"step": 8, "train/loss": 1.0}, {"step": 8, "valid/ndcg@10": 0.2}]
        for owed, kept in ((False, points), (True, points[:2])):
            file.write_text("".join(json.dumps(point) + "\n" for point in points))
            self._report(tmp_path, start=8, owed=owed).close()
            assert [json.loads(line) for line in file.read_text().splitlines()] == kept

    @pytest.mark.parametrize("torn", [b"{", b'{"step": 3', b'{"step": 3, "time"', b"\0\0\0\0", b'{"step": 3}\n\xff'])
    def test_whatever_a_kill_left_of_the_last_line_is_dropped(self, tmp_path: Path, torn: bytes):
        file = tmp_path / "metrics.jsonl"
        file.write_bytes(b'{"step": 1}\n{"step": 2}\n' + torn)
        report = self._report(tmp_path, start=2)
        report.evaluation(3, {"ndcg@10": 0.5}, best=False)
        report.close()
        assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 3]

    def test_a_number_that_is_not_finite_is_null_and_no_tracker_gets_it(self, tmp_path: Path):
        tracker = Tracker()
        report = self._report(tmp_path, trackers=[tracker])
        report.advance(1)
        report.train(1, {"loss": float("nan"), "grad_norm": float("inf"), "lr": 0.1})
        report.close()
        text = (tmp_path / "metrics.jsonl").read_text()
        assert '"train/loss": null, "train/grad_norm": null, "train/lr": 0.1' in text
        ((step, values),) = tracker.logged
        assert (step, values["train/lr"]) == (1, 0.1)
        assert not {"train/loss", "train/grad_norm"} & values.keys()

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

    def test_trackers_get_what_the_file_gets(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        tracker = Tracker()
        report = self._report(tmp_path, trackers=[tracker])
        report.evaluation(3, {"ndcg@10": 0.25, "users": 1200}, best=False)
        report.close()
        assert tracker.logged == [(3, {"valid/ndcg@10": 0.25, "valid/users": 1200})]
        assert "step 3/4  valid of 1,200 users  ndcg@10 0.2500\n" in capsys.readouterr().err
        assert tracker.finished


def test_measurements_that_cannot_be_written_end_the_run_with_all_of_it_saved(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """The disk is full for them from the fourth step on; every rank stops after the same step, with the same code."""
    data = Data(global_batch=12, micro_batch=2, max_items=6, negatives=5)
    run = make_run(mixed, tmp_path, data=data, train=train(save_every=100))
    original = Path.open

    def full(self: Path, mode: str = "r", **options: object) -> object:
        if self.name == "metrics.jsonl" and mode == "a" and self.is_file() and self.read_text().count("\n") > 3:
            raise OSError(28, "No space left on device", str(self))
        return original(self, mode, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)

    def act(ranks: Ranks) -> str:
        with pytest.raises(OSError, match="No space left") as caught:
            execute(run)
        return f"{caught.type.__name__} {vars(caught.value)['told']}"

    assert run_ranks(act, 2) == ["OSError False", "OSError True"]
    # three lines are of training and one of an evaluation; step 5 has begun when that of step 4 fails, and asks
    assert newest(run) == "step-00000006"
    assert (status(run)["state"], status(run)["step"], status(run)["code"]) == ("failed", 6, WRONG_INPUT)
    assert capfd.readouterr().err.count("cannot write measurements: No space left on device; stopping") == 1
