"""The predictive prompts of many people at once, as tensors where their histories lie."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rec.data.batch import PADDING
from rec.nn.graph_bias import PAPER
from rec.text.prompts import Part


def written(given: Sequence[Part], history_BT: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `rec.text.prompts.Writer` makes of a predictive template, for all histories, oldest items first.

    Args:
        given: its parts, {items} once among them.
        history_BT: item rows.

    Returns:
        (B, L) int64 text tokens, bool user tokens, int64 items; and (B) int64 places of the last tokens.
    """
    place = given.index("items")
    before, after = (_fixed(parts) for parts in (given[:place], given[place + 1 :]))
    fixed_P2 = torch.tensor([*before, *after], dtype=torch.int64, device=history_BT.device).view(-1, 2)
    count_B1 = (history_BT != PADDING).sum(1, keepdim=True)
    place_L = torch.arange(len(fixed_P2) + history_BT.shape[1], device=history_BT.device)
    behind_BL = place_L - len(before) - count_B1  # from 0 on: what follows the items
    is_item_BL = (place_L >= len(before)) & (behind_BL < 0)
    is_fixed_BL = ~is_item_BL & (behind_BL < len(after))
    of_fixed_BL = torch.where(behind_BL < 0, place_L, behind_BL + len(before)).clamp(0, len(fixed_P2) - 1)
    token_BL, is_user_BL = (fixed_P2[of_fixed_BL] * is_fixed_BL[..., None]).unbind(2)
    at_BL = (place_L - len(before)).clamp(0, history_BT.shape[1] - 1).expand(len(history_BT), -1)
    return token_BL, is_user_BL.bool(), history_BT.gather(1, at_BL) * is_item_BL, len(fixed_P2) - 1 + count_B1[:, 0]


def _fixed(parts: Sequence[Part]) -> list[tuple[int, int]]:
    """(text token, whether it is the user's instead) of each place."""
    return [pair for part in parts for pair in ([(0, 1)] if isinstance(part, str) else [(token, 0) for token in part])]


def own_relation(is_user_BL: Tensor, item_BL: Tensor) -> Tensor:
    """(B, L, L) R between the tokens of one person and his own items: an edge, or two of them."""
    is_item_BL = item_BL > 0
    edge_BLL = is_item_BL[:, :, None] & is_user_BL[:, None]
    same_BLL = (item_BL[:, :, None] == item_BL[:, None]) & is_item_BL[:, :, None]
    same_BLL = same_BLL | (is_user_BL[:, :, None] & is_user_BL[:, None])
    two_BLL = is_item_BL[:, :, None] & is_item_BL[:, None] & ~same_BLL
    return PAPER[0] * same_BLL + PAPER[1] * (edge_BLL | edge_BLL.mT) + PAPER[2] * two_BLL
