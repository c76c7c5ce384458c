"""How the tokens of a batch are related: integer ids for every pair, looked up on the device where the batch lies.

Ids of a pair stand at (query place, key place). Nothing but item rows, user rows and times goes in, and a pair is of
two tokens of one sequence, so that under causal attention no relation of an item is read before the item itself is.

What a user adds to the train graph is taken out of it before it is looked at in his own sequences. In training all
pairs of a history are his own and count at least once on his account; those of an item that is new after training do
not. And where a pair comes again later in a history, its strength would tell so. With his own share gone, the relations
of a sequence are those in a graph that was made without him, with two reservations: what a list of K neighbours keeps
is decided with him, and of what follows what, his share is known for the window only, not for the rest of his history.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from rec.nn.places import Lists, Places

NODE, LEVELS, TIME, POSITION = 5, 9, 25, 16
"""Ids of a kind of relation: 0 and up to, not including, so many."""

NO_NODE = torch.iinfo(torch.int32).max
"""No user, no item."""


class Tokens(NamedTuple):
    """What stands at each place of the sequences of a batch, and what is known of their owners."""

    user_BT: Tensor
    """int64 user rows; 0 where there is no user's token."""
    item_BT: Tensor
    """int64 item rows; 0 where there is no item's token. A token that is neither is text, or padding."""
    times_BT: Tensor
    """int64 milliseconds since 1970; 0 where no time is known."""
    owner_B: Tensor
    """int64 rows of the users whose histories these are; 0 is nobody's."""
    window_BW: Tensor
    """int64 item rows: the stretch of the owner's history that the sequence is made of, in its order, and in training
    with the last item that is predicted; 0 is padding."""


class GraphTensors(NamedTuple):
    """The train graph as tensors. Strengths of `following` are sums of 1 / gap."""

    edge_E: Tensor
    """int64, ascending: user row x (items + 1) + item row of every training pair, and a larger number behind them."""
    degree_I: Tensor
    """(items + 1) float64: users of each item."""
    together: Lists
    following: Lists
    out_I: Tensor
    """(items + 1) float64: the strength with which each item is followed by all items, in units of 1 / `unit`."""
    least_I: Tensor
    """(items + 1) float64: the smallest strength in the list of what follows each item, in the same units; 0 where the
    list is not full."""
    unit: int
    """Of which all 1 / gap are multiples."""
    horizon: int
    """The largest gap."""
    values: Mapping[str, Tensor]
    """(items + 1, V) int32 by attribute: the values of each item as positive numbers, filled up with 0."""

    def to(self, device: torch.device) -> "GraphTensors":
        def moved(value: object) -> object:
            if isinstance(value, Lists):
                return Lists(*(tensor.to(device) for tensor in value))
            if isinstance(value, Mapping):
                return {name: tensor.to(device) for name, tensor in value.items()}
            return value.to(device) if isinstance(value, Tensor) else value

        return GraphTensors(*map(moved, self))  # type: ignore[arg-type]


def sizes(graph: GraphTensors) -> dict[str, int]:
    """Kind of relation -> number of its ids, in the order of `relation_ids`."""
    kinds = {"node": NODE, "together": LEVELS, "following": LEVELS, "followed": LEVELS}
    return {**kinds, **dict.fromkeys(graph.values, 2), "time": TIME, "position": POSITION}


@torch.no_grad()
def relation_ids(graph: GraphTensors, tokens: Tokens) -> dict[str, Tensor]:
    """Kind -> (B, T, T) uint8, or (T, T) where they are the same in all sequences.

    node        0 none of these, 1 the same user or item, 2 a user and an item, 3 text reads a node, 4 a node reads text
    together    0 no user has both items, else 1 (weak) .. 8 (strong)
    following   how strongly the item of the query follows that of the key, 0 .. 8
    followed    how strongly the item of the key follows that of the query, 0 .. 8
    NAME        whether two items share a value of the attribute
    time        0 not known, 1 less than a minute, 2 less than 3, 3 less than 7, ...: 2^(id - 1) - 1 minutes and more
    position    places from key to query: 0 .. 7 as they are, 8 for 8 .. 15, 9 for 16 .. 31, ...
    """
    with torch.autocast(tokens.item_BT.device.type, enabled=False):
        own_BT = _owned(graph, tokens.owner_B, tokens.item_BT)
        places = Places(tokens.item_BT, len(graph.degree_I))
        followed_BTT = _following(graph, tokens, own_BT, places)
        return {
            "node": _nodes(tokens.user_BT, tokens.item_BT),
            "together": _together(graph, own_BT, places),
            "following": followed_BTT.mT.contiguous(),
            "followed": followed_BTT,
            **{name: _shared(values_IV[tokens.item_BT]) for name, values_IV in graph.values.items()},
            "time": _gaps_in_time(tokens.times_BT),
            "position": _gaps_in_place(tokens.item_BT),
        }


def _owned(graph: GraphTensors, owner_B: Tensor, item_BT: Tensor) -> Tensor:
    """(B, T) bool: whether the owner has the item in training."""
    key = owner_B[:, None] * len(graph.degree_I) + item_BT
    return graph.edge_E[torch.searchsorted(graph.edge_E, key)] == key


