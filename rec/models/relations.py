"""Relations of the train graph in the attention of a language model: from batches and the graph to a bias."""

import warnings
from math import lcm
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rec.config.tree import LearnedRelations, PaperRelations
from rec.data.batch import Queries, Sequences
from rec.graph.attribute import Attribute
from rec.graph.graph import Graph
from rec.graph.hops import FAR, Edges, Side, hops
from rec.graph.neighbours import QUANTILES, Neighbours
from rec.nn.attention import Bias
from rec.nn.graph_bias import PAPER, LearnedBias
from rec.nn.places import Lists
from rec.nn.relations import LEVELS, GraphTensors, Tokens, relation_ids, sizes

MOST_VALUES = 4
"""Values of an item that count in an attribute: the rarest, which say most."""

NOBODY = np.iinfo(np.int64).max
"""Stands behind all edges, so that bisection ends within them."""

assert LEVELS == QUANTILES + 1
assert len(PAPER) == FAR + 1


class Relations(nn.Module):
    """A batch of histories -> the bias of attention between their tokens.

    Neither kind keeps anything of the graph in parameters or buffers: it is no part of a checkpoint, no strategy deals
    it out or casts it, and DDP does not send it around.
    """

    def forward(self, batch: Sequences | Queries, shown_B: Tensor | None) -> Bias:
        """A bias over the tokens of the batch's items, and of the users before them where users have tokens.

        Args:
            batch: whose users own the histories, hidden or not.
            shown_B: (B) user rows behind the users' tokens, 0 for a stranger; None where users have no tokens.
        """
        raise AssertionError("one of the kinds is meant")


class Learned(Relations):
    """A table for each kind of relation; see `rec.nn.relations` for the kinds, and for what keeps targets out."""

    def __init__(self, graph: Graph, *, heads: int, layers: int) -> None:
        super().__init__()
        self.graph = tensors(graph)
        self.bias = LearnedBias(sizes(self.graph), heads, layers)

    def forward(self, batch: Sequences | Queries, shown_B: Tensor | None) -> Bias:
        bias: Bias = self.bias(self.ids(batch, shown_B))
        return bias

    def ids(self, batch: Sequences | Queries, shown_B: Tensor | None) -> dict[str, Tensor]:
        """Kind of relation -> (B, T, T) ids, or (T, T) where they are the same in all sequences."""
        tokens = tokens_of(batch, shown_B)
        if self.graph.edge_E.device != tokens.item_BT.device:
            self.graph = self.graph.to(tokens.item_BT.device)
        return relation_ids(self.graph, tokens)


