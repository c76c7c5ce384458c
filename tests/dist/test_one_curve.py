"""The property the whole design serves: one curve, whatever runs it.

Losses of every step and all validation metrics are equal for 1, 2 and 3 processes at every micro-batch size, with
everything random switched on; and a run may move between numbers of processes on its way.
"""

import dataclasses
import json
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from launch.command import DONE, STOPPED
from launch.train import execute
from rec.config.tree import Data, Eval, Optim, Run, Train
from rec.data.dataset import Dataset
from rec.data.feed import Feed
from tests.ranks import run_ranks
from tests.small import EVERYTHING, a_run, forget_the_world, soft_token

GLOBAL_BATCH, STEPS = 12, 6
Curve = list[dict[str, Any]]


def _run(dataset: Dataset, out: Path, architecture: str, micro_batch: int = 12) -> Run:
    return a_run(
        dataset, out,
        soft_token(architecture, loss=EVERYTHING, dropout=0.2, user_dropout=0.3, predict_first=True),
        data=Data(global_batch=GLOBAL_BATCH, micro_batch=micro_batch, max_items=6, negatives=5),
        optim=Optim(lr=3e-3, warmup=2, weight_decay=0.01),
        train=Train(steps=STEPS, log_every=1, save_every=100, trackers=()),
        eval=Eval(every=2, select="ndcg@10", metrics=("ndcg@10", "recall@10", "mrr@5"), block=5),
    )  # fmt: skip


def _execute(run: Run, world: int) -> int:
    forget_the_world()
    if world == 1:
        return execute(run)
    (code,) = set(run_ranks(lambda ranks: execute(run), world))
    return code


def _curve(run: Run) -> Curve:
    """Everything measured of the run but time, speed and memory."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "train/", "valid/")
    return [{key: value for key, value in line.items() if key.startswith(kept)} for line in lines]


def _assert_same(curve: Curve, reference: Curve, context: object) -> None:
    assert [line.keys() for line in curve] == [line.keys() for line in reference], context
    for line, expected in zip(curve, reference, strict=True):
        assert line == pytest.approx(expected, rel=1e-5, abs=1e-7), context


@pytest.mark.parametrize("architecture", ["gpt2", "qwen3"])
def test_any_number_of_ranks_and_any_micro_batch_give_one_curve(mixed: Dataset, tmp_path: Path, architecture: str):
    reference = _run(mixed, tmp_path / "reference", architecture)
    assert _execute(reference, 1) == DONE
    expected = _curve(reference)
    steps = [line["step"] for line in expected if "train/loss" in line]
    evaluations = [line["step"] for line in expected if "valid/ndcg@10" in line]
    assert (steps, evaluations) == ([1, 2, 3, 4, 5, 6], [2, 4, 6])
    assert len({line["train/loss"] for line in expected if "train/loss" in line}) == STEPS  # a curve, and not a line
    for world in (1, 2, 3):
        for micro_batch in (size for size in range(1, GLOBAL_BATCH) if GLOBAL_BATCH % (size * world) == 0):
            run = _run(mixed, tmp_path / f"{world}x{micro_batch}", architecture, micro_batch)
            assert _execute(run, world) == DONE
            _assert_same(_curve(run), expected, f"{world} processes, micro-batches of {micro_batch}")


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes one process ask for a stop in the given number of steps, as a signal to it alone would."""
    original = Feed.step

    def arrange(steps: int) -> None:
        begun = count(1)

        def step(feed: Feed, number: int) -> Any:
            if next(begun) == steps and feed.ranks.rank == feed.ranks.world - 1:
                signal.raise_signal(signal.SIGUSR1)
            return original(feed, number)

        monkeypatch.setattr(Feed, "step", step)

    return arrange


@pytest.mark.parametrize("worlds", [(1, 2, 1), (2, 1, 3)])
def test_a_run_that_moves_between_numbers_of_ranks_stays_on_its_curve(
    mixed: Dataset, tmp_path: Path, worlds: tuple[int, int, int], stop_after: Callable[[int], None]
):
    whole = _run(mixed, tmp_path / "whole", "qwen3", 2)
    assert _execute(whole, 1) == DONE
    moving = _run(mixed, tmp_path / "moving", "qwen3")
    for world, steps, code in zip(worlds, (2, 1, 100), (STOPPED, STOPPED, DONE), strict=True):
        stop_after(steps)
        share = dataclasses.replace(moving.data, micro_batch=GLOBAL_BATCH // world)
        assert _execute(dataclasses.replace(moving, data=share), world) == code
    _assert_same(_curve(moving), _curve(whole), worlds)
