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
class PaperRelations:
    """A constant added to attention for every count of hops between two nodes of the train graph (arXiv 2402.09617)."""

    kind: Literal["paper"] = "paper"
    """Chooses these relations."""
