"""User and item tables, and the projections between their space and the backbone's.

Widths: D of the tables, H of the backbone. Row 0 of the item table is padding and stays zero. User row 0, the person
nobody knows, has no parameters: its vector is a constant.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec.nn.sharded import Exchange
from rec.nn.shards import Shard

Table = Tensor | Shard
"""Vectors by row: (C, D), or those rows of them that this rank has."""


class Tables(nn.Module):
    """E_u (users, D) and E_i (items + 1, D); `users` = 0 leaves out the user table.

    With an `exchange`, each rank has an interval of the rows of both.
    """

    user: nn.Embedding | Shard | None
    item: nn.Embedding | Shard

    def __init__(self, users: int, items: int, dim: int, init_std: float, exchange: Exchange | None = None) -> None:
        super().__init__()
        self.stranger = init_std
        if exchange is None:
            self.user = nn.Embedding(users, dim) if users else None
            self.item = nn.Embedding(items + 1, dim, padding_idx=0)
        else:
            self.user = Shard(users, dim, exchange) if users else None
            self.item = Shard(items + 1, dim, exchange, padding=0)
        for table in (self.user, self.item):
            if isinstance(table, Shard):
                table.normal_(init_std)
            elif table is not None:
                nn.init.normal_(table.weight, std=init_std)
        self.set_items(slice(0, 1), torch.zeros(1, dim))

    @property
    def catalogue(self) -> Table:
        """The vectors of all items, by row."""
        return self.item if isinstance(self.item, Shard) else self.item.weight

    def set_items(self, rows: slice, values: Tensor) -> None:
        """Gives some rows of the item table, those that are here, the values of their first columns."""
        own = rows_here(self.item)
        first, last = max(rows.start, own.start), min(rows.stop, own.stop)
        if first < last:
            with torch.no_grad():
                mine = self.item.weight[first - own.start : last - own.start, : values.shape[1]]
                mine.copy_(values[first - rows.start : last - rows.start])

    def forget_users(self, known_U: Tensor) -> None:
        """Sets the vectors of users who are not known to zero, which makes them strangers."""
        assert self.user is not None
        with torch.no_grad():
            self.user.weight *= known_U[rows_here(self.user), None]

    def start_items_from(self, features: Tensor, std: float) -> None:
        """Sets the item table to the first D principal components of (items + 1, W) features, scaled to `std`.

        Where the features have fewer than D directions, the rest of the columns keeps its random start.
        """
        _, _, directions = torch.linalg.svd(features[1:] - features[1:].mean(0), full_matrices=False)
        components = (features[1:] - features[1:].mean(0)) @ directions[: self.item.weight.shape[1]].T
        self.set_items(slice(1, len(features)), components * (std / components.std()))

    def users(self, user_B: Tensor) -> Tensor:
        """(B) user rows -> (B, D). The stranger stands for row 0, for users that joined after training, and for rows of
        zeros, of whom nothing was learnt.

        It is not zero: a token of zeros stays zero through every layer of a backbone without biases, and the gradient
        of RMSNorm there is 1 / sqrt(eps), which over thirty layers is no number any more.
        """
        assert self.user is not None
        known_B = self.known(user_B)
        users_BD = self.user((known_B - 1).clamp(min=0)) * (known_B > 0)[:, None]
        return torch.where(users_BD.any(1, keepdim=True), users_BD, self.stranger)

    def known(self, user_B: Tensor) -> Tensor:
        """(B) user rows -> the same, 0 for users that joined after training."""
        assert self.user is not None
        return user_B * (user_B <= self.user.num_embeddings)

    def items(self, item: Tensor) -> Tensor:
        """(...) item rows -> (..., D)."""
        return rows_of(self.catalogue, item)[0]


class Heads(nn.Module):
    """P_u, P_i (D -> H) into the backbone and W_o (H -> D) out of it, all without bias.

    They start as W_o = P_i^T with orthonormal columns of P_i, so that before any training the query of an item is its
    own vector and similar items score alike; what goes in is scaled by GAIN, so that the backbone's first
    normalisation sees the tokens and not its own noise. Published systems start all three Xavier-uniform and
    independent; the difference is measured in docs/experiments.md.
    """

    GAIN = 5.0

    def __init__(self, dim: int, width: int, *, user: bool) -> None:
        super().__init__()
        self.user_in = nn.Linear(dim, width, bias=False) if user else None
        self.item_in = nn.Linear(dim, width, bias=False)
        self.query = nn.Linear(width, dim, bias=False)
        with torch.no_grad():
            nn.init.orthogonal_(self.item_in.weight)
            self.query.weight.copy_(self.item_in.weight.t())
            self.item_in.weight.mul_(self.GAIN)
            if self.user_in is not None:
                nn.init.orthogonal_(self.user_in.weight, gain=self.GAIN)


def rows_of(table: Table, *rows: Tensor) -> list[Tensor]:
    """Looks up several tensors of rows, (...) -> (..., D), at once; row 0, padding, gets no gradient.

    The gradient of a look-up is as large as the table, zeros for the most part, and those of several are added: in one
    look-up there is one of them. With 349,000 items of width 128 each takes 0.16 seconds of one core.
    """
    row_N = torch.cat([row.flatten() for row in rows])
    vectors_ND = table(row_N) if isinstance(table, Shard) else F.embedding(row_N, table, padding_idx=0)
    parts = vectors_ND.split([row.numel() for row in rows])
    return [part.view(*row.shape, vectors_ND.shape[1]) for part, row in zip(parts, rows, strict=True)]


def rows_here(table: nn.Embedding | Shard) -> slice:
    """Which rows of the whole table `table.weight` holds."""
    return table.own if isinstance(table, Shard) else slice(0, len(table.weight))


def mean_square(table: nn.Embedding | Shard) -> Tensor:
    """() of all elements."""
    return table.mean_square() if isinstance(table, Shard) else table.weight.float().square().mean()
