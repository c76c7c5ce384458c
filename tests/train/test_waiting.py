"""No step asks its device for a number: whoever asks waits until everything that was queued is done."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from launch.command import DONE, STOPPED
from rec.config.tree import Eval, Model, Optim, Sasrec
from rec.data.dataset import Dataset
from rec.data.feed import Feed
from rec.train import loop
from rec.train.keeper import Keeper
from rec.train.numbers import Pending
from rec.train.stop import stop_file
from rec.train.strategies.engine import Plain
from tests.small import EVERYTHING, soft_token
from tests.train.runs import lines, make_run, newest, spoil, start, train

Patch = pytest.MonkeyPatch
ASKING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "repeat_interleave"}
"""Operations whose result, or its size, the host has to know: `item`, `bool` and `float` of a tensor are the first."""


class Asked(TorchDispatchMode):
    """Writes down what asks in this thread, but where it may: batches are made on the host, and numbers read once."""

    def __init__(self, patch: Patch) -> None:
        super().__init__()
        self.within, self.names = 0, []
        for owner, name in ((Feed, "step"), (Pending, "read"), (Keeper, "save"), (loop, "judge")):
            self._allow(patch, owner, name)
        for name in ("tolist", "numpy", "cpu"):
            self._note(patch, name)

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operation.overloadpacket.__name__
        places = args[1] if name.startswith(("index", "_index")) and isinstance(args[1], (list, tuple)) else ()
        by_mask = any(place is not None and place.dtype == torch.bool for place in places)
        if not self.within and (name in ASKING or by_mask):
            self.names.append(name)
        return operation(*args, **(kwargs or {}))

    def _allow(self, patch: Patch, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def allowed(*arguments: Any, **named: Any) -> Any:
            self.within += 1
            try:
                return original(*arguments, **named)
            finally:
                self.within -= 1

        patch.setattr(owner, name, allowed)

    def _note(self, patch: Patch, name: str) -> None:
        original = getattr(Tensor, name)

        def noted(tensor: Tensor, *arguments: Any) -> Any:
            if not self.within and torch.utils._python_dispatch._get_current_dispatch_mode() is self:
                self.names.append(name)
            return original(tensor, *arguments)

        patch.setattr(Tensor, name, noted)


def asked_in_a_run(dataset: Dataset, out: Path, patch: Patch, model: Model, **groups: Any) -> list[str]:
    asked, original = Asked(patch), loop.train

    def watched(*arguments: Any) -> bool:
        with asked:
            return original(*arguments)

    patch.setattr(loop, "train", watched)
    run = make_run(dataset, out, model=model, train=train(log_every=2), eval=Eval(every=5, block=8), **groups)
    assert start(run) == DONE
    return asked.names


MODELS = {
    "gpt2": soft_token("gpt2", loss=EVERYTHING, dropout=0.2, user_dropout=0.3),
    "qwen3": soft_token("qwen3"),
    "sasrec": Sasrec(dim=8, layers=1, heads=1, positions=10),
}


@pytest.mark.parametrize("kind", MODELS)
def test_no_step_waits_for_its_device(mixed: Dataset, tmp_path: Path, monkeypatch: Patch, kind: str):
    assert asked_in_a_run(mixed, tmp_path, monkeypatch, MODELS[kind]) == []


def test_nor_does_one_under_fp16s_scale(mixed: Dataset, tmp_path: Path, monkeypatch: Patch):
    place = Plain._place

    def scaled(engine: Plain, optim: Optim) -> None:
        place(engine, optim)
        engine.scale = torch.amp.GradScaler("cpu", init_scale=8.0)

    monkeypatch.setattr(Plain, "_place", scaled)
    assert asked_in_a_run(mixed, tmp_path, monkeypatch, MODELS["qwen3"]) == []


@pytest.mark.parametrize("ask", [Tensor.item, bool, float, torch.nonzero, lambda x: x.tolist(), lambda x: x[x > 0]])
def test_whoever_asks_is_seen(mixed: Dataset, tmp_path: Path, monkeypatch: Patch, ask: Any):
    update = Plain.update

    def asking(engine: Plain, limit: float) -> Tensor:
        norm = update(engine, limit)
        ask(norm)
        return norm

    monkeypatch.setattr(Plain, "update", asking)
    assert len(asked_in_a_run(mixed, tmp_path, monkeypatch, MODELS["sasrec"])) == 9


def test_the_numbers_of_a_step_are_read_when_the_passes_of_the_next_are_queued(
    mixed: Dataset, tmp_path: Path, monkeypatch: Patch
):
    """But for steps whose parameters somebody looks at: evaluated every 3, saved every 4, 9 are all."""
    seen, passes, read = [], loop.passes, Pending.read
    monkeypatch.setattr(loop, "passes", lambda *given: seen.append(f"passes {given[2] + 1}") or passes(*given))
    monkeypatch.setattr(Pending, "read", lambda self: seen.append("read") or read(self))
    assert start(make_run(mixed, tmp_path)) == DONE
    assert seen == [
        *("passes 1", "passes 2", "read", "passes 3", "read", "read"),
        *("passes 4", "read", "passes 5", "passes 6", "read", "read"),
        *("passes 7", "passes 8", "read", "read", "passes 9", "read"),
    ]


def test_a_stop_finishes_the_step_that_has_begun_and_no_other(mixed: Dataset, tmp_path: Path, monkeypatch: Patch):
    """Asked in the update of step 1, seen by step 2, while step 3 has begun; nothing else ends the passes ahead."""
    run, update = make_run(mixed, tmp_path, train=train(save_every=100), eval=Eval()), Plain.update

    def asking(engine: Plain, limit: float) -> Tensor:
        stop_file(run.folder).touch()
        return update(engine, limit)

    monkeypatch.setattr(Plain, "update", asking)
    monkeypatch.setattr("rec.train.stop.LOOK_EVERY", 0.0)
    assert start(run) == STOPPED
    assert newest(run) == "step-00000003"


def test_a_rollback_throws_away_the_passes_that_went_ahead(mixed: Dataset, tmp_path: Path, monkeypatch: Patch):
    """They went through parameters that are gone; the curve is that of a run in which nothing goes ahead."""
    spoil(monkeypatch, {6, 7})
    curves = []
    for ahead in (True, False):
        monkeypatch.setattr(Plain, "goes_ahead", ahead)
        run = make_run(
            mixed, tmp_path / str(ahead), train=train(steps=12, save_every=5, skip_limit=2, rollbacks=1), eval=Eval()
        )
        assert start(run) == DONE
        curves.append([(line["step"], line["train/loss"]) for line in lines(run) if "train/loss" in line])
    assert curves[0] == curves[1]
