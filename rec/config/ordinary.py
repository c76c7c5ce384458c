"""The knobs of recommenders without a language model, and of the one that a language model takes along."""

from dataclasses import dataclass, field
from typing import Literal

from rec.config.parts import LossWeights, require


@dataclass(frozen=True, kw_only=True)
class Sasrec:
    """A small causal transformer over item vectors, trained from nothing: what a language model has to be better than.

    As published (arXiv 1808.09781), except that it learns with any of the loss terms.
    """

    kind: Literal["sasrec"] = "sasrec"
    """Chooses this recommender."""
    dim: int = 64
    """Width of the item table and of the transformer."""
    layers: int = 2
    """Blocks of self-attention."""
    heads: int = 2
    """Attention heads; they divide `dim`."""
    positions: int = 50
    """Longest history that can be read, in items: at least `data.max_items`."""
    dropout: float = 0.2
    """Probability of dropping an element of what the first block reads and of each residual branch."""
    init_std: float = 0.02
    """Standard deviation of the item table's initial normal distribution."""
    shard_tables: bool = False
    """Whether each process keeps some rows of the item table only; changes memory and speed, never the result."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameter names that are not trained."""
    loss: LossWeights = field(default_factory=LossWeights)
    """The terms of the loss."""

    user_token = predict_first = needs_graph = False  # asked of every recommender; no choice here

    @property
    def need_negatives(self) -> bool:
        """Whether the feed has to sample negatives."""
        return self.loss.need_negatives

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "heads", "positions", "init_std"):
            require(getattr(self, name) > 0, f"model.{name} is {getattr(self, name)}; choose a positive number")
        require(
            self.dim % self.heads == 0, f"model.heads ({self.heads}) must divide model.dim ({self.dim}); choose another"
        )
        require(0 <= self.dropout < 1, f"model.dropout is {self.dropout}; choose from 0 up to, not including, 1")
        require(not self.loss.bpr_user, "model.loss.bpr_user needs users, and sasrec has none; set it to 0")
        terms = ("cross_entropy", "sampled_softmax", "gbce", "bpr_context")
        require(
            any(getattr(self.loss, name) > 0 for name in terms),
            f"model.loss has no term that trains the transformer; set one of {', '.join(terms)}",
        )


@dataclass(frozen=True, kw_only=True)
class LightGcn:
    """Users and items as nodes of the train graph, whose vectors are means over their neighbourhoods.

    As published (arXiv 2002.02126), except that it learns with any of the loss terms; it reads no sequence.
    """

    kind: Literal["lightgcn"] = "lightgcn"
    """Chooses this recommender."""
    dim: int = 64
    """Width of the user and item tables."""
    layers: int = 3
    """Hops of propagation."""
    edge_dropout: float = 0.0
    """Probability that a training step leaves an edge out."""
    fan_out: int = 0
    """Neighbours of a node that a training step draws in each hop, for what it reads; 0 takes the whole graph."""
    init_std: float = 0.1
    """Standard deviation of the tables' initial normal distribution."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameter names that are not trained."""
    loss: LossWeights = field(default_factory=lambda: LossWeights(cross_entropy=0.0, bpr_context=1.0))
    """The terms of the loss, where the context is the user; BPR unless others are given."""

    predict_first = needs_graph = True  # each interaction is a positive once an epoch, the first of a history, too
    user_token = shard_tables = False

    @property
    def need_negatives(self) -> bool:
        """Whether the feed has to sample negatives."""
        return self.loss.need_negatives

    def __post_init__(self) -> None:
        for name in ("dim", "init_std"):
            require(getattr(self, name) > 0, f"model.{name} is {getattr(self, name)}; choose a positive number")
        _require_graph_network("model", self.layers, self.edge_dropout, self.fan_out)
        require_some_items("model.fan_out", self.fan_out, self.loss)
        require(not self.loss.bpr_user, "model.loss.bpr_user is bpr_context for lightgcn; set that instead")
        terms = ("cross_entropy", "sampled_softmax", "gbce", "bpr_context")
        require(
            any(getattr(self.loss, name) > 0 for name in terms),
            f"model.loss has no term that compares items; set one of {', '.join(terms)}",
        )


@dataclass(frozen=True, kw_only=True)
class LightGcnPart:
    """A graph network beside the sequence: an item's vector is e + gate * g, with g from the train graph.

    A step does not show the edges of its own users, so that no target is read through the graph.
    """

    kind: Literal["lightgcn"] = "lightgcn"
    """Chooses LightGCN (arXiv 2002.02126)."""
    layers: int = 2
    """Hops of propagation."""
    edge_dropout: float = 0.0
    """Probability that a training step leaves an edge out."""
    fan_out: int = 0
    """Neighbours of a node that a training step draws in each hop, for what it reads; 0 takes the whole graph."""
    loss: float = 0.1
    """Weight of its own term: BPR of each target against its negatives (their mean), by user and item as nodes."""

    def __post_init__(self) -> None:
        _require_graph_network("model.gnn", self.layers, self.edge_dropout, self.fan_out)
        require(self.loss >= 0, f"model.gnn.loss is {self.loss}; choose 0 or more")


def require_some_items(path: str, fan_out: int, loss: LossWeights) -> None:
    """Raises ConfigError where a loss reads all items, of which a fan-out has few."""
    require(
        not (fan_out and loss.cross_entropy),
        f"{path} computes the items of a step only, and model.loss.cross_entropy reads all; set it to 0, "
        "and model.loss.sampled_softmax to 1 instead",
    )


def _require_graph_network(path: str, layers: int, edge_dropout: float, fan_out: int) -> None:
    """Raises ConfigError unless these are values of a graph network."""
    require(layers > 0, f"{path}.layers is {layers}; choose a positive number")
    require(0 <= edge_dropout < 1, f"{path}.edge_dropout is {edge_dropout}; choose from 0 up to, not including, 1")
    require(fan_out >= 0, f"{path}.fan_out is {fan_out}; choose 0 (the whole graph) or more neighbours")
    require(
        not (fan_out and edge_dropout),
        f"{path}.fan_out and {path}.edge_dropout both leave edges out; set one of them to 0",
    )
