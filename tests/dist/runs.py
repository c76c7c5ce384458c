"""One small run, executed by any number of ranks under any strategy; what it measured, and what it saved."""

import dataclasses
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from launch.train import execute
from rec.config.tree import Data, Eval, Optim, Run, Train
from rec.data.dataset import Dataset
from rec.ranks import from_environment
from rec.train.stop import Stop
from tests.ranks import run_ranks
from tests.small import EVERYTHING, a_run, forget_the_world, soft_token

GLOBAL_BATCH, STEPS = 12, 6
Curve = list[dict[str, Any]]


def a_random_run(dataset: Dataset, out: Path, architecture: str, micro_batch: int = 12, **train: Any) -> Run:
    """Everything random is switched on, and all terms of the loss."""
    return a_run(
        dataset, out,
        soft_token(architecture, loss=EVERYTHING, dropout=0.2, user_dropout=0.3, predict_first=True),
        data=Data(global_batch=GLOBAL_BATCH, micro_batch=micro_batch, max_items=6, negatives=5),
        optim=Optim(lr=3e-3, warmup=2, weight_decay=0.01),
        train=Train(**{"steps": STEPS, "log_every": 1, "save_every": 100, "trackers": (), **train}),
        eval=Eval(every=2, select="ndcg@10", metrics=("ndcg@10", "recall@10", "mrr@5"), block=5),
    )  # fmt: skip


def execute_on(run: Run, world: int, strategy: str | None = None) -> int:
    """The run on forked ranks, with the micro-batches that fit; its exit code."""
    forget_the_world()
    if run.data.global_batch % (run.data.micro_batch * world):
        run = dataclasses.replace(run, data=dataclasses.replace(run.data, micro_batch=GLOBAL_BATCH // world))
    if world == 1 and strategy is None:
        return execute(run)
    (code,) = set(run_ranks(lambda ranks: execute(run, strategy), world))
    return code


def curve_of(run: Run) -> Curve:
    """Everything measured of the run but time, speed and memory."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "train/", "valid/")
    return [{key: value for key, value in line.items() if key.startswith(kept)} for line in lines]


def assert_close(curve: Curve, reference: Curve, context: object, rel: float = 1e-5) -> None:
    assert [line.keys() for line in curve] == [line.keys() for line in reference], context
    for line, expected in zip(curve, reference, strict=True):
        assert line == pytest.approx(expected, rel=rel, abs=rel / 100), context
