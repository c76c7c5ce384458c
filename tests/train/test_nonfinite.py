"""Losses and gradients that are not numbers: left out, counted, given up, taken back."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.command import DONE, FAILED
from rec.config.tree import Data, Eval, Run
from rec.data.dataset import Dataset
from rec.train.nonfinite import spoiling
from rec.train.strategies.engine import Plain
from tests.small import saved_tensors
from tests.train.runs import (
    PulledPlug,
    is_last_rank,
    lines,
    make_run,
    measured,
    newest,
    pull_the_plug_in_step,
    spoil,
    start,
    train,
)

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]
SMALL = Data(global_batch=12, micro_batch=2, max_items=6, negatives=5)
"""Micro-batches that two ranks can share."""


def tensors(run: Run, step: int) -> dict[str, torch.Tensor]:
    return saved_tensors(run, step)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def skips(run: Run) -> list[int]:
    """Steps that were left out, of a run that logs each."""
    trained = [line for line in lines(run) if "train/loss" in line]
    counts = [0, *(line["train/skipped"] for line in trained)]
    return [line["step"] for line, before in zip(trained, counts, strict=False) if line["train/skipped"] > before]


def test_a_step_that_is_left_out_changes_nothing_and_is_counted_and_reported(
    mixed: Dataset, tmp_path: Path, monkeypatch: Patch, capsys: Capture
):
    run = make_run(mixed, tmp_path, train=train(keep=9), eval=Eval(every=1, block=8))
    values = iter(range(9))
    monkeypatch.setattr("rec.eval.evaluate.validation", lambda *a, **k: {"ndcg@10": next(values)})  # each one is saved
    spoil(monkeypatch, {3, 4})
    assert start(run) == DONE
    assert skips(run) == [4, 5]
    assert same(tensors(run, 3), tensors(run, 5))
    assert not same(tensors(run, 5), tensors(run, 6))
    ill = next(line for line in lines(run) if line["step"] == 4 and "train/loss" in line)
    assert (ill["train/loss"], ill["train/grad_norm"], ill["train/skipped"]) == (None, None, 1)
    assert lines(run)[-2]["train/skipped"] == 2
    told = capsys.readouterr().err
    assert "step 4 is left out: its loss is not finite (loss inf, cross_entropy " in told
    assert told.count("is left out") == 2


def test_the_users_of_the_micro_batches_concerned_are_named(
    mixed: Dataset, tmp_path: Path, monkeypatch: Patch, capsys: Capture
):
    run = make_run(mixed, tmp_path)
    spoil(monkeypatch, set(range(9)), user=8)
    assert start(run) == DONE
    said = [line for line in capsys.readouterr().err.splitlines() if "is left out" in line]
    assert len(said) == len(skips(run)) > 0
    named = [line.rpartition("with the users ")[2].split(", ") for line in said]
    assert all("u8" in users for users in named)
    assert min(map(len, named)) <= 4  # those of one micro-batch of the step's three


def test_an_infinite_gradient_of_a_finite_loss_is_left_out_too(
    mixed: Dataset, tmp_path: Path, monkeypatch: Patch, capsys: Capture
):
    run = make_run(mixed, tmp_path)
    original, calls = Plain.update, []

    def update(self: Plain, limit: float) -> float:
        calls.append(limit)
        if len(calls) == 3:
            self.bare.tables.item.weight.grad[2, 0] = torch.inf
        return original(self, limit)

    monkeypatch.setattr(Plain, "update", update)
    assert start(run) == DONE
    assert skips(run) == [3]
    assert "step 3 is left out: its gradient is not finite (loss " in capsys.readouterr().err
    assert math.isfinite(next(line for line in lines(run) if line["step"] == 3)["train/loss"])


def test_a_loss_that_is_not_finite_spoils_gradients_that_would_be(mixed: Dataset):
    for plus, finite in ((0.0, True), (math.inf, False), (-math.inf, False), (math.nan, False)):
        weight = torch.tensor([0.1, -3.7], requires_grad=True)
        spoiling((weight * 0.3).sum() + plus).backward()
        assert torch.equal(weight.grad, torch.tensor([0.3, 0.3])) == finite
        assert bool(torch.isfinite(weight.grad).any()) == finite


def test_what_one_rank_finds_all_leave_out(mixed: Dataset, tmp_path: Path, monkeypatch: Patch):
    """The bad user's windows are on one rank in each step; the curve is that of one process."""
    spoil(monkeypatch, set(range(9)), user=8)
    alone, together = make_run(mixed, tmp_path / "1", data=SMALL), make_run(mixed, tmp_path / "2", data=SMALL)
    assert start(alone) == start(together, 2) == DONE
    assert skips(alone) == skips(together) != []
    for line, expected in zip(measured(together), measured(alone), strict=True):
        numbers = {name: value for name, value in expected.items() if value is not None}
        assert line.keys() == expected.keys()
        assert {name: line[name] for name in numbers} == pytest.approx(numbers, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("world", [1, 2])
def test_at_the_limit_the_run_stops_and_keeps_what_was_good(
    mixed: Dataset, tmp_path: Path, monkeypatch: Patch, capfd: Capture, world: int
):
    run = make_run(mixed, tmp_path, data=SMALL, train=train(skip_limit=3, save_every=1, keep=2))
    spoil(monkeypatch, {1, 2, 5, 6, 7, 8})
    assert start(run, world) == FAILED
    assert skips(run) == [2, 3, 6, 7, 8]
    told = capfd.readouterr().err
    assert "kindling train: 3 steps in a row left out, up to step 8, whose loss is not finite" in told
    assert "lower optim.lr, or set train.rollbacks" in told
    assert newest(run) == "step-00000005"  # what is left out drives no good checkpoint out
    assert all(torch.isfinite(value).all() for value in tensors(run, 5).values())


@pytest.mark.parametrize("world", [1, 2])
def test_a_rollback_takes_back_parameters_and_moments_and_goes_on_with_the_data_after(
    mixed: Dataset, tmp_path: Path, monkeypatch: Patch, world: int
):
    run = make_run(
        mixed, tmp_path, data=SMALL, train=train(skip_limit=2, rollbacks=1, save_every=2, keep=9), eval=Eval()
    )
    spoil(monkeypatch, {5, 6})
    assert start(run, world) == DONE
    assert skips(run) == [6, 7]
    assert [line["step"] for line in lines(run) if "train/loss" in line] == list(range(1, 10))
    assert same(tensors(run, 7), tensors(run, 4))  # at the limit, saved at once
    assert not same(tensors(run, 8), tensors(run, 7))


def test_the_way_back_leads_past_parameters_that_are_those_of_now(
    mixed: Dataset, tmp_path: Path, monkeypatch: Patch, capsys: Capture
):
    """Every step is bad from step 4 on, whose parameters are in a checkpoint: they are no way out."""
    run = make_run(mixed, tmp_path, train=train(steps=12, skip_limit=2, rollbacks=5, save_every=1, keep=9), eval=Eval())
    spoil(monkeypatch, set(range(4, 12)))
    assert start(run) == FAILED
    told = capsys.readouterr().err
    turns = [line.partition("parameters of ")[2] for line in told.splitlines() if "going on after" in line]
    assert turns == ["step 3", "step 2", "step 1"]
    assert "kindling train: 2 steps in a row left out, up to step 12" in told  # before step 1 there is none


@pytest.mark.parametrize("plugs", [(4,), (6,), (7,), (5, 7)])
def test_a_run_with_bad_steps_and_a_rollback_resumes_bit_for_bit(
    mixed: Dataset, tmp_path: Path, monkeypatch: Patch, plugs: tuple[int, ...]
):
    """Plugs are pulled before, between and after bad steps 6 and 7, and right after the rollback that follows them."""
    groups: dict[str, Any] = {"train": train(skip_limit=2, rollbacks=1, save_every=2), "eval": Eval(every=7, block=8)}
    straight, torn = make_run(mixed, tmp_path / "a", **groups), make_run(mixed, tmp_path / "b", **groups)
    spoil(monkeypatch, {2, 5, 6})
    assert start(straight) == DONE
    for step in plugs:
        with Patch.context() as patch:
            pull_the_plug_in_step(patch, step)
            with pytest.raises(PulledPlug):
                start(torn)
    assert start(torn) == DONE
    assert measured(torn) == measured(straight)
    assert skips(torn) == [3, 6, 7]
    assert same(tensors(torn, 9), tensors(straight, 9))


def test_a_bad_number_of_the_last_rank_alone_stops_all(mixed: Dataset, tmp_path: Path, monkeypatch: Patch):
    run = make_run(mixed, tmp_path, data=SMALL, train=train(skip_limit=1))
    original = Plain.backward

    def backward(self: Plain, share: torch.Tensor) -> None:
        original(self, share * (torch.nan if is_last_rank() else 1))

    monkeypatch.setattr(Plain, "backward", backward)
    assert start(run, 2) == FAILED


class TestUnderFp16sScale:
    """With a scaler for a CPU, and the gradients of some steps overflowing."""

    def _overflow(self, monkeypatch: Patch, steps: set[int], scale: float) -> None:
        place, update, calls = Plain._place, Plain.update, iter(range(99))

        def scaled(self: Plain, optim: Any) -> None:
            place(self, optim)
            self.scale = torch.amp.GradScaler("cpu", init_scale=scale)

        def overflowing(self: Plain, limit: float) -> float:
            if next(calls) in steps:
                self.bare.tables.item.weight.grad[2, 0] = torch.inf
            return update(self, limit)

        monkeypatch.setattr(Plain, "_place", scaled)
        monkeypatch.setattr(Plain, "update", overflowing)

    def test_an_overflow_is_counted_quietly_and_what_is_due_then_is_saved(
        self, mixed: Dataset, tmp_path: Path, monkeypatch: Patch, capsys: Capture
    ):
        run = make_run(mixed, tmp_path, train=train(skip_limit=2, save_every=1, keep=9), eval=Eval())
        self._overflow(monkeypatch, {0, 1, 2, 6}, 2.0**16)
        assert start(run) == DONE
        assert skips(run) == [1, 2, 3, 7]
        assert "left out" not in capsys.readouterr().err
        assert same(tensors(run, 6), tensors(run, 7))

    def test_a_loss_that_is_not_finite_is_no_overflow(
        self, mixed: Dataset, tmp_path: Path, monkeypatch: Patch, capsys: Capture
    ):
        run = make_run(mixed, tmp_path, train=train(skip_limit=2))
        self._overflow(monkeypatch, set(), 2.0**16)
        spoil(monkeypatch, {3, 4})
        assert start(run) == FAILED
        assert "step 4 is left out: its loss is not finite" in capsys.readouterr().err

    def test_gradients_that_overflow_under_any_scale_end_the_run(
        self, mixed: Dataset, tmp_path: Path, monkeypatch: Patch, capsys: Capture
    ):
        run = make_run(mixed, tmp_path, train=train(skip_limit=3))
        self._overflow(monkeypatch, set(range(9)), 4.0)
        assert start(run) == FAILED
        assert skips(run) == [1, 2, 3, 4, 5]
        assert "kindling train: 3 steps in a row left out, up to step 5" in capsys.readouterr().err
