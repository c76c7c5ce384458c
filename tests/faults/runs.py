"""The run that is disturbed: small, with everything random switched on, and a save after every other step."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rec.config.tree import Data, Eval, Optim, Run, Train
from rec.data.dataset import Dataset
from tests.eval.tiny import write
from tests.small import EVERYTHING, a_run, soft_token

GLOBAL_BATCH, STEPS, SAVE_EVERY, EVALUATE_EVERY = 12, 12, 2, 4
STRATEGIES = {"single": 1, "ddp": 2, "zero1": 2, "zero2": 2, "zero3": 2, "fsdp2": 2}
"""Strategy -> ranks that train under it."""
HANG_AFTER = 20.0
"""Seconds until ranks that wait for one that never came give up."""


class Case(NamedTuple):
    """Who trains what."""

    strategy: str
    architecture: str
    world: int

    def __str__(self) -> str:
        return f"{self.strategy} x{self.world}, {self.architecture}"


def make_dataset(root: Path) -> Dataset:
    """60 users of the 40 items that people take, in a catalogue of 6,000, which makes a save take its time."""
    random = np.random.default_rng(5)
    lengths = random.integers(3, 20, size=60)
    return write(root, [random.choice(40, size=length, replace=False) + 1 for length in lengths], 6000)


def make_run(dataset: Dataset, out: Path, case: Case, **train: Any) -> Run:
    """The run of a case: the same experiment for every number of ranks, of which each has two micro-batches."""
    options: dict[str, Any] = {
        "steps": STEPS, "log_every": 1, "save_every": SAVE_EVERY, "keep": 4, "trackers": (), "hang_after": HANG_AFTER,
        **train,
    }  # fmt: skip
    return a_run(
        dataset,
        out,
        soft_token(case.architecture, loss=EVERYTHING, dropout=0.2, user_dropout=0.3, predict_first=True),
        data=Data(global_batch=GLOBAL_BATCH, micro_batch=micro_batch(case.world), max_items=6, negatives=5),
        optim=Optim(lr=3e-3, warmup=2, weight_decay=0.01),
        train=Train(**options),
        eval=Eval(every=EVALUATE_EVERY, select="ndcg@6000", metrics=("ndcg@6000", "mrr@6000"), block=5),
    )


def on(run: Run, world: int) -> Run:
    """The same run, with micro-batches that fit another number of ranks."""
    return dataclasses.replace(run, data=dataclasses.replace(run.data, micro_batch=micro_batch(world)))


def micro_batch(world: int) -> int:
    return max(1, GLOBAL_BATCH // world // 2)
