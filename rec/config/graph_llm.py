"""The knobs of `rec.models.graph_llm`, and the templates of its prompts."""

import difflib
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from rec.config.parts import Backbone, PaperRelations, require
from rec.errors import ConfigError

Use = Literal["interaction", "item", "group", "history", "predictive"]
"""What a template makes documents of: each kept text of an interaction; each item; each value that items share; the
items of each user; each user whose next items are predicted."""
CONTENT: tuple[Use, ...] = ("interaction", "item", "group")
"""Uses whose main part is text; they read the content vectors of users and items."""
TOKENS = ("user", "item", "items")
"""Fields that are tokens of their own; all others are texts."""
Piece = tuple[str, str | None]
"""Some text, and the field that follows it, if one does."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """A document: what is given, and what is predicted. {user}, {item} and {items} are tokens; other fields are texts.

    What a template is for follows from its fields: a text of a {user} and an {item} is one of their interaction
    (`review`, `reason`), of an {item} alone a column of items.parquet, of {items} a value that they share there;
    {items} after a {user} are his history; and a prompt of a {user} and {items} with nothing to follow is predictive.
    """

    prompt: str
    """What is given: text, with the fields {user}, {item} and {items} in braces."""
    main: str = ""
    """What is predicted: text with one field, or {items}; empty for a predictive prompt."""

    @cached_property
    def given(self) -> tuple[Piece, ...]:
        """The prompt in pieces."""
        return _pieces(self.prompt)

    @cached_property
    def asked(self) -> tuple[Piece, ...]:
        """The main part in pieces."""
        return _pieces(self.main)

    @property
    def field(self) -> str:
        """Name of what is predicted; empty for a predictive prompt."""
        return next((name for _, name in self.asked if name), "")

    @cached_property
    def use(self) -> Use:
        """What it is for, or ConfigError if that does not follow from its fields."""
        given = [name for _, name in self.given if name]
        asked = [name for _, name in self.asked if name]
        for name in given:
            if name not in TOKENS:
                raise ConfigError(
                    f"the prompt '{self.prompt}' has the field '{{{name}}}'; {_meant(name)}a prompt has {{user}}, "
                    "{item} and {items}, and texts are predicted: they stand in the main part"
                )
        text = len(asked) == 1 and asked[0] not in TOKENS
        uses: dict[frozenset[str], Use] = {
            frozenset(("user", "item")): "interaction",
            frozenset(("item",)): "item",
            frozenset(("items",)): "group",
        }
        if text and given.count("items") < 2 and frozenset(given) in uses:
            return uses[frozenset(given)]
        if self.main == "{items}" and set(given) == {"user"}:
            return "history"
        if not self.main and set(given) == {"user", "items"} and given.count("items") == 1:
            return "predictive"
        meant = "".join(_meant(name) for name in asked if name not in TOKENS)
        raise ConfigError(
            f"'{self.prompt} | {self.main}' is no template; {meant}give {{user}} and {{item}}, {{item}}, or {{items}} "
            "and predict one text, give {user} and predict {items}, or give {user} and {items} and predict nothing"
        )

    def __post_init__(self) -> None:
        assert self.use  # or it raises


@dataclass(frozen=True, kw_only=True)
class GraphLlm:
    """An LLM reads texts in which users and items are tokens of their own (arXiv 2402.09617 and 2311.01343).

    A stage is a run: `pretrain` learns from contents and histories; `predictive`, started from it, predicts new items.
    """

    kind: Literal["graph_llm"] = "graph_llm"
    """Chooses this recommender."""
    stage: Literal["pretrain", "predictive"] = "pretrain"
    """pretrain predicts texts and the items of histories; predictive predicts held-out items from the others."""
    backbone: Backbone = field(default_factory=Backbone)
    """The language model; its own token table reads the texts, and predicts them."""
    tokenizer: str | None = None
    """Hub name or local folder of the tokenizer; null takes that of `backbone.source`."""
    prompts: Mapping[str, Template] = field(default_factory=dict)
    """Template by name, or the name of a YAML file that holds them, such as configs/prompts/amazon.yaml."""
    leave_out: tuple[str, ...] = ()
    """Names of templates that are not used."""
    content_share: float = 0.5
    """Share of the documents of a pre-training step that are content, not histories."""
    max_tokens: int = 256
    """Tokens of a document: longer lists of items lose their first ones, longer texts their end."""
    dim: int | None = None
    """Width of the user and item tables; null is that of the backbone, as published, with no projections."""
    lambda_v: float = 1.0
    """Weight of the mutual regularisation of content and collaborative vectors."""
    regulariser: Literal["mean", "upstream_sum"] = "mean"
    """mean of the squared distances over the tokens of a document; upstream_sum adds up those of a whole step."""
    hold_out: float = 0.2
    """Share of a history, one item at least, that the predictive stage predicts from the rest."""
    likelihood: Literal["held_out", "upstream_all"] = "held_out"
    """Which items of a history are predicted: those held out, or as in the published code also those in the prompt."""
    relations: PaperRelations | None = None
    """How users and items are related in the train graph, for attention between their tokens; null reads no graph."""
    user_dropout: float = 0.0
    """Probability that a training document hides its user, so that strangers are understood, too."""
    dropout: float = 0.0
    """Probability of dropping an element of what the first layer reads and of each residual branch of the backbone."""
    init_std: float = 0.02
    """Standard deviation of the tables' initial normal distribution."""
    freeze: tuple[str, ...] = ()
    """Patterns of parameter names that are not trained; ["backbone.*"] is CLLM4Rec's choice."""

    user_token, predict_first, need_negatives, shard_tables = True, False, False, False  # asked of every recommender

    @property
    def needs_graph(self) -> bool:
        """Whether the train graph is read."""
        return self.relations is not None

    @property
    def used(self) -> Mapping[str, Template]:
        """The templates that are not left out."""
        return {name: template for name, template in self.prompts.items() if name not in self.leave_out}

    @property
    def trained_on(self) -> Mapping[str, Template]:
        """Those whose documents this stage reads."""
        wanted: tuple[Use, ...] = (*CONTENT, "history") if self.stage == "pretrain" else ("predictive",)
        if not self.content_share:
            wanted = wanted[-1:]
        return {name: template for name, template in self.used.items() if template.use in wanted}

    @property
    def predictive(self) -> Template:
        """The one that items are predicted with."""
        return next(template for template in self.used.values() if template.use == "predictive")

    def __post_init__(self) -> None:
        unknown = sorted(set(self.leave_out) - set(self.prompts))
        require(
            not unknown,
            f"model.leave_out names '{', '.join(unknown)}', but the prompts are {', '.join(self.prompts)}; "
            "take it out of the list",
        )
        uses = [template.use for template in self.used.values()]
        for use in ("predictive", "history"):
            wanted = use == "predictive" or self.stage == "pretrain"
            require(
                uses.count(use) == 1 or not wanted,
                f"model.prompts has {uses.count(use)} templates of the use '{use}'; write one (see configs/prompts)",
            )
        require(0 <= self.content_share < 1, f"model.content_share is {self.content_share}; choose from 0 to below 1")
        require(
            self.stage == "predictive" or not self.content_share or bool(set(uses) & set(CONTENT)),
            "model.prompts has no template of a text; write one, or set model.content_share to 0",
        )
        for name in ("user_dropout", "dropout"):
            value = getattr(self, name)
            require(0 <= value < 1, f"model.{name} is {value}; choose from 0 up to, not including, 1")
        require(0 < self.hold_out < 1, f"model.hold_out is {self.hold_out}; choose a share between 0 and 1")
        require(self.lambda_v >= 0, f"model.lambda_v is {self.lambda_v}; choose 0 or more")
        for name in ("init_std", "max_tokens"):
            require(getattr(self, name) > 0, f"model.{name} is {getattr(self, name)}; choose a positive number")
        require(self.dim is None or self.dim > 0, f"model.dim is {self.dim}; choose a positive width, or null")


def _meant(name: str) -> str:
    """The beginning of a remedy: the field that was probably meant, if one is near."""
    near = difflib.get_close_matches(name, TOKENS, n=1)
    return f"did you mean '{{{near[0]}}}'? Else " if near else ""


def _pieces(text: str) -> tuple[Piece, ...]:
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ConfigError(f"the template '{text}' is not complete ({error}); write fields as {{user}}") from None
    for _, name, form, conversion in parsed:
        require(
            name is None or (name.isidentifier() and not form and not conversion),
            f"the template '{text}' has the field '{{{name}}}'; write a name alone in braces",
        )
    return tuple((text, name) for text, name, _, _ in parsed)
