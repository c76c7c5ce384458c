"""The graph-guided language model of arXiv 2402.09617; without relations, and its backbone frozen, that of 2311.01343.

Users and items are tokens of their own in text. Each has two vectors: content z^c, read in documents whose text is
predicted, and collaborative z^l, read in histories. With w_p the text before place p and E the item table of z^l:

    content          - sum_p log softmax(T h_p)[w_(p+1)]          T the backbone's own token table
    collaborative    - sum_p log softmax(E h_p)[i_(p+1)]          the next item of a history
    multinomial      - sum_j log softmax(E h_last)[j]             the items held out of a prompt (predictive stage)
    regulariser      lambda_v ||z - stop(z')||^2                  z the vector that is read, z' its counterpart

`relations` adds a constant to the attention between two users or items for the edges between them in the train graph.
A place only reads what stands before it, and all that is related there has been read: whatever relation a target has
to the history, it is not among the inputs before it is predicted, and held-out items are in no prompt. Between tokens
of one person's history the constants are always the same three, in scoring, too, where newer items count as his own.

Where this deviates from the published code: each document counts once, with the mean over its places (the trainer
divides by the documents of the step), so that no weight hangs on padding or batch; the first token of the main part is
predicted, too, from the last one of the prompt; only held-out items are targets; padding is read by nobody; items are
shuffled anew whenever they are read, as its paper says.
"""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from rec.config.tree import GraphLlm as Config
from rec.data.batch import NOTHING, PADDING, Prompts, Queries
from rec.errors import ConfigError
from rec.graph.graph import Graph
from rec.models import relations
from rec.models.asking import own_relation, written
from rec.models.base import Loss, Recommender
from rec.models.scores import Product
from rec.models.terms import weighted
from rec.nn import backbone
from rec.nn.catalogue import catalogue_cross_entropy
from rec.nn.dropout import Keys, keep
from rec.nn.tables import Heads, Tables
from rec.text.prompts import Writer
from rec.text.tokenizer import Tokenizer

USER_SALT = -1
"""Marks the random numbers that decide which documents hide their user."""


