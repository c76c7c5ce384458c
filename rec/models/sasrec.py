"""SASRec: a small causal transformer over item vectors (Kang and McAuley 2018, arXiv 1808.09781).

    input    x_t = sqrt(D) e_t + p_t
    query    q = Encoder(x)
    score    s(t, j) = q_t . e_j      on the item table itself

Where this deviates from the paper: its binary cross-entropy over one sampled negative, to which much of what later
models won over it is due (Petrov and Macdonald 2023, arXiv 2308.07192; Klenitskiy and Vasilev 2023, arXiv 2309.07602),
is one choice of `model.loss` among others, and the default is the cross-entropy over the catalogue.
"""

import math

import torch
from torch import Tensor

from rec.config.tree import Sasrec as Config
from rec.data.batch import PADDING, Queries, Sequences
from rec.errors import ConfigError
from rec.models.base import Loss, Recommender
from rec.models.scores import Scores
from rec.models.spread import product
from rec.models.terms import terms, weighted
from rec.nn.dropout import Keys
from rec.nn.encoder import Encoder
from rec.nn.sharded import Exchange
from rec.nn.tables import Tables


class Sasrec(Recommender):
    """See the module's text; B, T, D as in `rec.data.batch`."""

    trunk = "encoder"

    def __init__(self, config: Config, *, items: int, exchange: Exchange | None = None) -> None:
        super().__init__()
        self.config = config
        self.keys = Keys()
        self.tables = Tables(0, items, config.dim, config.init_std, exchange if config.shard_tables else None)
        self.encoder = Encoder(
            config.dim,
            layers=config.layers,
            heads=config.heads,
            positions=config.positions,
            dropout=config.dropout,
            keys=self.keys,
        )

    def require_room(self, items: int) -> None:
        """Raises ConfigError if there are fewer positions than items."""
        if items > self.config.positions:
            raise ConfigError(
                f"data.max_items is {items} but model.positions is {self.config.positions}; "
                f"set model.positions to at least {items}"
            )

    def queries(self, items_BT: Tensor) -> Tensor:
        """q, (B, T, D): what follows each item."""
        query: Tensor = self.encoder(self.tables.items(items_BT) * math.sqrt(self.config.dim))
        return query

    def loss(self, batch: Sequences) -> Loss:
        self.keys.key_B = batch.key_B
        queries = self.queries(batch.items_BT)
        with torch.autocast(queries.device.type, enabled=False):  # losses are fp32 at any precision of the encoder
            parts = terms(self.config.loss, batch, queries, batch.targets_BT, self.tables)
        return weighted(vars(self.config.loss), parts)

    def score(self, queries: Queries) -> Scores:
        """(B, items + 1): the query after the last item of each history against the item table."""
        query = self.queries(queries.history_BT)
        last_B = ((queries.history_BT != PADDING).sum(1) - 1).clamp(min=0)
        query_BD = query[torch.arange(len(query), device=query.device), last_B]
        return product(query_BD.float(), self.tables.catalogue)
