"""Scores -> ranks of the targets, and the best K. Ties count against the model.

    rank of a target = candidates that are no targets and score at least as high
                     + its place among the targets of the query

so a constant model puts every target behind all other candidates, and equal targets follow one another. Items
of the history and padding are no candidates; a target that stands in the history is none either, and never
found.

Shapes: B queries of the block, M targets of the query that has most, S seen items of the query that has most, N
sampled candidates, K recommended items; `scores` of a block of columns have (B, columns). Memory: a few such blocks.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rec.eval.best import NOWHERE, Best
from rec.eval.metrics import NEVER
from rec.models.scores import Scores
from rec.models.spread import Spread
from rec.nn.sharded import Exchange
from rec.nn.shards import each


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

    def everywhere(self, exchange: Exchange) -> list["Pool"]:
        """Those of all ranks, in rank order."""
        targets, reachable, seen = (each(part, exchange) for part in (self.targets_BM, self.reachable_BM, self.seen_BS))
        negatives = [None] * len(seen) if self.negatives_BN is None else each(self.negatives_BN, exchange)
        parts = zip(targets, reachable, seen, negatives, strict=True)
        return [Pool(*own, favour_targets=self.favour_targets) for own in parts]


class Reading(NamedTuple):
    """What one pass over the scores of a block tells."""

    ranks_BM: Tensor
    """int64 ranks from 1, ascending in each query, then NEVER for what is no candidate."""
    items_BK: Tensor
    """int64 the best candidates by (score, lower row first); 0 where a query has fewer. K is at most the catalogue."""
    scores_BK: Tensor
    """Theirs."""
    wrong_B: Tensor
    """int64 how many scores of the query are not finite."""

    def require_finite(self, items: int, name: Callable[[int], str]) -> None:
        """Raises FloatingPointError with the first user whose scores are not finite, by `name` of the row."""
        for row, wrong in enumerate(self.wrong_B.tolist()):
            if wrong:
                raise FloatingPointError(f"{wrong} of the {items} scores of user '{name(row)}' are not finite")


def read(scores: Scores, pool: Pool, k: int = 0) -> Reading:
    """Ranks the targets, lists the `k` best, and looks whether all scores are finite."""
    if isinstance(scores, Spread):  # the blocks of all ranks, in each of which a rank reads the columns that it has
        blocks = zip(scores.everywhere(), pool.everywhere(scores.exchange), strict=True)
        return [read(some, of, k) for some, of in blocks][scores.exchange.rank]
    if pool.negatives_BN is not None:
        scores_BC = scores.dense()
        wrong_B = (~torch.isfinite(scores_BC[:, 1:])).sum(1)
        nothing = scores_BC[:, :0]
        return Reading(_among(scores_BC, pool), nothing.long(), nothing, wrong_B)
    guess_BM = scores.at(pool.targets_BM).masked_fill(~pool.reachable_BM, 0)
    reading, exact_BM = _read(scores, pool, guess_BM, k)
    if not torch.equal(guess_BM, exact_BM):  # a product was rounded in another way in the midst of its block
        reading, _ = _read(scores, pool, exact_BM, k)
    return reading


def best(scores: Scores, seen_BS: Tensor, k: int, name: Callable[[int], str]) -> tuple[Tensor, Tensor]:
    """(B, K) int64 the K best candidates by (score, lower row first), 0 where a query has fewer; and their scores.

    Raises FloatingPointError with the first user whose scores are not finite, by `name` of the row.
    """
    none_BM = seen_BS[:, :0]
    found = read(scores, Pool(none_BM, none_BM.bool(), seen_BS), k)
    found.require_finite(scores.shape[1] - 1, name)
    return found.items_BK, found.scores_BK


def _read(scores: Scores, pool: Pool, score_BM: Tensor, k: int) -> tuple[Reading, Tensor]:
    """One pass over all columns with the scores of the targets as they are believed to be, and as they are."""
    queries, columns = scores.shape
    starts = scores.starts
    done = [max(1, scores.own.start), *(start + scores.width for start in starts)]  # padding; what blocks before had
    seen = Cells(pool.seen_BS, starts, done)
    targets = Cells(pool.targets_BM * pool.reachable_BM, starts, done)
    exact_BM = torch.zeros_like(score_BM)
    target_BM = score_BM.masked_fill(~pool.reachable_BM, NOWHERE).sort(1, descending=True).values
    rows = [torch.nonzero(target_BM[:, m] > NOWHERE).squeeze(1) for m in range(target_BM.shape[1])]
    ahead_BM = torch.zeros_like(pool.targets_BM)
    wrong_B = ahead_BM.new_zeros(queries)
    lists = Best(queries, min(k, columns - 1), score_BM) if k else None
    for place, start in enumerate(starts):
        block = scores.columns(start, start + scores.width)
        read_before = block[:, : done[place] - start]
        read_before.zero_()  # padding may be anything
        if not bool(torch.isfinite(block.sum())):  # NaN and infinity survive a sum: one cheap pass
            wrong_B += (~torch.isfinite(block)).sum(1)
        read_before.fill_(NOWHERE)
        query_N, _, place_N = seen.of(place)
        block[query_N, place_N] = NOWHERE
        if lists is not None:
            lists.take(start, block)
        query_N, m_N, place_N = targets.of(place)
        exact_BM[query_N, m_N] = block[query_N, place_N]
        block[query_N, place_N] = NOWHERE
        for m, row_R in enumerate(rows):
            if 2 * len(row_R) > queries:  # the usual case, in which nothing is copied
                ahead_BM[:, m] += _count(block, target_BM[:, m])
            else:
                ahead_BM[row_R, m] += _count(block[row_R], target_BM[row_R, m])
    ahead_BM, wrong_B, exact_BM = scores.total(ahead_BM), scores.total(wrong_B), scores.total(exact_BM)
    ranks_BM = torch.full_like(ahead_BM, NEVER)
    for m, row_R in enumerate(rows):
        ranks_BM[row_R, m] = ahead_BM[row_R, m] + m + 1
    items_BK, scores_BK = scores.best(*lists.lists()) if lists else (pool.seen_BS[:, :0], score_BM[:, :0])
    return Reading(ranks_BM, items_BK, scores_BK, wrong_B), exact_BM


def _count(scores: Tensor, at_least_B: Tensor) -> Tensor:
    """(B) int64 how many scores of a row are at least so high."""
    flags = torch.ge(scores, at_least_B[:, None], out=torch.empty_like(scores))  # three times as fast as into bool
    return flags.sum(1, dtype=torch.float32).long()  # exact: a block has at most 2^24 columns


def _among(scores_BC: Tensor, pool: Pool) -> Tensor:
    """(B, M) the ranks among the sampled candidates alone."""
    assert pool.negatives_BN is not None
    score_BM = scores_BC.gather(1, pool.targets_BM).masked_fill(~pool.reachable_BM, NOWHERE)
    score_BM = score_BM.sort(1, descending=True).values
    among_BN = scores_BC.gather(1, pool.negatives_BN)
    ahead = torch.gt if pool.favour_targets else torch.ge
    others_BM = ahead(among_BN[:, None], score_BM[:, :, None]).sum(2)
    place_M = torch.arange(1, score_BM.shape[1] + 1, device=score_BM.device)
    return (others_BM + place_M).masked_fill(score_BM == NOWHERE, NEVER)


class Cells:
    """Item rows of queries, which are looked up by the block of columns they are in."""

    def __init__(self, items_BX: Tensor, starts: list[int], done: list[int]) -> None:
        """`items_BX` is 0 where there is none; blocks have columns `starts`, and theirs lie between two of `done`."""
        query_N, place_N = torch.nonzero(items_BX, as_tuple=True)
        item_N, order_N = items_BX[query_N, place_N].sort()
        self.query_N, self.place_N, self.item_N, self.starts = query_N[order_N], place_N[order_N], item_N, starts
        self.bounds = torch.searchsorted(item_N, item_N.new_tensor(done)).tolist()

    def of(self, block: int) -> tuple[Tensor, Tensor, Tensor]:
        """Query, place in its row, and column of the block."""
        mine = slice(self.bounds[block], self.bounds[block + 1])
        return self.query_N[mine], self.place_N[mine], self.item_N[mine] - self.starts[block]
