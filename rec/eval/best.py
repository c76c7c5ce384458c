"""The K best of many columns, which come a block at a time.

Of each query it keeps the candidates that are at least as good as its K-th best so far, the edge. Once a few blocks
have been read, hardly any score is above the edge, and one look at the maxima of short stretches tells which ones are:
sorting rows of a whole catalogue takes longer than computing them.

B queries of the block, K items wanted, X cells of the query that has most, N cells.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

NOWHERE = float("-inf")
STRETCH = 32
"""Columns that are skipped together."""


class Best:
    """By (score, lower row first): `torch.topk` alone leaves it open which of several equal items it takes."""

    def __init__(self, queries: int, k: int, like: Tensor) -> None:
        """`like` is a tensor of the scores' type and device."""
        self.k, self.begun = k, False
        self.edge_B = like.new_full((queries,), NOWHERE)
        none_N = torch.empty(0, dtype=torch.int64, device=like.device)
        self.found = [(none_N, none_N, like.new_empty(0))]  # queries, items and scores, by item and then as they come
        self.pending = 0

    def take(self, start: int, scores: Tensor) -> None:
        """(B, columns) scores of the items from `start` on, after all blocks with lower rows."""
        if not self.begun:  # nothing is known yet, and everything would be kept
            self.begun = True
            if scores.shape[1] >= self.k:
                self.edge_B = scores.topk(self.k, sorted=False).values.amin(1)
            query_N, place_N = torch.nonzero(scores >= self.edge_B[:, None], as_tuple=True)
        else:
            query_N, place_N = self._above(scores)
        self.found.append((query_N, place_N + start, scores[query_N, place_N]))
        self.pending += len(query_N)
        if 2 * self.pending > self.k * len(self.edge_B):
            self._raise()

    def lists(self) -> tuple[Tensor, Tensor]:
        """(B, K) int64 items, best first, and their scores; item 0 where a query has fewer candidates."""
        return first(*self._side_by_side(), self.k)

    def _above(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns of what is above the edge; in each query by column."""
        over = -scores.shape[1] % STRETCH
        padded = F.pad(scores, (0, over), value=NOWHERE) if over else scores
        stretches = padded.view(len(scores), -1, STRETCH)
        query_N, stretch_N = torch.nonzero(stretches.amax(2) > self.edge_B[:, None], as_tuple=True)
        place_N, within_N = torch.nonzero(stretches[query_N, stretch_N] > self.edge_B[query_N, None], as_tuple=True)
        return query_N[place_N], stretch_N[place_N] * STRETCH + within_N

    def _raise(self) -> None:
        """Moves the edges up to the K-th best, and lets go of what is below."""
        _, score_BX = self._side_by_side()
        if score_BX.shape[1] >= self.k:
            self.edge_B = score_BX.topk(self.k, sorted=False).values.amin(1)
        query_N, item_N, score_N = map(torch.cat, zip(*self.found, strict=True))
        kept_N = score_N >= self.edge_B[query_N]
        self.found, self.pending = [(query_N[kept_N], item_N[kept_N], score_N[kept_N])], 0

    def _side_by_side(self) -> tuple[Tensor, Tensor]:
        """(B, X) items and scores of each query by item, with item 0 at the end."""
        query_N, item_N, score_N = map(torch.cat, zip(*self.found, strict=True))
        order_N = query_N.argsort(stable=True)  # blocks came by item, and each of them by query
        query_N, item_N, score_N = query_N[order_N], item_N[order_N], score_N[order_N]
        count_B = torch.bincount(query_N, minlength=len(self.edge_B))
        place_N = torch.arange(len(query_N), device=query_N.device) - (count_B.cumsum(0) - count_B)[query_N]
        shape = (len(count_B), max(self.k, int(count_B.max())) if len(count_B) else self.k)
        item_BX = item_N.new_zeros(shape).index_put_((query_N, place_N), item_N)
        return item_BX, score_N.new_full(shape, NOWHERE).index_put_((query_N, place_N), score_N)


def first(item_BX: Tensor, score_BX: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(B, K) the best of some items and their scores, best first; of equal ones, those that stand before the others."""
    order_BX = score_BX.argsort(dim=1, descending=True, stable=True)[:, :k]
    item_BX, score_BX = item_BX.gather(1, order_BX), score_BX.gather(1, order_BX)
    return item_BX.masked_fill(score_BX == NOWHERE, 0), score_BX
