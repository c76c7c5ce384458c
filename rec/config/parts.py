"""Parts of the configuration that several recommenders share; `rec.config.tree` shows them with all others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rec.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Raises ConfigError(message) unless the condition holds."""
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A Hugging Face decoder, fed with vectors instead of tokens."""

    source: str | None = None
    """Hub name or local folder to take the configuration and weights from; null builds `architecture` from `config`."""
    pretrained: bool = True
    """Whether the weights of `source` are loaded; false keeps its shape with random weights."""
    architecture: str = "gpt2"
    """Model type in Transformers' own name (gpt2, qwen2, qwen3, llama, ...), used where `source` is null."""
    config: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    """Values that replace those of the Hugging Face configuration, under its own names."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""


@dataclass(frozen=True, kw_only=True)
class LearnedRelations:
    """A number learned for every kind of relation and every attention head, added to attention."""

    kind: Literal["learned"] = "learned"
    """Chooses these relations."""
    per_layer: bool = False
    """Whether each layer learns numbers of its own."""


@dataclass(frozen=True, kw_only=True)
class PaperRelations:
    """A constant added to attention for every count of hops between two nodes of the train graph (arXiv 2402.09617)."""

    kind: Literal["paper"] = "paper"
    """Chooses these relations."""


@dataclass(frozen=True, kw_only=True)
class Following:
    """What followed a history's last items in the train graph, added to the scores when the model is asked."""

    kind: Literal["following"] = "following"
    """Chooses this part."""
    weight: float = 3.0
    """Of log(1 + strength) in a score; choose it by validation, as it is not learned."""
    window: int = 10
    """Last items of a history whose followers count."""
    decay: float = 0.5
    """Worth of an item against the one after it."""

    def __post_init__(self) -> None:
        require(self.weight > 0, f"model.following.weight is {self.weight}; choose a positive weight")
        require(self.window > 0, f"model.following.window is {self.window}; choose a positive number of items")
        require(0 < self.decay <= 1, f"model.following.decay is {self.decay}; choose from above 0 to 1")


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the loss terms; a term of weight 0 is not computed."""

    cross_entropy: float = 1.0
    """Cross-entropy over the whole catalogue."""
    sampled_softmax: float = 0.0
    """Cross-entropy over the target and `data.negatives` sampled items, corrected by log Q."""
    gbce: float = 0.0
    """Generalised binary cross-entropy over the target and the negatives (gSASRec, arXiv 2308.07192)."""
    bpr_context: float = 0.0
    """BPR of the target against each negative, scored by the context; summed over the negatives."""
    bpr_user: float = 0.0
    """BPR of the target against each negative, scored by the user's own vector; summed over the negatives."""
    l2: float = 0.0
    """Half the mean squares of both tables, (mean(E_u^2) + mean(E_i^2)) / 2."""
    gbce_calibration: float = 0.75
    """t of gSASRec, from 0 (plain binary cross-entropy) to 1 (fully calibrated)."""

    def __post_init__(self) -> None:
        for name in vars(self):
            weight = getattr(self, name)
            require(weight >= 0, f"model.loss.{name} is {weight}; choose 0 or more")
        require(
            self.gbce_calibration <= 1, f"model.loss.gbce_calibration is {self.gbce_calibration}; choose from 0 to 1"
        )

    @property
    def need_negatives(self) -> bool:
        """Whether any term compares the target with sampled items."""
        return any((self.sampled_softmax, self.gbce, self.bpr_context, self.bpr_user))
