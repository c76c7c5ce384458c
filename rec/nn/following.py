"""What the train graph says of an item that comes next, added to the score of a model that has read the history.

    f(j) = sum over the last W items h_1 (newest), h_2, ... of decay^(age - 1) S(h_age, j)
    score(j) = model(j) + weight log(1 + f(j))

S(i, j) is the strength with which j follows i in the train graph, the sum of 1 / gap over all histories. A network
smooths over what it has seen often enough; that two things once followed each other is better looked up than learnt,
as in kNN language models (Khandelwal et al. 2020, arXiv 1911.00172), and like there the sum is formed when a model is
asked, not in training: on its own training targets the network needs no help, and would learn to do without.
"""

import torch
from torch import Tensor


def following(
    item_IK: Tensor, strength_IK: Tensor, history_BT: Tensor, *, window: int, decay: float
) -> tuple[Tensor, Tensor]:
    """The summands of f: (B, T) histories, oldest first and padded with 0 on the right -> (B, W K) items and strengths.

    An item stands there as often as it follows one of the last W; what is missing is items + 1, with strength 0.

    Args:
        item_IK: (items + 1, K) int32 neighbours of each item, filled up with items + 1.
        strength_IK: (items + 1, K) float32, 0 where filled up.
        window: W.
        decay: from 0 to 1.
    """
    length_B1 = (history_BT > 0).sum(1, keepdim=True)
    place_BW = length_B1 - 1 - torch.arange(window, device=history_BT.device)
    item_BW = history_BT.gather(1, place_BW.clamp(min=0)) * (place_BW >= 0)
    worth_W = decay ** torch.arange(window, device=history_BT.device, dtype=torch.float32)
    added_BWK = strength_IK[item_BW] * worth_W[:, None]
    return item_IK[item_BW].long().flatten(1), added_BWK.flatten(1)
