"""A step whose gradients are not finite, under strategies that keep them in pieces."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.command import DONE
from rec.config.tree import Data, Eval
from rec.data.dataset import Dataset
from tests.dist.runs import assert_close, execute_on
from tests.small import saved_tensors
from tests.train.runs import make_run, measured, spoil, train

pytest.importorskip("deepspeed.runtime.zero.muon.muon_optimizer", reason="install kindling[deepspeed]")

OFFLOAD = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
SMALL = Data(global_batch=12, micro_batch=2, max_items=6, negatives=5)


@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp2", "offload.json"])
def test_it_is_left_out_on_all_ranks_changes_nothing_and_the_next_goes_on(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
):
    """The loss of one user is infinite in three steps: only one of two ranks sees it."""
    spoil(monkeypatch, {2, 3, 6}, user=8)
    if strategy.endswith(".json"):
        (tmp_path / strategy).write_text(json.dumps(OFFLOAD))
        strategy = str(tmp_path / strategy)
    curves: list[list[dict[str, Any]]] = []
    for name, world, how in (("together", 2, strategy), ("alone", 1, None)):
        better = count()  # so that each step is saved
        monkeypatch.setattr("rec.eval.evaluate.validation", lambda *_, n=better, **__: {"ndcg@10": float(next(n))})
        run = make_run(mixed, tmp_path / name, data=SMALL, train=train(keep=9), eval=Eval(every=1, block=8))
        assert execute_on(run, world, how) == DONE
        curves.append([{key: value for key, value in line.items() if value is not None} for line in measured(run)])
        saved = [saved_tensors(run, step) for step in range(1, 10)]
        for step in range(2, 10):
            before, after = saved[step - 2], saved[step - 1]
            same = all(torch.equal(before[key], after[key]) for key in before)
            assert same == (step in (3, 4, 7)), f"{name}, step {step}"
    assert_close(curves[0], curves[1], strategy)
    skipped = [line["train/skipped"] for line in curves[0] if "train/skipped" in line]
    assert skipped == [0, 0, 1, 2, 2, 2, 3, 3, 3]
