"""A training step of a model without memory: what would live at each operation, and how much it would compute.

The model is built on torch's meta device and stepped through with tensors that have a shape and no data. Nothing is
derived from an architecture's name: whatever autograd keeps is seen, for any backbone, at any precision, with or
without gradient checkpointing.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from rec.config.tree import Run
from rec.data.batch import Queries, Sequences
from rec.graph.graph import Graph
from rec.models import build
from rec.models.base import Recommender, ask
from rec.models.scores import Scores
from rec.nn.backbone import without_data
from rec.train.plan.tracker import Tracker
from rec.train.strategies.engine import HALVES


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of a micro-batch, forward and backward; a multiplication and an addition are two."""

    backbone: float
    """Matrix products, of tables and heads, too; they grow with the positions."""
    attention: float
    """Attention, counted over the whole square; it grows with the squared length of a window."""
    loss: float
    """The loss head; it grows with the scored positions."""


@dataclass(frozen=True)
class Rehearsal:
    """One micro-batch of `windows` windows of the same length; bytes at each operation are affine in the windows."""

    windows: int
    targets: float
    """Scored positions of `windows` windows."""
    temporary: npt.NDArray[np.float64]
    """(operations) bytes of everything but parameters and their finished gradients, for `windows` windows."""
    growth: npt.NDArray[np.float64]
    """(operations) what each further window adds to `temporary`."""
    root: npt.NDArray[np.float64]
    """(operations) bytes of finished gradients of what lies outside the layers, if none is given away."""
    layers: npt.NDArray[np.float64]
    """(operations) the same for the layers of the backbone."""
    head: slice
    """The operations from the last state of the backbone to its gradient: the loss, forward and backward."""
    flops: Flops
    """Of `windows` windows."""
    sent: float = 0.0
    """Bytes that a rank sends to others while `windows` windows are passed through: rows of tables that they have."""

    def of(self, windows: int) -> "Rehearsal":
        """The same for another number of windows."""
        ratio = windows / self.windows
        return dataclasses.replace(
            self,
            windows=windows,
            targets=self.targets * ratio,
            temporary=self.temporary + (windows - self.windows) * self.growth,
            flops=Flops(*(value * ratio for value in dataclasses.astuple(self.flops))),
            sent=self.sent * ratio,
        )

    @property
    def activations(self) -> float:
        """Bytes at the fullest moment outside the loss: what autograd keeps, and what the backward pass works with."""
        return float(np.delete(self.temporary, self.head).max())

    @property
    def loss_head(self) -> float:
        """Bytes that the loss adds at most to what the backbone keeps."""
        return float(self.temporary[self.head].max() - self.temporary[self.head.start])

    @property
    def forward(self) -> float:
        """Bytes at the fullest moment before the loss."""
        return float(self.temporary[: self.head.start + 1].max())

    def peak(self, *, root: float, layers: float) -> float:
        """Bytes at the fullest moment, if these shares of finished gradients are kept."""
        return float((self.temporary + root * self.root + layers * self.layers).max())


class Stage:
    """A model without data, on which steps are rehearsed.

    Args:
        run: of a backbone's `source` only the configuration is read.
        users: number of users, without padding.
        items: number of items, without padding.
        graph: the train graph, or an outline of it; not None where the run's model needs one.
        ranks: how many share the tables, where they are sharded; this is the first of them.

    Raises:
        ConfigError: for what the run's model cannot be built of.
    """

    def __init__(self, run: Run, users: int, items: int, graph: Graph | None = None, ranks: int = 1) -> None:
        self.run, self.others = run, _Others(ranks)
        with torch.device("meta"):
            self.model = build(run.model, users=users, items=items, graph=graph, weights=False, exchange=self.others)
        self.model.products = HALVES.get(run.train.precision)
        self.model.require_room(run.data.max_items)
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        with self.fake:
            self.model.to_empty(device="cpu")  # attention, and what autocast does, are those of a device with data

    def rehearse(self, items: int) -> Rehearsal:
        """Steps through one micro-batch whose windows have `items` items each, all of them scored."""
        few, more = 2, 4  # where each window adds the same, two sizes tell all others
        low, high = self._step(few, items), self._step(more, items)
        return dataclasses.replace(low, growth=(high.temporary - low.temporary) / (more - few))

    def evaluation(self, items: int) -> float:
        """Bytes at the fullest moment of scoring a block of histories of `items` items."""
        block = self.run.eval.at_once
        self.model.eval()
        with self.fake, torch.no_grad():
            history_BT = torch.ones(block, items, dtype=torch.int64)
            queries = Queries(torch.ones(block, dtype=torch.int64), history_BT, history_BT)
            with without_data(), Tracker(self.model, 0) as tracker:
                ask(self.model, queries, _blocks)
        return float(max(tracker.temporary))

    def _step(self, windows: int, items: int) -> Rehearsal:
        self.model.train()
        self.others.sent = 0
        with self.fake:
            batch = _batch(self.run, windows, items)
            targets = windows * (items + self.run.model.predict_first)
            with without_data(), Tracker(self.model, targets) as tracker, _head(self.model, tracker):
                self.model(batch).total.backward()
            self.model.zero_grad()
        head = slice(tracker.marks[0], tracker.marks[1])
        inside = sum(tracker.other[head])
        return Rehearsal(
            windows,
            targets,
            np.array(tracker.temporary, dtype=float),
            np.zeros(len(tracker.temporary)),
            np.array(tracker.root, dtype=float),
            np.array(tracker.layers, dtype=float),
            head,
            Flops(backbone=sum(tracker.other) - inside, attention=sum(tracker.attention), loss=inside),
            self.others.sent,
        )


class _Others:
    """Ranks that have as much to do as this one, and exchange tensors that have no data. It counts what is sent."""

    rank = 0

    def __init__(self, world: int) -> None:
        self.world, self.sent = world, 0.0

    def sum(self, values: Tensor) -> Tensor:
        self.sent += 2 * values.nbytes * (self.world - 1) / self.world
        return values

    maximum = sum

    def rows(self, own: Tensor) -> tuple[Tensor, slice]:
        self.sent += own.nbytes * (self.world - 1)
        return torch.cat([own] * self.world), slice(0, len(own))


def _blocks(scores: Scores) -> None:
    """What an evaluation holds of the scores at a time: a block, and for each of its cells whether it is ahead."""
    block = torch.empty(scores.shape[0], min(scores.width, scores.shape[1]))
    torch.empty_like(block)


def _batch(run: Run, windows: int, items: int) -> Sequences:
    def whole(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=torch.int64)

    places = whole(windows, items)
    negatives = whole(windows, run.data.negatives)
    return Sequences(
        user_B=whole(windows),
        items_BT=places,
        times_BT=places,
        targets_BT=places,
        first_B=whole(windows),
        negatives_BK=negatives,
        log_q_BK=negatives.float(),
        key_B=whole(windows),
        step_users_S=whole(run.data.global_batch),
        step_key=whole(),
        scored_N=whole(windows * (items + run.model.predict_first)),
    )


@contextmanager
def _head(model: Recommender, tracker: "Tracker") -> Iterator[None]:
    """Marks where the loss begins, and where its gradient has reached the backbone."""

    def begins(_module: nn.Module, _inputs: Any, output: Tensor | tuple[Tensor, ...]) -> None:
        tracker.marks.append(len(tracker.temporary) - 1)
        last = output[-1] if isinstance(output, tuple) else output
        last.register_hook(lambda _: tracker.marks.append(len(tracker.temporary)))

    hook = model.get_submodule(model.trunk).register_forward_hook(begins)
    yield
    hook.remove()
