"""Propagation over the edges between users and items (LightGCN, He et al. 2020, arXiv 2002.02126, equations 3 and 4).

    e^(l+1) = S e^(l),   S = D^(-1/2) A D^(-1/2)        e = mean of e^(0) .. e^(L)

How the mean is computed says `rec.nn.mean_over_layers`; here is what a step shows of the graph.

*Hidden users.* A training position must not read its target through the graph. The users of the whole step are taken
out of it: they neither send nor receive, and all degrees are those of the graph without them. So what an item's vector
says in this step is made of edges of other people only, whatever the window, the micro-batch or the rank: changing,
adding or removing edges of the step's users changes no bit of it. What other people did together is what the graph is
for. A hidden user's edges keep their places, with a value of 0.

U users, I item rows with padding, E edges, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rec.nn.drawn import mean_of_rows
from rec.nn.dropout import keep_pairs
from rec.nn.mean_over_layers import Edges, Half, mean_over_layers, sum_of_neighbours


class Means(NamedTuple):
    """What propagation gives."""

    user_UD: Tensor
    """No rows where they were not wanted."""
    item_ID: Tensor


class Propagation(nn.Module):
    """The graph as a block without parameters, which looks like a function of layer 0 of both sides.

    Args:
        users: edges of the U users.
        items: the same edges by item: I rows, of which row 0 is padding and has none.
        layers: L.
        dropout: probability that a training step leaves an edge out, in both directions; the others count 1 / (1 - p).
        fan_out: neighbours that each node draws in a hop where some rows are asked for; 0 propagates the whole graph.
    """

    def __init__(self, users: Edges, items: Edges, *, layers: int, dropout: float = 0.0, fan_out: int = 0) -> None:
        super().__init__()
        self.layers, self.dropout, self.fan_out = layers, dropout, fan_out
        for name, tensor in zip(BUFFERS, (*users, *items), strict=True):
            self.register_buffer(name, tensor, persistent=False)

    def forward(
        self,
        user_UD: Tensor,
        item_ID: Tensor,
        hidden_S: Tensor | None = None,
        key: Tensor | None = None,
        *,
        want_users: bool = True,
        user_N: Tensor | None = None,
        item_N: Tensor | None = None,
    ) -> Means:
        """The means over layers, fp32.

        Args:
            user_UD: layer 0 of the users.
            item_ID: layer 0 of the items.
            hidden_S: users, counted from 0, whom the graph does not show; None hides nobody.
            key: int64 (), on which the edge dropout of a training step hangs.
            want_users: false leaves the users' mean out: half of the work.
            user_N: users, counted from 0, whose vectors a training step reads; those of others may be 0.
            item_N: items whose vectors a training step reads; None reads all of them, in the whole graph.
        """
        if self.fan_out and item_N is not None:
            return self._drawn(user_UD, item_ID, hidden_S, key, user_N if want_users else None, item_N)
        with torch.autocast(user_UD.device.type, enabled=False):
            to_users, to_items = self.halves(hidden_S, key)
            user_UD, item_ID = user_UD.float(), item_ID.float()
            return Means(
                mean_over_layers(user_UD, item_ID, to_users, to_items, self.layers) if want_users else user_UD[:0],
                mean_over_layers(item_ID, user_UD, to_items, to_users, self.layers),
            )

    def _drawn(
        self,
        user_UD: Tensor,
        item_ID: Tensor,
        hidden_S: Tensor | None,
        key: Tensor | None,
        user_N: Tensor | None,
        item_N: Tensor,
    ) -> Means:
        """The means of some rows, over some of their neighbours; 0 in other rows."""
        assert key is not None, "the model must give the key of its step to a training pass"
        assert user_N is None or hidden_S is None, "a hidden user has no neighbours to draw"
        user_offsets, user_items, item_offsets, item_users = map(self.get_buffer, BUFFERS)
        by_user, by_item = (user_offsets, user_items), (item_offsets, item_users)
        nobody = item_N.new_zeros(0)
        how = (key, self.layers, self.fan_out)
        with torch.autocast(user_UD.device.type, enabled=False):
            user_UD, item_ID = user_UD.float(), item_ID.float()
            hidden = nobody if hidden_S is None else hidden_S
            items = mean_of_rows(item_N, item_ID, user_UD, by_item, by_user, hidden, *how)
            if user_N is None:
                return Means(user_UD[:0], items)
            return Means(mean_of_rows(user_N, user_UD, item_ID, by_user, by_item, nobody, *how), items)

    def has_edges(self, user_B: Tensor) -> Tensor:
        """(B) users, counted from 0 -> (B) bool: whether the graph knows anything of them."""
        offsets = self.get_buffer(BUFFERS[0])
        return offsets[user_B + 1] > offsets[user_B]

    def halves(self, hidden_S: Tensor | None, key: Tensor | None) -> tuple[Half, Half]:
        """S of this step: into the users, and into the items."""
        user_offsets, user_items, item_offsets, item_users = map(self.get_buffer, BUFFERS)
        by_user, by_item = Edges(user_offsets, user_items), Edges(item_offsets, item_users)
        user_U, item_I = (edges.offsets.diff().float() for edges in (by_user, by_item))
        if hidden_S is not None:
            visible_U = torch.ones_like(user_U)
            visible_U[hidden_S] = 0
            ones_E = torch.ones(len(item_users), device=item_users.device)
            user_U *= visible_U
            item_I = sum_of_neighbours(*by_item, ones_E, visible_U[:, None])[:, 0]
        user_U, item_I = _power(user_U), _power(item_I)
        by_user_E = by_user.spread(user_U).mul_(item_I.index_select(0, user_items))
        by_item_E = by_item.spread(item_I).mul_(user_U.index_select(0, item_users))
        if self.training and self.dropout:
            assert key is not None, "the model must give the key of its step to a training pass"
            by_user_E.mul_(keep_pairs(key, by_user.rows_E, user_items.int(), self.dropout)).div_(1 - self.dropout)
            by_item_E.mul_(keep_pairs(key, item_users.int(), by_item.rows_E, self.dropout)).div_(1 - self.dropout)
        return Half(by_user, by_user_E), Half(by_item, by_item_E)


BUFFERS = ("user_offsets", "user_items", "item_offsets", "item_users")


def _power(degree_N: Tensor) -> Tensor:
    """D^(-1/2), with 0 for no edge."""
    return torch.where(degree_N > 0, degree_N.clamp(min=1).rsqrt(), 0)
