"""The K best of many columns, which come a block at a time.

Of each query it keeps the K best so far, of which the last is the edge, and collects what comes above the edge. Once a
few blocks have been read, hardly any score is above it, and one look at the maxima of short stretches tells which ones
are: sorting rows of a whole catalogue takes longer than computing them.

B queries of the block, K items wanted, X of them found at a time by the query that found most, N cells, H stretches.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

NOWHERE = float("-inf")
STRETCH = 32
"""Columns that are skipped together."""
MOST = 16
"""Times K that a query may have found before all are put in order: the query that found most says what they take."""


class Best:
    """By (score, lower row first): `torch.topk` alone leaves it open which of several equal items it takes."""

    def __init__(self, queries: int, k: int, like: Tensor) -> None:
        """`like` is a tensor of the scores' type and device."""
        self.item_BK = torch.zeros(queries, k, dtype=torch.int64, device=like.device)
        self.score_BK = like.new_full((queries, k), NOWHERE)
        self.found: list[tuple[Tensor, Tensor, Tensor]] = []  # queries, items and scores, by query and then by item
        self.pending_B = torch.zeros(queries, dtype=torch.int64, device=like.device)
        self.begun = False

    def take(self, start: int, scores: Tensor) -> None:
        """(B, columns) scores of the items from `start` on, after all blocks with lower rows."""
        edge_B, k = self.score_BK[:, -1], self.score_BK.shape[1]
        if not self.begun and scores.shape[1] > k:  # otherwise everything would be kept
            kth_B = scores.topk(k, sorted=False).values.amin(1)
            edge_B = kth_B.nextafter(kth_B.new_tensor(NOWHERE))  # just below, since equal ones are not there yet
        self.begun = True
        query_N, place_N, score_N = above(scores, edge_B)
        self.found.append((query_N, place_N + start, score_N))
        self.pending_B += torch.bincount(query_N, minlength=len(edge_B))
        if 2 * self.pending_B.sum() > self.score_BK.numel() or (self.pending_B > MOST * k).any():
            self._merge()

    def lists(self) -> tuple[Tensor, Tensor]:
        """(B, K) int64 items, best first, and their scores; item 0 where a query has fewer candidates."""
        self._merge()
        return self.item_BK, self.score_BK

    def _merge(self) -> None:
        """Of the K best and what was found since, the K best; with the lower rows first, as they came."""
        if not self.pending_B.any():
            return
        place_B = torch.zeros_like(self.pending_B)
        shape = (len(place_B), int(self.pending_B.max()))
        item_BX, score_BX = self.item_BK.new_zeros(shape), self.score_BK.new_full(shape, NOWHERE)
        for query_N, item_N, score_N in self.found:
            count_B = torch.bincount(query_N, minlength=len(place_B))
            first_B = place_B - (count_B.cumsum(0) - count_B)  # where a query's go on, less where they begin in N
            cell_N = query_N, first_B[query_N] + torch.arange(len(query_N), device=query_N.device)
            item_BX[cell_N], score_BX[cell_N] = item_N, score_N
            place_B = place_B + count_B
        both_BX = torch.cat([self.score_BK, score_BX], 1)
        order_BK = both_BX.argsort(dim=1, descending=True, stable=True)[:, : self.score_BK.shape[1]]
        self.item_BK = torch.cat([self.item_BK, item_BX], 1).gather(1, order_BK)
        self.score_BK = both_BX.gather(1, order_BK)
        self.found = []
        self.pending_B.zero_()


def above(scores: Tensor, edge_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N) rows, columns and scores of what is above the edge of its row; by row and then by column."""
    over = -scores.shape[1] % STRETCH
    padded = F.pad(scores, (0, over), value=NOWHERE) if over else scores
    in_row = padded.shape[1] // STRETCH
    stretches = padded.reshape(-1, STRETCH)
    high = stretches.amax(1).view(-1, in_row) > edge_B[:, None]
    stretch_H = torch.nonzero(high.view(-1)).squeeze(1)
    query_H = stretch_H.div(in_row, rounding_mode="floor")
    score_HL = stretches.index_select(0, stretch_H)
    cell_N = torch.nonzero((score_HL > edge_B.index_select(0, query_H)[:, None]).view(-1)).squeeze(1)
    which_N = cell_N.div(STRETCH, rounding_mode="floor")
    query_N = query_H.index_select(0, which_N)
    column_N = stretch_H.index_select(0, which_N) * STRETCH + cell_N % STRETCH - query_N * padded.shape[1]
    return query_N, column_N, score_HL.view(-1).index_select(0, cell_N)
