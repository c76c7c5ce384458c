"""The soft-token sequential recommender.

After CLLM4Rec (arXiv 2311.01343) and its sequential descendants: users and items are vectors in tables of their own,
projected into the language model's space, which is fully fine-tuned on them.

    input    x = [P_u e_u, P_i e_1, ..., P_i e_T]
    query    q_t = W_o h_t,   h = backbone(x)
    score    s(t, j) = q_t . e_j      on the item vectors themselves ("tied")

With `model.gnn` the vector of an item is e_j + gate * g_j, where g_j comes from the train graph (`rec.models.gnn`).

With `relations`, attention reads how two tokens are related in the train graph (`rec.models.relations`); with
`following`, s also has what followed the last items in the train graph (`rec.nn.following`).

Where this deviates from the systems it comes from: padding is not a class of the softmax; the loss is summed and
divided by the scored positions of the whole step; the first item may be predicted from the user token; an unknown
user is a constant vector, which `user_dropout` teaches the model to expect.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rec.config.tree import SoftToken as Config
from rec.data.batch import PADDING, Queries, Sequences
from rec.data.dataset import TRAIN_STOP, Dataset
from rec.graph.graph import Graph
from rec.models import relations
from rec.models.base import Loss, Recommender
from rec.models.following import Following
from rec.models.gnn import Gnn
from rec.models.scores import Scores
from rec.models.spread import product
from rec.models.terms import terms, weighted
from rec.nn import backbone
from rec.nn.dropout import Keys, keep
from rec.nn.sharded import Exchange
from rec.nn.tables import Heads, Table, Tables, rows_of

USER_SALT = -1
"""Marks the random numbers that decide which windows hide their user."""


class SoftToken(Recommender):
    """See the module's text; B, T, K, D, H, N as in `rec.data.batch`."""

    trunk = "heads.query"

    def __init__(
        self,
        config: Config,
        *,
        users: int,
        items: int,
        graph: Graph | None = None,
        saved: Path | None = None,
        weights: bool = True,
        exchange: Exchange | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.keys = Keys()
        shape = backbone.saved_configuration(saved / "backbone") if saved else backbone.configuration(config.backbone)
        self.shape = shape
        users, exchange = users if config.user_token else 0, exchange if config.shard_tables else None
        self.tables = Tables(users, items, config.dim, config.init_std, exchange)
        decoder = shape.get_text_config()
        self.heads = Heads(config.dim, decoder.hidden_size, user=config.user_token)
        self.relations = relations.build(
            config.relations, graph, heads=decoder.num_attention_heads, layers=decoder.num_hidden_layers
        )
        assert graph is not None or not config.needs_graph
        self.following = Following(config.following, graph) if config.following and graph else None
        self.backbone: nn.Module = backbone.build(
            config.backbone,
            shape,
            dropout=config.dropout,
            keys=self.keys,
            weights=weights and saved is None,
            biased=config.relations is not None,
        )
        self.gnn: Gnn | None = None
        if config.gnn is not None:
            assert graph is not None
            self.gnn = Gnn(config.gnn, graph, config.dim, config.init_std)

    def start(self, dataset: Dataset) -> None:
        """Starts the item table from a feature of the dataset, if the configuration names one.

        Users from whom nothing is learnt start, and so stay, at zero: they are strangers, not random people.
        """
        if self.tables.user is not None:
            train = torch.from_numpy(np.asarray(dataset.bounds[1:, TRAIN_STOP], np.int64))
            learnt = train > (0 if self.config.predict_first else 1)
            self.tables.forget_users(learnt)
        if self.config.item_init is not None:
            features = torch.from_numpy(np.array(dataset.feature(self.config.item_init)))
            self.tables.start_items_from(features, self.config.init_std)

    def require_room(self, items: int) -> None:
        """Raises ConfigError if the language model has fewer positions than items and the user token take."""
        backbone.require_room(self.shape, items + self.config.user_token)

    def save(self, folder: Path) -> None:
        """Writes the language model's own configuration."""
        self.shape.save_pretrained(folder / "backbone")

    def items(self, nodes_CD: Tensor | None) -> Table:
        """(items + 1, D): the vectors that items enter with and are scored by; `nodes_CD` is g, None without a GNN."""
        if self.gnn is None or nodes_CD is None:
            return self.tables.catalogue
        return self.tables.item.weight + self.gnn.gate * nodes_CD

    def items_in_evaluation(self) -> Table:
        """The same with the whole train graph; of a settled model, computed once."""
        gnn = self.gnn
        return self.items(None) if gnn is None else self.once("items", lambda: self.items(gnn.items(None)))

    def queries(
        self, batch: Sequences | Queries, items: Table | None = None, inputs_BTD: Tensor | None = None
    ) -> Tensor:
        """q, (B, 1 + T, D): what follows the user token, then what follows each item; (B, T, D) without user token.

        `items` are the vectors that `items` gives; None takes the item table as it is. `inputs_BTD` are those of the
        batch's items, where they are looked up already.
        """
        if inputs_BTD is None:
            items_BT = batch.history_BT if isinstance(batch, Queries) else batch.items_BT
            (inputs_BTD,) = rows_of(self.tables.catalogue if items is None else items, items_BT)
        inputs, shown_B = self.heads.item_in(inputs_BTD), None
        if self.heads.user_in is not None:
            shown_B = self.tables.known(batch.user_B)
            if self.training and self.config.user_dropout:
                assert self.keys.key_B is not None
                shown_B = shown_B * keep(self.keys.key_B, USER_SALT, 1, self.config.user_dropout)[:, 0]
            inputs = torch.cat([self.heads.user_in(self.tables.users(shown_B))[:, None], inputs], 1)
        bias = None if self.relations is None else self.relations(batch, shown_B)
        query: Tensor = self.heads.query(backbone.hidden_states(self.backbone, inputs, bias))
        return query

    def loss(self, batch: Sequences) -> Loss:
        self.keys.key_B = batch.key_B
        nodes_CD = None if self.gnn is None else self.gnn.items(batch)
        items = self.items(nodes_CD)
        targets = (
            torch.cat([batch.first_B[:, None], batch.targets_BT], 1) if self.config.user_token else batch.targets_BT
        )
        scored = (
            [targets[batch.scored(targets.shape[1])], batch.negatives_BK] if self.config.loss.need_negatives else []
        )
        inputs_BTD, *found = rows_of(items, batch.items_BT, *scored)
        queries = self.queries(batch, items, inputs_BTD)
        weights = dict(vars(self.config.loss))
        with torch.autocast(queries.device.type, enabled=False):  # losses are fp32 at any precision of the backbone
            parts = terms(self.config.loss, batch, queries, targets, self.tables, items, found)
            if self.gnn is not None and nodes_CD is not None and self.gnn.weight:
                parts["gnn"], weights["gnn"] = self.gnn.loss(batch, targets, nodes_CD), self.gnn.weight
        return weighted(weights, parts)

    def score(self, queries: Queries) -> Scores:
        """(B, items + 1): `last` against the item vectors, and what followed."""
        items = self.items_in_evaluation()
        query_BD = self.last(queries, items)
        followed = None if self.following is None else partial(self.following, queries.history_BT)
        return product(query_BD, items, followed)

    def last(self, queries: Queries, items: Table) -> Tensor:
        """(B, D) fp32: the query after the last item of each history."""
        query = self.queries(queries, items)
        length_B = (queries.history_BT != PADDING).sum(1)
        last_B = length_B if self.config.user_token else (length_B - 1).clamp(min=0)
        return query[torch.arange(len(query), device=query.device), last_B].float()
