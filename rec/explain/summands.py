"""A score taken apart: what the language model says, what the graph network adds, what followed in the train graph."""

import torch
from torch import Tensor

from rec.data.batch import Queries
from rec.models.soft_token import SoftToken


@torch.no_grad()
def summands(model: SoftToken, queries: Queries) -> dict[str, Tensor]:
    """Name -> (B, items + 1) fp32, whose sum is the model's score up to rounding.

    reading     q . e_j           the state after the last item against the items' own vectors
    gnn         q . (gate g_j)    the same state against what the graph network adds to them
    following   what followed the last items
    """
    own_CD = model.tables.item.weight
    items = model.items_in_evaluation()
    query_BD = model.last(queries, items)
    found = {"reading": query_BD @ own_CD.t()}
    if model.gnn is not None and isinstance(items, Tensor):
        found["gnn"] = query_BD @ (items - own_CD).t()
    if model.following is not None:
        found["following"] = model.following(queries.history_BT).to(torch.zeros_like(found["reading"]))
    return found


def says(model: SoftToken, name: str) -> str:
    """A sentence on what a summand is."""
    match name:
        case "gnn":
            config = model.config.gnn
            assert config is not None
            return (
                "the same against the vector that a graph network of "
                f"{config.layers} layers gives the item; the model reads these vectors, too, in both lists"
            )
        case "following":
            part = model.config.following
            assert part is not None
            return (
                f"{part.weight:g} log(1 + strength), the strength with which the item follows "
                f"the last {part.window} items in the train graph"
            )
        case _:
            return "the state after the last token against the item's own vector"
