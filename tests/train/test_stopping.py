"""A request to stop in every phase of a run: all ranks save at one step, leave with code 3, and the run goes on."""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launch.command import DONE, STOPPED
from rec.config.load import dump
from rec.config.tree import Data, Eval, Run
from rec.data.dataset import Dataset
from rec.data.feed import Feed
from rec.eval import evaluate
from rec.models import saved
from rec.train.keeper import Keeper
from rec.train.stop import SIGNALS
from rec.train.strategies.engine import Plain
from tests.train.runs import is_last_rank, lines, make_run, measured, newest, start, status, train

PHASES: dict[str, tuple[Any, str, int]] = {
    "loading": (Dataset, "open", 1),
    "the first step": (Plain, "backward", 1),
    "training": (Feed, "step", 2),
    "evaluation": (evaluate, "assemble", 2),
    "saving": (Keeper, "save", 1),
}
"""Phase -> what happens in it, and the how manieth time after the start of the process it is meant."""
SMALL = Data(global_batch=12, micro_batch=6, max_items=6, negatives=5)
BLOCKS = Eval(every=3, block=2)
"""Seven blocks, so that two ranks have several, too."""


def befall(patch: pytest.MonkeyPatch, phase: str, act: Callable[[], None]) -> None:
    """Lets something happen to the last rank in the midst of a phase, or of a method of the engine."""
    owner, name, at = PHASES.get(phase, (Plain, phase, 1))
    original, calls = getattr(owner, name), []

    def with_it(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == at and is_last_rank():
            act()
        return original(*arguments, **options)

    patch.setattr(owner, name, with_it)


def saved_steps(run: Run) -> list[int]:
    """Steps of the checkpoints of a run, ascending."""
    return sorted(int(folder.name[5:]) for folder in (run.folder / "checkpoints").glob("step-????????"))


@pytest.fixture(scope="module")
def undisturbed(mixed: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Any]:
    """What a run that nothing disturbs measures on so many ranks."""

    @functools.cache
    def curve(world: int) -> Any:
        run = make_run(mixed, tmp_path_factory.mktemp("undisturbed"), data=SMALL, eval=BLOCKS)
        assert start(run, world) == DONE
        return measured(run)

    return curve


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_any_phase_stops_all_ranks_and_the_run_goes_on_as_if_nothing_had_happened(
    mixed: Dataset, tmp_path: Path, undisturbed: Callable[[int], Any], phase: str, world: int
):
    """Each of the three signals in turn, to the last rank alone; then the run is left to finish."""
    run, steps = make_run(mixed, tmp_path, data=SMALL, eval=BLOCKS, train=train(save_every=2)), []
    for number in SIGNALS:
        with pytest.MonkeyPatch.context() as patch:
            befall(patch, phase, lambda number=number: os.kill(os.getpid(), number))
            assert start(run, world) == STOPPED
        content = status(run)
        assert (content["state"], content["code"]) == ("stopped", STOPPED)
        assert saved_steps(run)[-1:] == [content["step"]][: content["step"]]
        steps.append(content["step"])
    # saved at the next boundary: of a step, or of an evaluation, which is then repeated from its begin; before the
    # first step there is nothing to save. When a step is known of, the next has begun, and is finished, unless the
    # parameters were looked at: they are saved every 2 steps, and evaluated every 3
    each = {"loading": [0, 0, 0], "the first step": [2, 3, 4], "training": [2, 4, 6], "evaluation": [3, 3, 3]}
    assert steps == each.get(phase, [3, 4, 8])
    assert start(run, world) == DONE
    assert measured(run) == undisturbed(world)


@pytest.mark.parametrize("world", [1, 2])
def test_a_request_before_the_next_step_leaves_what_was_saved_as_it_is(mixed: Dataset, tmp_path: Path, world: int):
    run = make_run(mixed, tmp_path, data=SMALL, eval=BLOCKS, train=train(save_every=2))
    for phase, steps in (("training", 2), ("loading", 2)):
        with pytest.MonkeyPatch.context() as patch:
            befall(patch, phase, lambda: os.kill(os.getpid(), signal.SIGINT))
            assert start(run, world) == STOPPED
        assert (status(run)["state"], status(run)["step"], saved_steps(run)[-1]) == ("stopped", steps, steps)


def test_an_evaluation_is_given_up_within_a_block(mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, blocks = make_run(mixed, tmp_path, eval=BLOCKS), []
    original = evaluate.assemble

    def slow(*arguments: Any, **options: Any) -> Any:
        blocks.append(time.monotonic())
        if len(blocks) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "assemble", slow)
        assert start(run) == STOPPED
    assert len(blocks) == 2
    assert not [line for line in lines(run) if "valid/ndcg@10" in line]
    assert (status(run)["step"], status(run)["state"]) == (3, "stopped")


def test_a_request_in_the_last_evaluation_leaves_it_owed(
    mixed: Dataset, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
):
    run = make_run(mixed, tmp_path, eval=Eval(block=2))
    with monkeypatch.context() as patch:
        befall(patch, "evaluation", lambda: os.kill(os.getpid(), signal.SIGUSR1))
        assert start(run) == STOPPED
    assert (status(run)["step"], newest(run)) == (9, "step-00000009")
    monkeypatch.setattr(Plain, "backward", None)
    assert start(run) == DONE
    assert lines(run)[-1]["valid/ndcg@10"] == lines(whole)[-1]["valid/ndcg@10"]


class TestStopFile:
    def test_it_ends_a_run_after_its_step_with_a_checkpoint(
        self, mixed: Dataset, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
    ):
        run = make_run(mixed, tmp_path)
        monkeypatch.setattr("rec.train.stop.LOOK_EVERY", 0.0)
        with monkeypatch.context() as patch:
            befall(patch, "update", lambda: (run.folder / "STOP").touch())
            assert start(run) == STOPPED
        assert newest(run) == "step-00000003"  # the file was there when the second step looked, and the third begun
        age(run.folder / "STOP")
        assert start(run) == DONE
        assert not (run.folder / "STOP").exists()
        assert measured(run) == measured(whole)

    def test_touched_while_the_job_is_loading_it_counts(
        self, mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        run = make_run(mixed, tmp_path)
        run.folder.mkdir()
        befall(monkeypatch, "loading", lambda: (run.folder / "STOP").touch())
        assert start(run) == STOPPED
        assert saved_steps(run) == []

    def test_it_holds_against_restarts_by_the_launcher(
        self, mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        run = make_run(mixed, tmp_path)
        run.folder.mkdir()
        (run.folder / "STOP").touch()
        age(run.folder / "STOP")
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        assert start(run) == STOPPED

    @pytest.mark.parametrize("step", [3, 9])
    def test_an_evaluation_that_it_cut_off_comes_first_when_the_run_goes_on(
        self, mixed: Dataset, tmp_path: Path, whole: Run, step: int, monkeypatch: pytest.MonkeyPatch
    ):
        run = make_run(mixed, tmp_path)
        monkeypatch.setattr("rec.train.stop.LOOK_EVERY", 0.0)
        original, done = Plain.backward, []

        def ask(self: Plain, share: Any) -> None:
            done.append(share)
            if len(done) == 3 * step:  # three micro-batches a step
                (run.folder / "STOP").touch()
            original(self, share)

        with monkeypatch.context() as patch:
            patch.setattr(Plain, "backward", ask)
            assert start(run) == STOPPED
        assert max(line["step"] for line in lines(run)) == step
        age(run.folder / "STOP")
        assert start(run) == DONE
        assert measured(run) == measured(whole)
        assert saved.load(run.folder).about["step"] == saved.load(whole.folder).about["step"]


def age(file: Path) -> None:
    """Makes a file ten seconds old."""
    os.utime(file, (time.time() - 10, time.time() - 10))


def test_a_killed_second_evaluation_leaves_no_point_twice(
    mixed: Dataset, tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch
):
    """It was owed, was made good and written down, and the run was killed before that was saved."""
    run = make_run(mixed, tmp_path, eval=BLOCKS)
    with monkeypatch.context() as patch:
        befall(patch, "evaluation", lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert start(run) == STOPPED
    with monkeypatch.context() as patch:
        befall(patch, "saving", lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            start(run)
    assert [line["step"] for line in lines(run) if "valid/ndcg@10" in line] == [3]
    assert start(run) == DONE
    assert measured(run) == measured(whole)


@pytest.fixture
def command(mixed: Dataset, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`kindling train` as a process of its own."""
    run = make_run(mixed, tmp_path, train=train(steps=100_000))
    (tmp_path / "run.yaml").write_text(dump(run))
    words = [sys.executable, "-m", "launch.train", str(tmp_path / "run.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(words, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def catches(process: "subprocess.Popen[str]", number: int) -> bool:
    text = Path(f"/proc/{process.pid}/status").read_text()
    return bool(int(text.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)


def test_a_signal_that_comes_while_torch_is_being_imported_is_not_lost(
    command: "subprocess.Popen[str]", mixed: Dataset, tmp_path: Path
):
    until = time.monotonic() + 60
    while not catches(command, signal.SIGUSR1) and time.monotonic() < until:
        time.sleep(0.002)
    assert "libtorch_python" not in Path(f"/proc/{command.pid}/maps").read_text()
    command.send_signal(signal.SIGUSR1)
    _, said = command.communicate(timeout=120)
    assert command.returncode == STOPPED, said
    assert "SIGUSR1: stopping before the first step, so that nothing is begun; by force" in said
    assert "stopped before the first step: nothing was begun, and nothing had to be saved" in said
    run = make_run(mixed, tmp_path)
    assert saved_steps(run) == []
    assert (status(run)["state"], status(run)["step"], status(run)["code"]) == ("stopped", 0, STOPPED)
