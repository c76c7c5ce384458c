"""Pairs of places of a sequence whose items are neighbours, from lists of the neighbours of each item.

B sequences of T places, N = B T, K neighbours in a list, C = N K cells, P pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Lists(NamedTuple):
    """Neighbours of each item; see `rec.graph.neighbours`."""

    item_IK: Tensor
    """(items + 1, K) int32 rows, filled up with items + 1."""
    strength_IK: Tensor
    """(items + 1, K) float32."""
    bounds: Tensor
    """(Q - 1) float32: weights that cut the pairs into levels."""


class Pairs(NamedTuple):
    """P pairs of places of which the list of the first one's item names the second one's.

    They are few among all pairs, so that what is computed for them in double precision costs little.
    """

    first_P: Tensor
    """Counted through the whole batch."""
    second_P: Tensor
    """Counted in the sequence."""
    strength_P: Tensor
    """float64."""


class Places:
    """Where items stand in the sequences of a batch. Equal items of a sequence go by one place, any of theirs.

    So a list is read once and dealt to the places, where searching it for every pair would take six times as long.
    """

    def __init__(self, item_BT: Tensor, rows: int) -> None:
        (sequences, places), device = item_BT.shape, item_BT.device
        self.item_BT = item_BT
        everywhere_BT = torch.arange(1, item_BT.numel() + 1, device=device).view_as(item_BT)
        # of each item a place in the batch, of that the place in each sequence: 1 and up, 0 for none
        self.in_batch_I = torch.zeros(rows + 1, dtype=torch.int64, device=device)
        self.in_batch_I.scatter_(0, item_BT.flatten(), everywhere_BT.flatten())[0] = 0
        of_item_BT = self.in_batch_I[item_BT]
        self.in_sequence = torch.zeros(sequences, item_BT.numel() + 1, dtype=torch.int16, device=device)
        number_BT = torch.arange(1, places + 1, dtype=torch.int16, device=device).expand_as(item_BT)
        self.in_sequence.scatter_(1, of_item_BT, number_BT)[:, 0] = 0
        self.column_BT = self.in_sequence.gather(1, of_item_BT).long()

    def pairs(self, relation: Lists) -> Pairs:
        """The pairs of places that a relation knows, row by row."""
        row_N = self.item_BT.flatten()
        near_BN = self.in_batch_I.index_select(0, relation.item_IK.index_select(0, row_N).flatten())
        place_C = self.in_sequence.gather(1, near_BN.view(len(self.item_BT), -1)).flatten()
        cell_P = place_C.nonzero()[:, 0]
        strength_P = relation.strength_IK.index_select(0, row_N).take(cell_P).double()
        return Pairs(cell_P // relation.item_IK.shape[1], place_C.take(cell_P).long() - 1, strength_P)

    def dealt(self, pairs: Pairs, level_P: Tensor) -> Tensor:
        """A uint8 for each pair -> (B, T, T), and 0 for all others."""
        sequences, places = self.item_BT.shape
        level_N = level_P.new_zeros(sequences * places * (places + 1))
        level_N.scatter_(0, pairs.first_P * (places + 1) + pairs.second_P + 1, level_P)
        level_BTT = level_N.view(sequences, places, places + 1)
        return level_BTT.gather(2, self.column_BT[:, None].expand(sequences, places, places))
