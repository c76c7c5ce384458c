"""What a recommender is."""

from typing import NamedTuple, Protocol

from torch import Tensor, nn

from rec.data.batch import Queries, Sequences


class Loss(NamedTuple):
    """Sums over the scored positions of a batch: the trainer divides by the positions of the *global* batch."""

    total: Tensor
    """Scalar: the weighted sum of the parts; what is differentiated."""
    parts: dict[str, Tensor]
    """Scalars by name, unweighted and detached."""


class Scorer(Protocol):
    """Anything that ranks: trained models and counting baselines alike."""

    def score(self, queries: Queries) -> Tensor:
        """(B, items + 1) scores by item row, higher is better. Column 0 (padding) is ignored by all callers."""
        ...


class Recommender(nn.Module):
    """A trained recommender: two verbs behind one door, since DDP and ZeRO only watch `forward`."""

    def loss(self, batch: Sequences) -> Loss:
        raise NotImplementedError

    def score(self, queries: Queries) -> Tensor:
        """(B, items + 1) scores by item row, higher is better; column 0 is padding."""
        raise NotImplementedError

    def forward(self, batch: Sequences | Queries) -> Loss | Tensor:
        match batch:
            case Queries():
                return self.score(batch)
            case _:
                return self.loss(batch)
