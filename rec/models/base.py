"""What a recommender is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from rec.data.batch import Batch, Queries
from rec.data.dataset import Dataset
from rec.models.scores import Scores, Table
from rec.nn.shards import Shard

T = TypeVar("T")


class Loss(NamedTuple):
    """Sums over the scored positions of a batch: the trainer divides by the positions of the *global* batch."""

    total: Tensor
    """Scalar: the weighted sum of the parts; what is differentiated."""
    parts: dict[str, Tensor]
    """Scalars by name, unweighted and detached."""


Score = Callable[[Queries], Tensor]
"""Anything that ranks: (B, items + 1) scores by item row, higher is better. Callers ignore column 0, padding.

A trained model, called, and the `score` method of a counting baseline are both one.
"""


class Asked(NamedTuple):
    """Queries, and what is to be done with their scores.

    It is done inside of the call: the columns of a product are computed as they are read, and a strategy that shards
    the item table has it together for no longer than that.
    """

    queries: Queries
    answer: Callable[[Scores], Any]


def ask(score: Score, queries: Queries, answer: Callable[[Scores], Any]) -> Any:
    """What `answer` makes of the scores."""
    if isinstance(score, nn.Module):
        return score(Asked(queries, answer))
    return answer(Table(score(queries)))


@contextmanager
def settled(score: Score) -> Iterator[None]:
    """For as long as this lasts, the scorer, or the module that it is a method of, is settled; then it is as before.

    Strategies may have wrapped the recommender. No gradients are computed meanwhile.
    """
    owner: object = getattr(score, "__self__", score)
    module = owner if isinstance(owner, nn.Module) else nn.Module()
    inside = [part for part in module.modules() if isinstance(part, Recommender)]
    training, before = module.training, [part.kept for part in inside]
    with torch.no_grad():
        module.eval()
        for part in inside:
            part.settle()
        try:
            yield
        finally:
            module.train(training)
            for part, kept in zip(inside, before, strict=True):
                part.kept = kept


class Recommender(nn.Module, ABC):
    """A trained recommender: two verbs behind one door, since DDP, ZeRO and FSDP only watch `forward`."""

    trunk: ClassVar[str]
    """Name of the part whose output the loss begins with: what comes before is planned apart from the loss."""
    products: torch.dtype | None = None
    """Type of the matrix products under autocast; None computes in that of the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, tuple[int, Any]] | None = None
        """What was made once, while the model is settled, and of which version of the weights."""

    def settle(self) -> Self:
        """Goes into evaluation mode, in which the weights stay as they are until `train` is called."""
        self.eval()
        self.kept = {}
        return self

    def train(self, mode: bool = True) -> Self:
        """Forgets what was made once: every step of training comes after this."""
        self.kept = None
        return super().train(mode)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` makes of the weights, whatever the queries; while the model is settled, at the first call only.

        It is made inside of a call, where the weights are together, and of memory of its own: strategies take that of
        parameters apart between calls.
        """
        if self.kept is None or torch.is_grad_enabled():
            return make()
        version = sum(parameter._version for parameter in self.parameters())  # somebody may write to them meanwhile
        if name not in self.kept or self.kept[name][0] != version:
            self.kept[name] = version, make()
        found: T = self.kept[name][1]
        return found

    def start(self, dataset: Dataset) -> None:
        """Takes initial values from the dataset, once, before training. Most take none."""
        return

    def require_room(self, items: int) -> None:
        """Raises ConfigError if the model cannot read a history of that many items. Most read any."""
        return

    def save(self, folder: Path) -> None:
        """Writes what building the model again needs besides configuration and weights. Most need nothing."""
        return

    def require_like(self, folder: Path) -> None:
        """Raises ConfigError if a saved model, whose weights this one starts from, read something else. Most cannot."""
        return

    def shards(self) -> dict[str, Shard]:
        """By name, the parameters of which this rank has some rows only."""
        return {f"{name}.weight": part for name, part in self.named_modules() if isinstance(part, Shard)}

    @abstractmethod
    def loss(self, batch: Any) -> Loss:
        """The loss of a batch, summed over its scored positions."""

    @abstractmethod
    def score(self, queries: Queries) -> Tensor | Scores:
        """(B, items + 1) scores by item row, higher is better; column 0 is padding."""

    def scores(self, queries: Queries) -> Scores:
        """The same, as whatever they are read from."""
        scores = self.score(queries)
        return Table(scores) if isinstance(scores, Tensor) else scores

    def forward(self, batch: Batch | Queries | Asked) -> Any:
        """The `Loss` of a batch, the scores of queries, (B, items + 1), or the answer to whoever asked."""
        queries = batch.queries if isinstance(batch, Asked) else batch
        device = queries.user_B.device.type
        with torch.autocast(device, self.products, enabled=self.products is not None):
            if not isinstance(queries, Queries):
                return self.loss(queries)
            scores = self.scores(queries)
        with torch.autocast(device, enabled=False):  # ties count against the model: scores are fp32
            return batch.answer(scores) if isinstance(batch, Asked) else scores.dense()
