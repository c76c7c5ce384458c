"""Propagation for a few nodes of a large graph, over a few neighbours of each: an estimate of `rec.nn.propagate`.

    m_n = (x_n + sum over drawn j of w_nj (x_j + ...)) / (L + 1),   w_nj = d_n / c_n (d_n d_j)^(-1/2)

Of its d neighbours a node draws c = min(d, fan-out), one from each of c equal stretches of its list: position
floor((r d + z) / c) for r = 0 .. c - 1, with z any number below d. A neighbour is met c / d times on average, so that
each hop is right on average; hops draw apart, so that all of them together are, too. With c = d every neighbour is met
once: a fan-out of the largest degree gives the mean itself.

What a node draws hangs on the key of the step, the hop and the node alone: no micro-batch, no rank and no restart
changes it. Users of the step are hidden as in the whole graph: lists are counted without them, degrees are those
without them, and so nothing that is drawn hangs on their edges. Changing these changes no bit.

N asked rows, M rows of the other side, F fan-out, H edges of hidden users, S hidden users, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rec.nn.dropout import numbers


class _Lists(NamedTuple):
    """Lists of neighbours without those that are hidden; see `rec.nn.propagate.Edges`."""

    offsets: Tensor
    neighbours_E: Tensor
    hidden_H: Tensor
    """Ascending: row x span + place in the row's list, counted without hidden ones, that a hidden one stands before."""
    span: int

    def degrees(self, row: Tensor) -> Tensor:
        """Neighbours of rows of any shape that are not hidden."""
        return self.offsets[row + 1].long() - self.offsets[row] - (self._before(row + 1, 0) - self._before(row, 0))

    def at(self, row_N1: Tensor, place_NF: Tensor) -> Tensor:
        """The neighbour at a place of the list without hidden ones; 0 where there are no edges at all."""
        skipped_NF = self._before(row_N1, place_NF, right=True) - self._before(row_N1, 0)
        edge_NF = self.offsets[row_N1] + place_NF + skipped_NF
        neighbours_E = self.neighbours_E if len(self.neighbours_E) else self.neighbours_E.new_zeros(1)
        return neighbours_E[edge_NF.clamp_(max=len(neighbours_E) - 1)].long()

    def _before(self, row: Tensor, place: Tensor | int, *, right: bool = False) -> Tensor:
        return torch.searchsorted(self.hidden_H, row * self.span + place, right=right)


def mean_of_rows(
    row_N: Tensor,
    own_ND: Tensor,
    other_MD: Tensor,
    own: tuple[Tensor, Tensor],
    other: tuple[Tensor, Tensor],
    hidden_S: Tensor,
    key: Tensor,
    layers: int,
    fan_out: int,
) -> Tensor:
    """Means over layers of some rows of one side, and 0 in all others; fp32.

    Args:
        row_N: the rows, each any number of times.
        own_ND: layer 0 of their side.
        other_MD: layer 0 of the other side.
        own: offsets and neighbours of their side.
        other: those of the other side.
        hidden_S: rows of the other side that the graph does not show.
        key: int64 (), of the step.
        layers: L.
        fan_out: neighbours that a node draws in a hop.
    """
    *hops, last = neighbourhood(*own, *other, row_N, hidden_S, key, layers, fan_out)
    rows, places, weights = [*hops[::3], last], hops[1::3], hops[2::3]
    layer_0: list[Tensor] = [last] * len(rows)
    for side, vectors in enumerate((own_ND, other_MD)):
        mine = rows[side::2]
        layer_0[side::2] = F.embedding(torch.cat(mine), vectors).split([len(one) for one in mine])
    total = layer_0[-1]
    for start, place_NF, weight_NF in zip(layer_0[-2::-1], places[::-1], weights[::-1], strict=True):
        total = start + F.embedding_bag(place_NF, total, mode="sum", per_sample_weights=weight_NF)
    return torch.zeros_like(own_ND).index_copy(0, rows[0], total / (layers + 1))


