"""The part of a score that is looked up in the train graph and not learned; see `rec.nn.following`."""

import torch
from torch import Tensor, nn

from rec.config.tree import Following as Config
from rec.graph.graph import Graph
from rec.models.relations import mapped
from rec.nn.following import following


class Following(nn.Module):
    """weight log(1 + f(j)) for every item. Nothing of it is a parameter or a buffer, as of `Relations`."""

    def __init__(self, config: Config, graph: Graph) -> None:
        super().__init__()
        self.config = config
        self.lists = (mapped(graph.following.item_IK), mapped(graph.following.strength_IK))

    def forward(self, history_BT: Tensor) -> Tensor:
        """(B, T) histories -> (B, items + 1) to be added to the scores."""
        if self.lists[0].device != history_BT.device:
            self.lists = (self.lists[0].to(history_BT.device), self.lists[1].to(history_BT.device))
        strength_BC = following(*self.lists, history_BT, window=self.config.window, decay=self.config.decay)
        return self.config.weight * torch.log1p(strength_BC)
