"""The part of a score that is looked up in the train graph and not learned; see `rec.nn.following`."""

import torch
from torch import Tensor, nn

from rec.config.tree import Following as Config
from rec.graph.graph import Graph
from rec.models.relations import mapped
from rec.models.scores import Added
from rec.nn.following import following


class Following(nn.Module):
    """weight log(1 + f(j)) for every item. Nothing of it is a parameter or a buffer, as of `Relations`."""

    def __init__(self, config: Config, graph: Graph) -> None:
        super().__init__()
        self.config = config
        self.lists = (mapped(graph.following.item_IK), mapped(graph.following.strength_IK))

    def forward(self, history_BT: Tensor) -> Added:
        """(B, T) histories -> what is added to the scores of what followed their last items."""
        if self.lists[0].device != history_BT.device:
            self.lists = (self.lists[0].to(history_BT.device), self.lists[1].to(history_BT.device))
        config, queries = self.config, len(history_BT)
        item_BX, strength_BX = following(*self.lists, history_BT, window=config.window, decay=config.decay)
        query_N, place_N = torch.nonzero(item_BX < len(self.lists[0]), as_tuple=True)
        sums = Added.summed(query_N, item_BX[query_N, place_N], strength_BX[query_N, place_N], queries)
        return sums._replace(value_N=config.weight * torch.log1p(sums.value_N))
