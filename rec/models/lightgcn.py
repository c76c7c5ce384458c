"""LightGCN: users and items as nodes whose vectors are means over their neighbourhoods (arXiv 2002.02126).

    E = mean of E^(0) .. E^(L),   E^(l+1) = D^(-1/2) A D^(-1/2) E^(l)
    score    s(u, j) = e_u . e_j

Each training interaction is a positive of its user once an epoch: windows predict their first item, too. As published,
the whole graph is shown, the predicted edge included: the model is transductive and reads no sequence, so that what it
learns by heart is not what it is asked for in evaluation. Its loss is BPR by default (`model.loss.bpr_context`); the
paper's regularisation of E^(0) is `model.loss.l2`, there a mean over the tables where the paper has a sum.

A user of whom the graph knows nothing is the mean of their history's items; without a history, all items are equal.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from rec.config.tree import LightGcn as Config
from rec.data.batch import PADDING, Queries, Sequences
from rec.graph.graph import Graph
from rec.models.base import Loss, Recommender
from rec.models.edges import items_of, propagation
from rec.models.scores import Product
from rec.models.terms import terms, weighted
from rec.nn.propagate import Means
from rec.nn.tables import Tables


class LightGcn(Recommender):
    """See the module's text; B, T, D as in `rec.data.batch`."""

    trunk = "propagation"

    def __init__(self, config: Config, graph: Graph) -> None:
        super().__init__()
        self.config = config
        self.tables = Tables(graph.users, graph.items, config.dim, config.init_std)
        self.propagation = propagation(graph, layers=config.layers, dropout=config.edge_dropout, fan_out=config.fan_out)

    def means(self, batch: Sequences | None = None) -> Means:
        """E, (users, D) and (items + 1, D); of a batch in training, with a fan-out only what it reads."""
        assert self.tables.user is not None
        read: dict[str, Tensor] = {}
        if batch is not None:
            read = {"key": batch.step_key, "user_N": batch.user_B - 1, "item_N": items_of(batch)}
        means: Means = self.propagation(self.tables.user.weight, self.tables.item.weight, **read)
        return means

    def loss(self, batch: Sequences) -> Loss:
        user_UD, item_ID = self.means(batch)
        targets = torch.cat([batch.first_B[:, None], batch.targets_BT], 1)
        with torch.autocast(user_UD.device.type, enabled=False):
            query_BPD = F.embedding(batch.user_B - 1, user_UD)[:, None].expand(-1, targets.shape[1], -1)
            parts = terms(self.config.loss, batch, query_BPD, targets, self.tables, item_ID)
        return weighted(vars(self.config.loss), parts)

    def score(self, queries: Queries) -> Product:
        """(B, items + 1): the user's vector, or a stranger's, against the items'."""
        user_UD, item_ID = self.once("means", self.means)
        row_B = (queries.user_B - 1).clamp(0, len(user_UD) - 1)
        known_B = (queries.user_B == row_B + 1) & self.propagation.has_edges(row_B)
        length_B1 = (queries.history_BT != PADDING).sum(1, keepdim=True).clamp(min=1)
        with torch.autocast(user_UD.device.type, enabled=False):  # ties count against the model: scores are fp32
            stranger_BD = F.embedding(queries.history_BT, item_ID).sum(1) / length_B1
            return Product(torch.where(known_B[:, None], user_UD[row_B], stranger_BD), item_ID)
