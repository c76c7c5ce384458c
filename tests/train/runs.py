"""Runs of nine steps with everything random switched on, and what can befall them."""

import json
from pathlib import Path
from typing import Any

import pytest

from launch.train import execute
from rec.config.tree import Data, Eval, Optim, Run, Train
from rec.data.dataset import Dataset
from rec.models.soft_token import SoftToken
from rec.ranks import from_environment
from rec.train import loop
from tests.ranks import run_ranks
from tests.small import EVERYTHING, a_run, forget_the_world, soft_token


def make_run(dataset: Dataset, out: Path, **groups: Any) -> Run:
    defaults: dict[str, Any] = {
        "model": soft_token("gpt2", loss=EVERYTHING, dropout=0.2, user_dropout=0.3),
        "data": Data(global_batch=12, micro_batch=4, max_items=6, negatives=5),
        "optim": Optim(lr=3e-3, warmup=3, weight_decay=0.01, groups={}),
        "train": train(),
        "eval": Eval(every=3, block=8),
    }
    return a_run(dataset, out, **{**defaults, **groups})


def train(**changes: Any) -> Train:
    return Train(**{"steps": 9, "log_every": 1, "save_every": 4, "trackers": (), **changes})


def start(run: Run, world: int = 1) -> int:
    """The exit code that all ranks agree on. One rank runs in this process; several are forked."""
    forget_the_world()
    if world == 1:
        return execute(run)
    (code,) = set(run_ranks(lambda ranks: execute(run), world))
    return code


def lines(run: Run) -> list[dict[str, Any]]:
    """metrics.jsonl, as a strict reader sees it."""
    text = (run.folder / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} in JSON")) for line in text.splitlines()]


def measured(run: Run) -> list[dict[str, Any]]:
    """What was measured, without time, speed and memory."""
    kept = ("step", "train/", "valid/")
    return [{key: value for key, value in line.items() if key.startswith(kept)} for line in lines(run)]


def status(run: Run) -> dict[str, Any]:
    return json.loads((run.folder / "status.json").read_text())


def newest(run: Run) -> str:
    """Name of the newest checkpoint."""
    return max(path.name for path in (run.folder / "checkpoints").glob("step-????????"))


class PulledPlug(BaseException):
    """Ends a run as kill -9 does: nothing of the run catches it."""


class Clock:
    """The step whose passes the loop is in, counted from 0."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.step = -1
        original = loop.passes

        def passes(engine: Any, feed: Any, step: int, *arguments: Any) -> Any:
            self.step = step
            return original(engine, feed, step, *arguments)

        patch.setattr(loop, "passes", passes)


def pull_the_plug_in_step(patch: pytest.MonkeyPatch, step: int) -> None:
    """Ends the process's run in the middle of a step, counted from 0, after its backward pass."""
    original = loop.passes

    def passes(engine: Any, feed: Any, begun: int, *arguments: Any) -> Any:
        passed = original(engine, feed, begun, *arguments)
        if begun == step:
            raise PulledPlug
        return passed

    patch.setattr(loop, "passes", passes)


def spoil(patch: pytest.MonkeyPatch, steps: set[int], *, user: int | None = None) -> None:
    """Makes the loss infinite in some steps, counted from 0: in each micro-batch, or only in those of one user."""
    clock, original = Clock(patch), SoftToken.loss

    def loss(self: SoftToken, batch: Any) -> Any:
        value = original(self, batch)
        ill = clock.step in steps and (user is None or bool((batch.user_B == user).any()))
        return value._replace(total=value.total * float("inf")) if ill else value

    patch.setattr(SoftToken, "loss", loss)


def is_last_rank() -> bool:
    ranks = from_environment()
    return ranks.rank == ranks.world - 1
