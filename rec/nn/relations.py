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

NODE, LEVELS, TIME, POSITION = 5, 9, 25, 16
"""Ids of a kind of relation: 0 and up to, not including, so many."""


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


class Lists(NamedTuple):
    """Neighbours of each item; see `rec.graph.neighbours`."""

    item_IK: Tensor
    """(items + 1, K) int32 rows, filled up with items + 1."""
    strength_IK: Tensor
    """(items + 1, K) float32."""
    bounds: Tensor
    """(Q - 1) float32: weights that cut the pairs into levels."""


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
    """Kind -> (B, T, T) integers, or (T, T) where they are the same in all sequences.

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
        together_BTT, following_BTT = _found((graph.together, graph.following), tokens.item_BT)
        followed_BTT = _following(graph, tokens, own_BT, following_BTT)
        return {
            "node": _nodes(tokens.user_BT, tokens.item_BT),
            "together": _together(graph, tokens.item_BT, own_BT, together_BTT),
            "following": followed_BTT.mT,
            "followed": followed_BTT,
            **{name: _shared(values_IV[tokens.item_BT]) for name, values_IV in graph.values.items()},
            "time": _gaps_in_time(tokens.times_BT),
            "position": _gaps_in_place(tokens.item_BT),
        }


def _owned(graph: GraphTensors, owner_B: Tensor, item_BT: Tensor) -> Tensor:
    """(B, T) bool: whether the owner has the item in training."""
    key = owner_B[:, None] * len(graph.degree_I) + item_BT
    return graph.edge_E[torch.searchsorted(graph.edge_E, key)] == key


def _found(relations: tuple[Lists, ...], item_BT: Tensor) -> list[Tensor]:
    """(B, T, T) float32 for each relation: the strength from the item of the row to that of the column, 0 if unknown.

    Each list is read once and dealt to the columns, where searching it for every column would take six times as long.
    """
    (sequences, places), device = item_BT.shape, item_BT.device
    everywhere_BT = torch.arange(1, sequences * places + 1, device=device).view(sequences, places)
    # of each item a place in the batch, of that the place in each sequence; equal items go by one place, any of theirs
    in_batch_I = torch.zeros(len(relations[0].item_IK) + 1, dtype=torch.int64, device=device)
    in_batch_I.scatter_(0, item_BT.flatten(), everywhere_BT.flatten())[0] = 0
    of_item_BT = in_batch_I[item_BT]
    in_sequence = torch.zeros(sequences, sequences * places + 1, dtype=torch.int16, device=device)
    number_BT = torch.arange(1, places + 1, dtype=torch.int16, device=device).expand(sequences, places)
    in_sequence.scatter_(1, of_item_BT, number_BT)[:, 0] = 0
    column_BTT = in_sequence.gather(1, of_item_BT).long()[:, None].expand(sequences, places, places)
    found = []
    for relation in relations:
        near_BTK = in_batch_I[relation.item_IK[item_BT].long()]
        place_BTK = in_sequence.gather(1, near_BTK.view(sequences, -1)).view_as(near_BTK).long()
        strength = torch.zeros(sequences, places, places + 1, device=device)
        strength.scatter_(2, place_BTK, relation.strength_IK[item_BT])[:, :, 0] = 0
        found.append(strength.gather(2, column_BTT))
    return found


def _together(graph: GraphTensors, item_BT: Tensor, own_BT: Tensor, strength_BTT: Tensor) -> Tensor:
    """Levels of the cosine c / sqrt(d_i d_j), each number without the owner."""
    own_BT = own_BT.double()
    count = torch.maximum(strength_BTT, strength_BTT.mT).double() - own_BT[:, :, None] * own_BT[:, None]
    degree_BT = (graph.degree_I[item_BT] - own_BT).clamp_(min=1)
    return _levels(count / (degree_BT[:, :, None] * degree_BT[:, None]).sqrt_(), graph.together.bounds)


def _following(graph: GraphTensors, tokens: Tokens, own_BT: Tensor, strength_BTT: Tensor) -> Tensor:
    """Levels of the share of s_ij in what follows i, each number without what the owner's window adds to it.

    His share in s_ij is the sum of 1 / gap over all places of the window where j stands `gap` behind i, if he had both
    in training. In units all of these are whole numbers, which are exact in floating point.
    """
    item_BT, window_BW = tokens.item_BT, tokens.window_BW
    place = torch.arange(window_BW.shape[1], device=item_BT.device)
    gap_WW = place - place[:, None]
    # rounded, since a number over a tensor is computed as the number times 1 / tensor
    add_WW = torch.where((gap_WW > 0) & (gap_WW <= graph.horizon), (graph.unit / gap_WW).round_(), 0.0)
    same_BTW = ((item_BT[:, :, None] == window_BW[:, None]) & own_BT[:, :, None]).float()
    after_BTW = same_BTW @ add_WW
    own_BTT = after_BTW @ same_BTW.mT
    train_BW = _owned(graph, tokens.owner_B, window_BW).float()
    own_out_BT = (after_BTW @ train_BW[:, :, None])[:, :, 0] - own_BTT.diagonal(dim1=1, dim2=2)
    strength = (strength_BTT.double() * graph.unit).round_() - own_BTT
    strength *= strength >= graph.least_I[item_BT][:, :, None]
    out_BT = graph.out_I[item_BT] - own_out_BT
    return _levels(strength / out_BT.clamp_(min=1)[:, :, None], graph.following.bounds)


def _levels(weight: Tensor, bounds: Tensor) -> Tensor:
    """0 where there is no weight, else 1 and how many bounds it reaches; as `Neighbours.buckets`, rounding included."""
    weight = weight.float()
    level = (weight > 0).to(torch.int32)
    for bound in bounds:
        level += weight >= bound
    return level * (weight > 0)


def _nodes(user_BT: Tensor, item_BT: Tensor) -> Tensor:
    node_BT = user_BT - item_BT  # users above 0, items below
    sign_BT = node_BT.sign()
    query, key = sign_BT[:, :, None], sign_BT[:, None]
    related = torch.where(query * key < 0, 2, 0) + torch.where(query == 0, 3, 4) * ((query == 0) ^ (key == 0))
    return torch.where((node_BT[:, :, None] == node_BT[:, None]) & (query != 0), 1, related)


def _shared(values_BTV: Tensor) -> Tensor:
    query = values_BTV[:, :, None]
    key = torch.where(values_BTV > 0, values_BTV, -1)[:, None]
    shared = query[..., :1] == key[..., :1]
    for place in range(1, values_BTV.shape[2] ** 2):
        one, other = divmod(place, values_BTV.shape[2])
        shared = shared | (query[..., one : one + 1] == key[..., other : other + 1])
    return shared[..., 0].to(torch.int32)


def _gaps_in_time(times_BT: Tensor) -> Tensor:
    minutes = (times_BT[:, :, None] - times_BT[:, None]).float() / 60_000
    known = (times_BT > 0)[:, :, None] & (times_BT > 0)[:, None]
    return (minutes.clamp_(min=0) + 1).frexp().exponent.clamp_(max=TIME - 1) * known


def _gaps_in_place(item_BT: Tensor) -> Tensor:
    place = torch.arange(item_BT.shape[1], device=item_BT.device)
    gap = (place[:, None] - place).clamp_(min=0)
    return torch.where(gap < 8, gap, 4 + gap.float().frexp().exponent).clamp_(max=POSITION - 1).to(torch.int32)
