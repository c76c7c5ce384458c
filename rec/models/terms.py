"""The terms of the loss that recommenders of sequences share: scores are products of queries and item vectors.

P scored places of a window: T, and one before them where the window begins with a token of its own.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rec.config.tree import LossWeights
from rec.data.batch import Sequences
from rec.models.base import Loss
from rec.nn import losses
from rec.nn.catalogue import catalogue_cross_entropy
from rec.nn.shards import Shard
from rec.nn.tables import Table, Tables, mean_square, rows_of

NOTHING = -1e9
"""A score whose exponential is 0, and finite, so that no difference of two is not a number."""


def terms(
    weights: LossWeights,
    batch: Sequences,
    queries_BPD: Tensor,
    targets_BP: Tensor,
    tables: Tables,
    items: Table | None = None,
    found: Sequence[Tensor] = (),
) -> dict[str, Tensor]:
    """The unweighted terms, each summed over the positions that have a target; weight 0 leaves a term out.

    All in fp32, where the tables are kept in another type (DeepSpeed's own bf16), too; but queries in half precision
    may go to a fused kernel for the exact cross-entropy (`rec.nn.fused`).

    Args:
        weights: which terms there are, and t of gBCE.
        batch: whence negatives and users come.
        queries_BPD: (B, P, D) queries, in the type of the backbone's products.
        targets_BP: (B, P) item rows; `PADDING` where there is nothing to predict.
        tables: of users and items, for the terms that read them as they are.
        items: (items + 1, D) vectors that are scored, row 0 padding; None for the item table itself.
        found: (N, D) vectors of the targets and those of the negatives, where they are looked up already.
    """
    items = tables.catalogue if items is None else items
    if isinstance(items, Tensor):
        items = items.float()
    row_N, place_N = batch.scored(targets_BP.shape[1])
    query_ND, target_N = queries_BPD[row_N, place_N], targets_BP[row_N, place_N]
    parts: dict[str, Tensor] = {}
    if weights.cross_entropy:
        parts["cross_entropy"] = (
            items.cross_entropy(query_ND, target_N, skip=1)
            if isinstance(items, Shard)
            else catalogue_cross_entropy(query_ND, items, target_N, skip=1)
        )
    if weights.need_negatives:
        query_ND, queries_BPD = query_ND.float(), queries_BPD.float()
        target_ND, negative_BKD = (vectors.float() for vectors in found or rows_of(items, target_N, batch.negatives_BK))
        positive_N = (query_ND * target_ND).sum(1)
        negative_NK = _against(queries_BPD, row_N, place_N, batch.negatives_BK, negative_BKD, target_N)
        log_q_NK = batch.log_q_BK.expand(len(batch.user_B), -1)[row_N]
    if weights.sampled_softmax:
        parts["sampled_softmax"] = losses.sampled_softmax(positive_N, negative_NK, log_q_NK)
    if weights.gbce:
        parts["gbce"] = losses.gbce(positive_N, negative_NK, tables.item.num_embeddings - 1, weights.gbce_calibration)
    if weights.bpr_context:
        parts["bpr_context"] = losses.bpr(positive_N, negative_NK)
    if weights.bpr_user:
        user_BD = tables.users(batch.user_B).float()
        user_NK = _against(user_BD[:, None], row_N, 0 * place_N, batch.negatives_BK, negative_BKD, target_N)
        parts["bpr_user"] = losses.bpr((user_BD[row_N] * target_ND).sum(1), user_NK)
    if weights.l2:
        squares = [mean_square(table) for table in (tables.user, tables.item) if table is not None]
        # times the positions: a mean over the tables that survives the trainer's division by all positions
        parts["l2"] = len(target_N) * torch.stack(squares).sum() / 2
    return parts


def _against(
    queries_BPD: Tensor, row_N: Tensor, place_N: Tensor, negatives_BK: Tensor, negative_BKD: Tensor, target_N: Tensor
) -> Tensor:
    """(N, K) scores of the negatives at some places. Shared ones may be a place's own target, which scores nothing."""
    if len(negatives_BK) == len(queries_BPD) > 1:
        return (queries_BPD @ negative_BKD.mT)[row_N, place_N]
    scores_NK = queries_BPD[row_N, place_N] @ negative_BKD[0].mT
    return scores_NK.masked_fill(negatives_BK == target_N[:, None], NOTHING)


def weighted(weights: Mapping[str, float], parts: dict[str, Tensor]) -> Loss:
    """The weighted sum of the parts, and the parts for the record."""
    total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
    return Loss(total, {name: part.detach() for name, part in parts.items()})
