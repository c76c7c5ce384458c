"""A graph network beside a sequential recommender: what an item is to other people, as a vector of its own.

    g = LightGCN's mean over layers, from tables of its own
    item    e_j + gate * g_j          loss   mean BPR(e_u, g_j) of the window's targets against its negatives

No position reads its target through the graph: the users of the whole step are hidden (`rec.nn.propagate`), and so the
loss predicts edges that the graph does not show. A hidden user is no node, so that their vector is layer 0. In
evaluation nobody is hidden: the graph is made of training interactions, and what is asked for then is not in it.
"""

import torch
from torch import Tensor, nn

from rec.config.tree import LightGcnPart as Config
from rec.data.batch import Sequences
from rec.graph.graph import Graph
from rec.models.edges import items_of, propagation
from rec.nn import losses
from rec.nn.propagate import Means
from rec.nn.tables import Tables, rows_of

GATE = 0.1


class Gnn(nn.Module):
    """Tables of its own, the graph, and the gate (D).

    The gate starts at `GATE`: near the model without the graph, whose vectors may start from texts, and yet not at 0,
    where the graph would get no gradient.
    """

    def __init__(self, config: Config, graph: Graph, dim: int, init_std: float) -> None:
        super().__init__()
        self.weight = config.loss
        self.tables = Tables(graph.users, graph.items, dim, init_std)
        self.propagation = propagation(graph, layers=config.layers, dropout=config.edge_dropout, fan_out=config.fan_out)
        self.gate = nn.Parameter(torch.full((dim,), GATE))

    def items(self, batch: Sequences | None) -> Tensor:
        """g, (items + 1, D) fp32, as a training step may see it; without a batch, of the whole train graph.

        With a fan-out a step computes those of the items that its batch names; all others are 0.
        """
        assert self.tables.user is not None
        step = () if batch is None else (batch.step_users_S - 1, batch.step_key)
        read_N = None if batch is None else items_of(batch)
        tables = self.tables.user.weight, self.tables.item.weight
        means: Means = self.propagation(*tables, *step, want_users=False, item_N=read_N)
        return means.item_ID

    def loss(self, batch: Sequences, targets_BP: Tensor, items_CD: Tensor) -> Tensor:
        """BPR of the targets against the negatives: summed over the targets, the mean over the negatives of each.

        Args:
            batch: whence users and negatives come.
            targets_BP: item rows; `PADDING` where there is none.
            items_CD: g.
        """
        row_N, place_N = batch.scored(targets_BP.shape[1])
        user_BD = self.tables.users(batch.user_B).float()
        target_ND, negative_BKD = rows_of(items_CD, targets_BP[row_N, place_N], batch.negatives_BK)
        negative_BK = (negative_BKD @ user_BD[:, :, None])[:, :, 0]
        total = losses.bpr((user_BD[row_N] * target_ND).sum(1), negative_BK[row_N])
        return total / batch.negatives_BK.shape[1]