def _together(graph: GraphTensors, own_BT: Tensor, places: Places) -> Tensor:
    """Levels of the cosine c / sqrt(d_i d_j), each number without the owner; a pair counts if either list has it."""
    pairs = places.pairs(graph.together)
    width = own_BT.shape[1]
    first_P, second_P = pairs.first_P, pairs.first_P // width * width + pairs.second_P
    own_N = own_BT.flatten().double()
    degree_N = (graph.degree_I[places.item_BT].flatten() - own_N).clamp_(min=1)
    count_P = pairs.strength_P - own_N.take(first_P) * own_N.take(second_P)
    cosine_P = count_P / (degree_N.take(first_P) * degree_N.take(second_P)).sqrt_()
    level_BTT = places.dealt(pairs, _levels(cosine_P, graph.together.bounds))
    return torch.maximum(level_BTT, level_BTT.mT)


def _following(graph: GraphTensors, tokens: Tokens, own_BT: Tensor, places: Places) -> Tensor:
    """Levels of the share of s_ij in what follows i, each number without what the owner's window adds to it.

    His share in s_ij is the sum of 1 / gap over all places of the window where j stands `gap` behind i, if he had both
    in training. In units all of these are whole numbers, which are exact in floating point.
    """
    item_BT, window_BW = tokens.item_BT, tokens.window_BW
    place = torch.arange(window_BW.shape[1], device=item_BT.device)
    gap_WW = place - place[:, None]
    # rounded, since a number over a tensor is computed as the number times 1 / tensor
    add_WW = torch.where((gap_WW > 0) & (gap_WW <= graph.horizon), (graph.unit / gap_WW).round_(), 0.0)
    same_BTW = _equal(torch.where(own_BT, item_BT, -1), window_BW).float()
    after_BTW = same_BTW @ add_WW
    own_BTT = after_BTW @ same_BTW.mT
    train_BW = _owned(graph, tokens.owner_B, window_BW)
    own_out_BT = (after_BTW * train_BW[:, None]).sum(2) - own_BTT.diagonal(dim1=1, dim2=2)
    out_BT = (graph.out_I[item_BT] - own_out_BT).clamp_(min=1)
    pairs = places.pairs(graph.following)
    own_P = own_BTT.take(pairs.first_P * item_BT.shape[1] + pairs.second_P)
    strength_P = (pairs.strength_P * graph.unit).round_() - own_P
    strength_P *= strength_P >= graph.least_I[item_BT].take(pairs.first_P)
    return places.dealt(pairs, _levels(strength_P / out_BT.take(pairs.first_P), graph.following.bounds))


def _levels(weight_P: Tensor, bounds: Tensor) -> Tensor:
    """0 where there is no weight, else 1 and how many bounds it reaches; as `Neighbours.buckets`, rounding included."""
    weight_P = weight_P.float()
    return ((torch.bucketize(weight_P, bounds, out_int32=True, right=True) + 1) * (weight_P > 0)).to(torch.uint8)


def _equal(one_BT: Tensor, other_BW: Tensor) -> Tensor:
    """(B, T, W) int32 of 1 and 0: a comparison into the type of its operands takes half the time of one into bool."""
    equal_BTW = torch.empty(*one_BT.shape, other_BW.shape[1], dtype=torch.int32, device=one_BT.device)
    return torch.eq(one_BT.int()[:, :, None], other_BW.int()[:, None], out=equal_BTW)


def _nodes(user_BT: Tensor, item_BT: Tensor) -> Tensor:
    node_BT = user_BT - item_BT  # users above 0, items below, text at 0
    kind_BT, text_BT = (node_BT.sign() + 1).to(torch.uint8), (node_BT == 0).view(torch.uint8)
    unlike_BTT = (kind_BT[:, :, None] ^ kind_BT[:, None]).clamp_(max=1)
    related_BTT = unlike_BTT.mul_((text_BT + 2)[:, :, None] + (2 * text_BT)[:, None])
    return related_BTT.add_(_equal(node_BT, torch.where(node_BT == 0, NO_NODE, node_BT)).to(torch.uint8))


def _shared(values_BTV: Tensor) -> Tensor:
    query = values_BTV[:, :, None]
    key = torch.where(values_BTV > 0, values_BTV, -1)[:, None]
    shared = query[..., :1] == key[..., :1]
    for place in range(1, values_BTV.shape[2] ** 2):
        one, other = divmod(place, values_BTV.shape[2])
        shared = shared | (query[..., one : one + 1] == key[..., other : other + 1])
    return shared[..., 0].view(torch.uint8)


def _gaps_in_time(times_BT: Tensor) -> Tensor:
    exact_BT, known_BT = times_BT.double(), (times_BT > 0).view(torch.uint8)
    minutes_BTT = (exact_BT[:, :, None] - exact_BT[:, None]).float() / 60_000
    # the exponent of a float of 1 or more, as frexp would tell it, in an eighth of the time
    exponent_BTT = (minutes_BTT.clamp_(min=0) + 1).view(torch.int32).bitwise_right_shift_(23).sub_(126)
    id_BTT = exponent_BTT.clamp_(max=TIME - 1).to(torch.uint8)
    return id_BTT.mul_(known_BT[:, :, None] * known_BT[:, None])


def _gaps_in_place(item_BT: Tensor) -> Tensor:
    place = torch.arange(item_BT.shape[1], device=item_BT.device)
    gap = (place[:, None] - place).clamp_(min=0)
    return torch.where(gap < 8, gap, 4 + gap.float().frexp().exponent).clamp_(max=POSITION - 1).to(torch.uint8)
