"""User and item tables, and the projections between their space and the backbone's.

Widths: D of the tables, H of the backbone. Row 0 of the item table is padding and stays zero. User row 0, the person
nobody knows, has no parameters: its vector is a constant.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Tables(nn.Module):
    """E_u (users, D) and E_i (items + 1, D); `users` = 0 leaves out the user table."""

    def __init__(self, users: int, items: int, dim: int, init_std: float) -> None:
        super().__init__()
        self.user = nn.Embedding(users, dim) if users else None
        self.item = nn.Embedding(items + 1, dim, padding_idx=0)
        self.stranger = init_std
        for table in (self.user, self.item):
            if table is not None:
                nn.init.normal_(table.weight, std=init_std)
        with torch.no_grad():
            self.item.weight[0] = 0

    def start_items_from(self, features: Tensor, std: float) -> None:
        """Sets the item table to the first D principal components of (items + 1, W) features, scaled to `std`.

        Where the features have fewer than D directions, the rest of the columns keeps its random start.
        """
        _, _, directions = torch.linalg.svd(features[1:] - features[1:].mean(0), full_matrices=False)
        components = (features[1:] - features[1:].mean(0)) @ directions[: self.item.embedding_dim].T
        with torch.no_grad():
            self.item.weight[1:, : components.shape[1]] = components * (std / components.std())

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
        return F.embedding(item, self.item.weight, padding_idx=0)


def rows_of(table_CD: Tensor, *wanted: Tensor) -> list[Tensor]:
    """(C, D) and int64 row numbers of any shapes -> their rows, (..., D) each, in one look-up.

    Backward makes one gradient of the table's size. With a look-up each there would be one for each, all but a few rows
    of them 0, which takes longer than all else in the head of a large catalogue.
    """
    found_ND = F.embedding(torch.cat([numbers.flatten() for numbers in wanted]), table_CD)
    parts = found_ND.split([numbers.numel() for numbers in wanted])
    return [part.view(*numbers.shape, -1) for part, numbers in zip(parts, wanted, strict=True)]


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