class Paper(Relations):
    """R of arXiv 2402.09617, a number for each count of hops between two nodes; the same for all heads and layers.

    In training the items of a history are one hop from their user and two from each other, whatever comes next, so
    that no target can be read from R.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        arrays = (graph.user_offsets, graph.user_items, graph.item_offsets, graph.item_users)
        self.sides = tuple(mapped(array) for array in arrays)

    def forward(self, batch: Sequences | Queries, shown_B: Tensor | None) -> Bias:
        return _strength(self.hops(batch, shown_B))[:, None]

    def hops(self, batch: Sequences | Queries, shown_B: Tensor | None) -> Tensor:
        """(B, T, T) int8 hops between the tokens, 0 .. FAR; FAR also where one of the two is no node."""
        tokens = tokens_of(batch, batch.user_B)  # the owner saves a search, shown or not
        hops_BTT = _hops(*self.sides, tokens.user_BT, tokens.item_BT)
        if shown_B is None:
            return hops_BTT[:, 1:, 1:]
        hidden_B1 = shown_B[:, None] == 0
        hops_BTT[:, :, 0].masked_fill_(hidden_B1, FAR)
        hops_BTT[:, 0].masked_fill_(hidden_B1, FAR)
        return hops_BTT

    def relation(self, user_BL: Tensor, item_BL: Tensor) -> Tensor:
        """Rows of the users and items at each place, 0 where there is none -> (B, L, L) float32 R.

        It is 0 where either place is no node.
        """
        return _strength(_hops(*self.sides, user_BL, item_BL))


def _strength(hops_BLL: Tensor) -> Tensor:
    """Hops -> float32 R."""
    return torch.tensor(PAPER, device=hops_BLL.device)[hops_BLL.long()]


def build(
    config: LearnedRelations | PaperRelations | None, graph: Graph | None, *, heads: int, layers: int
) -> Relations | None:
    """The relations that a configuration asks for, in a backbone of so many heads and layers."""
    if config is None:
        return None
    assert graph is not None
    match config:
        case LearnedRelations():
            return Learned(graph, heads=heads, layers=layers if config.per_layer else 1)
        case PaperRelations():
            return Paper(graph)


def tokens_of(batch: Sequences | Queries, shown_B: Tensor | None) -> Tokens:
    """The tokens of a batch: users first, if they are shown, then the items."""
    if isinstance(batch, Queries):
        item_BT, window_BW = batch.history_BT, batch.history_BT
    else:
        item_BT, window_BW = batch.items_BT, torch.cat([batch.items_BT[:, :1], batch.targets_BT], 1)
    user_BT, times_BT = torch.zeros_like(item_BT), batch.times_BT
    if shown_B is not None:
        none_B1 = torch.zeros_like(shown_B)[:, None]
        user_BT = torch.cat([shown_B[:, None], user_BT], 1)
        item_BT, times_BT = torch.cat([none_B1, item_BT], 1), torch.cat([none_B1, times_BT], 1)
    return Tokens(user_BT, item_BT, times_BT, batch.user_B, window_BW)


def tensors(graph: Graph) -> GraphTensors:
    """The graph as tensors, on the CPU; of what is long, those that the files hold already lie in mapped memory."""
    users = np.repeat(np.arange(graph.users + 1), np.diff(graph.user_offsets))
    horizon = int(graph.manifest["options"]["horizon"])
    unit = lcm(*range(1, horizon + 1))
    strength_IK = np.rint(graph.following.strength_IK * np.float64(unit))
    return GraphTensors(
        edge_E=torch.from_numpy(np.append(users * np.int64(graph.items + 1) + graph.user_items, NOBODY)),
        degree_I=torch.from_numpy(graph.degrees.astype(np.float64)),
        together=_lists(graph.together),
        following=_lists(graph.following),
        out_I=torch.from_numpy(np.rint(graph.following.total_I * unit)),
        least_I=torch.from_numpy(strength_IK.min(1)),  # what a list is filled up with is 0
        unit=unit,
        horizon=horizon,
        values={name: torch.from_numpy(rarest(attribute)) for name, attribute in graph.attributes.items()},
    )


def _lists(relation: Neighbours) -> Lists:
    return Lists(mapped(relation.item_IK), mapped(relation.strength_IK), torch.from_numpy(np.array(relation.bounds)))


def rarest(attribute: Attribute, most: int = MOST_VALUES) -> npt.NDArray[np.int32]:
    """(items + 1, V <= most) the rarest values of each item, counted from 1; filled up with 0."""
    lengths = np.diff(attribute.offsets)
    item = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((attribute.codes, attribute.counts[attribute.codes], item))
    place = np.arange(len(item)) - np.repeat(attribute.offsets[:-1], lengths)
    kept = place < most
    values = np.zeros((len(lengths), max(1, min(most, int(lengths.max())))), np.int32)
    values[item[kept], place[kept]] = attribute.codes[order][kept] + 1
    return values


def mapped(array: npt.NDArray[Any]) -> Tensor:
    """The array as a tensor in the same memory, of which torch warns that nobody may write to it; nobody does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


@torch.library.custom_op("kindling::hops", mutates_args=())
def _hops(
    user_offsets: Tensor,
    user_items: Tensor,
    item_offsets: Tensor,
    item_users: Tensor,
    user_BL: Tensor,
    item_BL: Tensor,
) -> Tensor:
    """`rec.graph.hops`, as an operation of torch: (B, L, L) int8. It is computed on the CPU."""
    edges = Edges(Side(user_offsets.numpy(), user_items.numpy()), Side(item_offsets.numpy(), item_users.numpy()))
    return torch.from_numpy(hops(edges, user_BL.cpu().numpy(), item_BL.cpu().numpy())).to(user_BL.device)


@_hops.register_fake
def _(
    user_offsets: Tensor,
    user_items: Tensor,
    item_offsets: Tensor,
    item_users: Tensor,
    user_BL: Tensor,
    item_BL: Tensor,
) -> Tensor:
    """What a rehearsal without data sees of it."""
    return user_BL.new_empty((*user_BL.shape, user_BL.shape[1]), dtype=torch.int8)
