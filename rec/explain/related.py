"""How the tokens of a person are related, and what that adds to the attention between them."""

from typing import Any

import torch
from torch import Tensor

from rec.data.batch import Queries
from rec.explain.kinds import names
from rec.explain.shown import shown
from rec.models.relations import Learned, Paper
from rec.models.soft_token import SoftToken
from rec.nn.graph_bias import PAPER

DIGITS = 4
"""Decimals of a number on the page."""


def related(model: SoftToken, queries: Queries, heads_of: int) -> list[dict[str, Any]]:
    """One entry for each kind of relation; none, where attention has none.

    name    of the kind
    names   of its ids
    ids     row t: of the pairs that token t reads, s = 0 .. t
    bias    [layer][head][id]: what is added to the scaled products; over all kinds, the sum is the whole bias. Of
            some layers there may be one entry, the mean of the heads: see `shown`

    Args:
        model: what is explained.
        queries: of one person.
        heads_of: the layer, from 0, whose heads are shown in any case.
    """
    layers, heads = size(model)
    shown_B = model.tables.known(queries.user_B) if model.heads.user_in is not None else None
    found: dict[str, tuple[Tensor, Tensor]] = {}
    match model.relations:
        case Learned() as learned:
            for kind, ids in learned.ids(queries, shown_B).items():
                table = learned.bias.tables[kind].t().reshape(-1, heads, len(learned.bias.tables[kind]))
                found[kind] = ids, table.expand(layers, -1, -1)
        case Paper() as paper:
            found["hops"] = paper.hops(queries, shown_B), torch.tensor(PAPER).expand(layers, heads, -1)
    return [
        {
            "name": kind,
            "names": names(kind),
            "ids": triangle(ids.view(-1, *ids.shape[-2:])[0]),
            "bias": [rounded(of_HI.tolist()) for of_HI in shown(bias_LHI, heads_of)],
        }
        for kind, (ids, bias_LHI) in found.items()
    ]


def size(model: SoftToken) -> tuple[int, int]:
    """Layers and heads of the backbone."""
    shape = model.shape.get_text_config()
    return shape.num_hidden_layers, shape.num_attention_heads


def triangle(square: Tensor) -> Any:
    """(..., T, T) -> nested lists, of which row t has what causal attention reads: 0 .. t."""
    if square.ndim > 2:
        return [triangle(part) for part in square]
    return [rounded(row[: place + 1]) for place, row in enumerate(square.tolist())]


def rounded(values: Any) -> Any:
    """Nested numbers, short enough for a page."""
    return round(values, DIGITS) if isinstance(values, int | float) else [rounded(value) for value in values]
