"""Scores -> ranks of the targets, and the best K. Ties count against the model.

    rank of a target = candidates that are no targets and score at least as high
                     + its place among the targets of the query

so a constant model puts every target behind all other candidates, and equal targets follow one another. Items
of the history and padding are no candidates; a target that stands in the history is none either, and never
found.

Shapes: B queries of the block, C = items + 1 scores, M targets of the query that has most, S seen items of
the query that has most, N sampled candidates, K recommended items. Memory: a small multiple of the block of
scores.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rec.eval.metrics import NEVER

NOWHERE = float("-inf")


class Pool(NamedTuple):
    """What the targets of a block are ranked among."""

    targets_BM: Tensor
    """int64 item rows, each once; 0 where a query has fewer."""
    reachable_BM: Tensor
    """bool: whether the target is a candidate; false for padding."""
    seen_BS: Tensor
    """int64 item rows that are no candidates, each once; 0 where a query has fewer."""
    negatives_BN: Tensor | None = None
    """int64 item rows to rank among besides the targets; None ranks among the whole catalogue."""
    favour_targets: bool = False
    """Whether ties go to the target, as some published protocols have it."""

    def to(self, device: torch.device) -> "Pool":
        return Pool(*(part.to(device) if isinstance(part, Tensor) else part for part in self))  # type: ignore[arg-type]


def require_finite(scores_BC: Tensor, name: Callable[[int], str]) -> None:
    """Raises FloatingPointError with the first user whose scores are not finite, by `name` of the row."""
    if bool(torch.isfinite(scores_BC[:, 1:].sum(1)).all()):  # NaN and infinity survive a sum: one cheap pass
        return
    wrong_B = (~torch.isfinite(scores_BC[:, 1:])).sum(1).tolist()
    for row, wrong in enumerate(wrong_B):
        if wrong:
            items = scores_BC.shape[1] - 1
            raise FloatingPointError(f"{wrong} of the {items} scores of user '{name(row)}' are not finite")


def ranks(scores_BC: Tensor, pool: Pool) -> Tensor:
    """(B, M) int64 ranks from 1, ascending in each query, then NEVER for what is no candidate."""
    scores_BM = _at(scores_BC, pool.targets_BM).masked_fill(~pool.reachable_BM, NOWHERE)
    scores_BM = scores_BM.sort(1, descending=True).values
    if pool.negatives_BN is None:
        among, apart = scores_BC[:, 1:], torch.cat([_at(scores_BC, pool.seen_BS), scores_BM], 1)
    else:
        among, apart = _at(scores_BC, pool.negatives_BN), scores_BC[:, :0]
    ahead = torch.gt if pool.favour_targets else torch.ge
    ranks_BM = torch.full_like(pool.targets_BM, NEVER)
    for m in range(scores_BM.shape[1]):
        rows = torch.nonzero(scores_BM[:, m] > NOWHERE).squeeze(1)
        whole = len(rows) == len(scores_BM)  # the usual case, in which nothing is copied
        score_R1 = scores_BM[rows, m, None]
        others_R = _count(ahead(among if whole else among[rows], score_R1))
        others_R -= _count(ahead(apart if whole else apart[rows], score_R1))
        ranks_BM[rows, m] = others_R + m + 1
    return ranks_BM


def best(scores_BC: Tensor, seen_BS: Tensor, k: int) -> Tensor:
    """(B, K) int64 the K best candidates by (score, lower row first); 0 where a query has fewer.

    `torch.topk` alone leaves it open which of several equal items it takes, and differs between devices.
    """
    scores_BC = scores_BC.clone()
    scores_BC[:, 0] = NOWHERE
    scores_BC.scatter_(1, seen_BS, NOWHERE)  # padding of seen_BS is item 0, which is out already
    k = min(k, scores_BC.shape[1] - 1)
    worst_B1 = scores_BC.topk(k, dim=1).values[:, -1:]
    kept_BC = scores_BC >= worst_B1
    spare_B = _count(kept_BC) - k
    for row in torch.nonzero(spare_B).squeeze(1).tolist():  # equal items at the edge: the last rows of them leave
        edge = torch.nonzero(scores_BC[row] == worst_B1[row]).squeeze(1)
        kept_BC[row, edge[len(edge) - int(spare_B[row]) :]] = False
    items_BK = torch.nonzero(kept_BC)[:, 1].view(len(scores_BC), k)
    scores_BK, order_BK = scores_BC.gather(1, items_BK).sort(stable=True, dim=1, descending=True)
    return items_BK.gather(1, order_BK).masked_fill(scores_BK == NOWHERE, 0)


def _at(scores_BC: Tensor, rows_BX: Tensor) -> Tensor:
    """(B, X) the scores of the rows; below all others for padding."""
    return scores_BC.gather(1, rows_BX).masked_fill(rows_BX == 0, NOWHERE)


def _count(flags_BX: Tensor) -> Tensor:
    return flags_BX.sum(1, dtype=torch.int32).long()  # twice as fast on a CPU as a sum in int64