class GraphLlm(Recommender):
    """See the module's text; B documents, L tokens, D, H, N as in `rec.data.batch`."""

    trunk = "backbone"

    def __init__(
        self,
        config: Config,
        *,
        users: int,
        items: int,
        graph: Graph | None = None,
        saved: Path | None = None,
        weights: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        self.keys = Keys()
        self.words = tokenizer(config, saved)
        self.shape = (
            backbone.saved_configuration(saved / "backbone") if saved else backbone.configuration(config.backbone)
        )
        decoder = self.shape.get_text_config()
        _require_tied(config, self.shape, self.words)
        dim = config.dim or decoder.hidden_size
        self.collaborative = Tables(users, items, dim, config.init_std)
        self.content = Tables(users, items, dim, config.init_std)
        self.heads = Heads(dim, decoder.hidden_size, user=True) if config.dim is not None else None
        self.relations = relations.Paper(graph) if graph is not None else None
        self.backbone: nn.Module = backbone.build(
            config.backbone,
            self.shape,
            dropout=config.dropout,
            keys=self.keys,
            weights=weights and saved is None,
            biased=config.relations is not None,
        )
        self._token_table().requires_grad_(True)
        self.reads_content = config.stage == "pretrain" and config.content_share > 0
        self.content.requires_grad_(self.reads_content)
        self.prompt = Writer(config.predictive, self.words, config.max_tokens)

    def require_room(self, items: int) -> None:
        """Raises ConfigError if documents are longer than the backbone reads, or histories than a prompt takes."""
        places = self.shape.get_text_config().max_position_embeddings
        if self.config.max_tokens > places:
            raise ConfigError(
                f"model.max_tokens is {self.config.max_tokens} but {self.shape.model_type} has only {places} places; "
                f"set model.max_tokens to at most {places}"
            )
        if items > self.prompt.room:
            needed = self.config.max_tokens + items - self.prompt.room
            raise ConfigError(
                f"data.max_items is {items}, but a predictive prompt of model.max_tokens has room for "
                f"{self.prompt.room}; set model.max_tokens to {needed} or data.max_items to {self.prompt.room}"
            )

    def require_like(self, folder: Path) -> None:
        """Raises ConfigError if the tokens of the saved model are not the same texts."""
        if not Tokenizer.open(str(folder / "tokenizer")).same(self.words):
            raise ConfigError(f"{folder} was trained with another tokenizer; set model.tokenizer to that one")

    def save(self, folder: Path) -> None:
        """Writes the language model's own configuration, and the tokenizer."""
        self.shape.save_pretrained(folder / "backbone")
        self.words.save(folder / "tokenizer")

    def loss(self, batch: Prompts) -> Loss:
        self.keys.key_B = batch.key_B
        shown_BL = batch.user_BL
        if self.training and self.config.user_dropout:
            shown_BL = shown_BL * keep(batch.key_B, USER_SALT, 1, self.config.user_dropout)
        inputs = self._inputs(batch.token_BL, batch.user_BL > 0, shown_BL, batch.item_BL, batch.content_B)
        bias = None if self.relations is None else self.relations.relation(batch.user_BL, batch.item_BL)[:, None]
        states = backbone.hidden_states(self.backbone, inputs, bias)
        with torch.autocast(states.device.type, enabled=False):  # losses are fp32 at any precision of the backbone
            parts = self._parts(batch, states.float())
        return weighted({**dict.fromkeys(parts, 1.0), "regulariser": self.config.lambda_v}, parts)

    def _token_table(self) -> nn.Embedding:
        table: nn.Embedding = self.backbone.get_input_embeddings()  # type: ignore[operator]
        return table

    def _inputs(
        self, token_BL: Tensor, is_user_BL: Tensor, user_BL: Tensor, item_BL: Tensor, content_B: Tensor
    ) -> Tensor:
        """(B, L, H) what the backbone reads: of its own token table where a place is neither a user nor an item."""
        text = self._token_table()(token_BL)
        row_N, place_N = torch.nonzero(is_user_BL | (item_BL > 0), as_tuple=True)
        user_N, item_N = user_BL[row_N, place_N], item_BL[row_N, place_N]
        vectors_ND = self._vectors(self.collaborative, user_N, item_N)
        if self.reads_content:
            content_ND = self._vectors(self.content, user_N, item_N)
            vectors_ND = torch.where(content_B[row_N][:, None], content_ND, vectors_ND)
        if self.heads is not None:
            assert self.heads.user_in is not None
            of_item_NH, of_user_NH = self.heads.item_in(vectors_ND), self.heads.user_in(vectors_ND)
            vectors_ND = torch.where((item_N > 0)[:, None], of_item_NH, of_user_NH)
        return text.index_put((row_N, place_N), vectors_ND.to(text.dtype))

    def _vectors(self, tables: Tables, user_N: Tensor, item_N: Tensor) -> Tensor:
        """(N, D) of an item, or else of a user; row 0 of users is the stranger."""
        return torch.where((item_N > 0)[:, None], tables.items(item_N), tables.users(user_N))

    def _parts(self, batch: Prompts, states: Tensor) -> dict[str, Tensor]:
        """The unweighted terms, each summed over documents."""
        items_CD = self.collaborative.item.weight.float()
        parts = {}
        if self.config.stage == "predictive":
            row_N, place_N = torch.nonzero(batch.held_BM != PADDING, as_tuple=True)
            last_BD = self._queries(states[torch.arange(len(states), device=states.device), batch.last_B])
            held_N = batch.held_BM[row_N, place_N]
            parts["multinomial"] = catalogue_cross_entropy(last_BD[row_N], items_CD, held_N, skip=1)
        else:
            if self.reads_content:
                asked_BL = batch.next_token_BL != NOTHING
                vocabulary_VH = self._token_table().weight.float()
                parts["content"] = catalogue_cross_entropy(
                    states[asked_BL], vocabulary_VH, batch.next_token_BL[asked_BL], _shares(asked_BL)
                )
            asked_BL = batch.next_item_BL != PADDING
            query_ND, target_N = self._queries(states[asked_BL]), batch.next_item_BL[asked_BL]
            weight_N = _shares(asked_BL)
            parts["collaborative"] = catalogue_cross_entropy(query_ND, items_CD, target_N, weight_N, skip=1)
        if self.config.lambda_v:
            parts["regulariser"] = self._regulariser(batch)
        return parts

    def _queries(self, states: Tensor) -> Tensor:
        """(..., H) states -> (..., D)."""
        return states if self.heads is None else self.heads.query(states).float()

    def _regulariser(self, batch: Prompts) -> Tensor:
        """Squared distances between both vectors of the users and items read; no gradient reaches those not read."""
        soft_BL = (batch.user_BL > 0) | (batch.item_BL > 0)
        user_N, item_N = batch.user_BL[soft_BL], batch.item_BL[soft_BL]
        is_content_N = batch.content_B[torch.nonzero(soft_BL, as_tuple=True)[0]]
        content, other = (
            self._vectors(tables, user_N, item_N).float() for tables in (self.content, self.collaborative)
        )
        of_content_N = (content - other.detach()).square().sum(1)
        of_history_N = (other - content.detach()).square().sum(1)
        distance_N = torch.where(is_content_N, of_content_N, of_history_N)
        if self.config.regulariser == "upstream_sum":
            return distance_N.sum() * batch.step_documents  # the trainer divides by them again
        return (distance_N * _shares(soft_BL)).sum()

    def score(self, queries: Queries) -> Product:
        """(B, items + 1): the state after the predictive prompt with the whole history, in its order."""
        token_BL, is_user_BL, item_BL, last_B = written(self.prompt.given, queries.history_BT)
        user_BL = is_user_BL * queries.user_B[:, None]
        content_B = torch.zeros_like(queries.user_B, dtype=torch.bool)
        inputs = self._inputs(token_BL, is_user_BL, user_BL, item_BL, content_B)
        bias = None if self.relations is None else own_relation(is_user_BL, item_BL)[:, None]
        states = backbone.hidden_states(self.backbone, inputs, bias)
        query_BD = self._queries(states[torch.arange(len(states), device=states.device), last_B])
        return Product(query_BD.float(), self.collaborative.item.weight.float())


@lru_cache(4)
def _opened(source: str, key: str) -> Tokenizer:
    return Tokenizer.open(source, key)


def tokenizer(config: Config, saved: Path | None = None) -> Tokenizer:
    """The one that a model was saved with, or else the one that the configuration names."""
    if saved is not None:
        return Tokenizer.open(str(saved / "tokenizer"))
    source = config.tokenizer or config.backbone.source
    if source is None:
        raise ConfigError("model.tokenizer is null and model.backbone.source, too; name a tokenizer to read texts with")
    return _opened(source, "model.tokenizer" if config.tokenizer else "model.backbone.source")


def _shares(asked_BL: Tensor) -> Tensor:
    """(N) for each marked place, row by row: 1 / the marked places of its row."""
    return (asked_BL / asked_BL.sum(1, keepdim=True).clamp(min=1))[asked_BL]


def _require_tied(config: Config, shape: backbone.Configuration, words: Tokenizer) -> None:
    """Raises ConfigError unless the backbone's token table reads and predicts all tokens of the tokenizer."""
    decoder = shape.get_text_config()
    if decoder.vocab_size < len(words):
        raise ConfigError(
            f"the tokenizer has {len(words)} tokens and {shape.model_type} only {decoder.vocab_size}; set "
            f"model.backbone.config.vocab_size to {len(words)}, or choose the tokenizer of the backbone"
        )
    loaded = config.backbone.source is not None and config.backbone.pretrained
    if loaded and config.stage == "pretrain" and config.content_share and not shape.tie_word_embeddings:
        raise ConfigError(
            f"{config.backbone.source} predicts tokens with a table of its own, which is not read here; choose a "
            "backbone whose tie_word_embeddings is true, such as gpt2 or SmolLM2-135M, or set model.content_share to 0"
        )