@torch.library.custom_op("kindling::neighbourhood", mutates_args=())
def neighbourhood(
    own_offsets: Tensor,
    own_neighbours: Tensor,
    other_offsets: Tensor,
    other_neighbours: Tensor,
    row_N: Tensor,
    hidden_S: Tensor,
    key: Tensor,
    layers: int,
    fan_out: int,
) -> list[Tensor]:
    """Distinct rows, and for each hop: (rows, F) places of what they draw among the next rows, (rows, F) float32 w.

    [rows, places, weights, rows, places, weights, ..., rows], of both sides in turn. An operation of its own, so that a
    plan can rehearse it on tensors without data.
    """
    nothing_0 = hidden_S.new_zeros(0)
    span = len(other_offsets)
    hidden_H = _hidden(own_offsets, own_neighbours, other_offsets, other_neighbours, hidden_S, span)
    sides = _Lists(own_offsets, own_neighbours, hidden_H, span), _Lists(other_offsets, other_neighbours, nothing_0, 1)
    found = [row_N.unique()]
    draw_F = torch.arange(fan_out, device=row_N.device)
    for layer in range(layers):
        lists, others, row_N1 = sides[layer % 2], sides[1 - layer % 2], found[-1][:, None]
        degree_N1 = lists.degrees(row_N1)
        some_N1 = degree_N1.clamp(1, fan_out)
        inside_NF = numbers(key, layer, found[-1], fan_out) % degree_N1.clamp(min=1)
        place_NF = (draw_F * degree_N1 + inside_NF) // some_N1
        drawn_NF = draw_F < degree_N1
        neighbour_NF = lists.at(row_N1, place_NF * drawn_NF) * drawn_NF
        row_M, among_NF = neighbour_NF.unique(return_inverse=True)
        degree_NF = others.degrees(row_M)[among_NF].clamp_(min=1)
        weight_NF = drawn_NF * (degree_N1 / degree_NF).sqrt_() / some_N1
        found += [among_NF, weight_NF, row_M]
    return found


@neighbourhood.register_fake
def _(
    own_offsets: Tensor,
    own_neighbours: Tensor,
    other_offsets: Tensor,
    other_neighbours: Tensor,
    row_N: Tensor,
    hidden_S: Tensor,
    key: Tensor,
    layers: int,
    fan_out: int,
) -> list[Tensor]:
    """As if no two draws met the same row, while there are so many."""
    sides = len(own_offsets) - 1, len(other_offsets) - 1
    rows = min(len(row_N), sides[0])
    found = [row_N.new_empty(rows)]
    for layer in range(layers):
        drawn = row_N.new_empty(rows, fan_out)
        rows = min(rows * fan_out, sides[1 - layer % 2])
        found += [drawn, torch.empty_like(drawn, dtype=torch.float32), row_N.new_empty(rows)]
    return found


def _hidden(
    own_offsets: Tensor,
    own_neighbours: Tensor,
    other_offsets: Tensor,
    other_neighbours: Tensor,
    rows: Tensor,
    span: int,
) -> Tensor:
    """Where rows of the other side stand in the lists of this one: `_Lists.hidden_H`."""
    start, degree = other_offsets[rows].long(), other_offsets[rows + 1] - other_offsets[rows]
    first = start - (degree.cumsum(0) - degree)
    edge_H = torch.arange(int(degree.sum()), device=rows.device) + first.repeat_interleave(degree)
    who_H, row_H = rows.repeat_interleave(degree), other_neighbours[edge_H].long()
    low_H, high_H = own_offsets[row_H].long(), own_offsets[row_H + 1].long()
    for _ in range(len(own_neighbours).bit_length()):  # bisection, in all lists at once
        middle_H = (low_H + high_H) // 2
        before_H = (low_H < high_H) & (own_neighbours[middle_H.clamp(max=len(own_neighbours) - 1)] < who_H)
        low_H, high_H = torch.where(before_H, middle_H + 1, low_H), torch.where(before_H, high_H, middle_H)
    place_H, _ = (row_H * span + low_H - own_offsets[row_H]).sort()
    of_row_H = place_H // span
    rank_H = torch.arange(len(place_H), device=rows.device) - torch.searchsorted(of_row_H, of_row_H)
    return place_H - rank_H
