"""How many edges of the train graph lie between the user and item tokens of a batch, counted up to five.

Breadth-first search from many nodes at once: which of 64 sources have reached a node are the bits of one number, so
that a hop is one pass over the edges for all of them (MS-BFS, Then et al., VLDB 2014). Nothing of the size of nodes^2
is made, and a hub is a row like any other.

Most pairs need no search: in a prompt of a user and his own items they are an edge, or have the user in common.
"""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from rec.data.dataset import IntArray
from rec.graph.graph import Graph

FURTHEST = 5
"""Hops that are counted."""
FAR = FURTHEST + 1
"""Stands for more of them, for nodes with no path between them, and for tokens that are no nodes."""

BITS = 64
EDGES = 1 << 20
"""Edges that are looked at together: 8 MB."""

Bits = npt.NDArray[np.uint64]
Distances = npt.NDArray[np.int8]


class Side(NamedTuple):
    """Nodes of one kind, users or items, and their neighbours, all of the other kind."""

    offsets: IntArray
    """(nodes + 2) int64; node 0 has none."""
    neighbours: IntArray
    """(edges) int32, ascending within a node."""

    def degrees(self, nodes: IntArray) -> IntArray:
        """(n) numbers of neighbours; a node that the graph does not know has none."""
        known = np.where(nodes < len(self.offsets) - 1, nodes, 0)
        degrees: IntArray = self.offsets[known + 1] - self.offsets[known]
        return degrees

    def lists(self, nodes: IntArray) -> tuple[IntArray, IntArray]:
        """(n) nodes -> places of all their neighbours, one node after the other, and (n) numbers of them."""
        degrees = self.degrees(nodes)
        ends = np.cumsum(degrees)
        start = self.offsets[np.where(degrees > 0, nodes, 0)] - (ends - degrees)
        return np.repeat(start, degrees) + np.arange(degrees.sum()), degrees

    def reach(self, nodes: IntArray, other: Bits) -> Bits:
        """(n) nodes, (other nodes) bits -> (n) bits that any neighbour of the node has."""
        found = np.zeros(len(nodes), np.uint64)
        some = np.flatnonzero(self.degrees(nodes))
        piece = np.cumsum(self.degrees(nodes[some])) // EDGES
        for part in np.split(some, np.flatnonzero(np.diff(piece)) + 1):
            if len(part):
                place, degrees = self.lists(nodes[part])
                begins = np.cumsum(degrees) - degrees
                found[part] = np.bitwise_or.reduceat(other[self.neighbours[place]], begins)
        return found

    def reach_all(self, other: Bits) -> Bits:
        """(other nodes) bits -> (nodes + 1) bits that any neighbour of the node has: as `reach`, along the lists."""
        found = np.zeros(len(self.offsets) - 1, np.uint64)
        some = np.flatnonzero(np.diff(self.offsets))
        piece = self.offsets[some] // EDGES
        for part in np.split(some, np.flatnonzero(np.diff(piece)) + 1):
            if len(part):
                first, stop = self.offsets[part[0]], self.offsets[part[-1] + 1]
                found[part] = np.bitwise_or.reduceat(other[self.neighbours[first:stop]], self.offsets[part] - first)
        return found

    def joined(self, nodes: IntArray, others: IntArray) -> npt.NDArray[np.bool_]:
        """(n) nodes and (n) of the other kind -> (n) whether there is an edge, by bisection of all lists at once."""
        degrees = self.degrees(nodes)
        low = np.where(degrees > 0, self.offsets[np.where(degrees > 0, nodes, 0)], 0)
        high = low + degrees
        end, most = high, int(degrees.max(initial=0))
        for _ in range(most.bit_length()):
            middle = (low + high) // 2
            below = (low < high) & (self.neighbours[np.minimum(middle, len(self.neighbours) - 1)] < others)
            low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
        return (low < end) & (self.neighbours[np.minimum(low, len(self.neighbours) - 1)] == others)


class Edges(NamedTuple):
    """The train graph from both sides."""

    users: Side
    items: Side

    @classmethod
    def of(cls, graph: Graph) -> Self:
        return cls(Side(graph.user_offsets, graph.user_items), Side(graph.item_offsets, graph.item_users))


def hops(edges: Edges, user_BL: IntArray, item_BL: IntArray) -> Distances:
    """Rows of the users and items at each place, 0 where there is none -> (B, L, L) int8 hops, 0 .. FAR.

    No place has both. It is symmetric, and of two tokens of one node the distance is 0.
    """
    node_BL = np.asarray(item_BL, np.int64) - np.asarray(user_BL, np.int64)  # users below 0, items above
    near = _in_the_prompt(edges, node_BL)
    batch, left, right = np.nonzero((near == FAR) & (node_BL != 0)[:, :, None] & (node_BL != 0)[:, None])
    half = left < right
    batch, left, right = batch[half], left[half], right[half]
    if len(batch):
        nodes, place = np.unique(np.stack([node_BL[batch, left], node_BL[batch, right]]), return_inverse=True)
        pairs, which = np.unique(place.reshape(2, -1), axis=1, return_inverse=True)
        found = _searched(edges, nodes, pairs)[which.reshape(-1)]
        near[batch, left, right] = near[batch, right, left] = found
    return near


def _in_the_prompt(edges: Edges, node_BL: IntArray) -> Distances:
    """What the tokens of a prompt say themselves: the same node, an edge, a third token that is joined to both."""
    batch, user, item = np.nonzero((node_BL < 0)[:, :, None] & (node_BL > 0)[:, None])
    joined = edges.users.joined(-node_BL[batch, user], node_BL[batch, item])
    edge = np.zeros((*node_BL.shape, node_BL.shape[1]), np.float32)
    edge[batch[joined], user[joined], item[joined]] = 1
    edge += edge.transpose(0, 2, 1)
    near = np.where(edge @ edge > 0, np.int8(2), np.int8(FAR))
    near[edge > 0] = 1
    near[(node_BL[:, :, None] == node_BL[:, None]) & (node_BL != 0)[:, None]] = 0
    return near


def _searched(edges: Edges, nodes: IntArray, pairs: IntArray) -> Distances:
    """(n) distinct nodes, users below 0; (2, p) places in them, of pairs that are no edge -> (p) hops."""
    # the search starts from that end of a pair which more pairs have: a new item in a history starts all of its pairs
    often = np.bincount(pairs.reshape(-1), minlength=len(nodes))
    swap = often[pairs[1]] > often[pairs[0]]
    source, target = np.where(swap, pairs[::-1], pairs)
    found = np.full(len(source), FAR, np.int8)
    sources, number = np.unique(source, return_inverse=True)
    for first in range(0, len(sources), BITS):
        mine = np.flatnonzero((number >= first) & (number < first + BITS))
        starts = nodes[sources[first : first + BITS]]
        found[mine] = _from(edges, starts, (number[mine] - first).astype(np.uint64), nodes[target[mine]])
    return found


def _from(edges: Edges, starts: IntArray, bit: Bits, target: IntArray) -> Distances:
    """(at most 64) nodes; of p pairs the number of the start, and the other node -> (p) hops.

    A hop first asks the targets alone. The rest of the nodes is looked at only where pairs are left that need it, and
    before the last hop of a pair only the neighbours of its target.
    """
    own = np.uint64(1) << np.arange(len(starts), dtype=np.uint64)
    sides = (edges.users, edges.items)
    reached = [np.zeros(len(side.offsets) - 1, np.uint64) for side in sides]
    for kind in (0, 1):
        mine = ((starts > 0) == kind) & (np.abs(starts) < len(reached[kind]))
        reached[kind][np.abs(starts[mine])] = own[mine]  # distinct, so that none is written twice
    found = np.full(len(target), FAR, np.int8)
    end, end_kind = np.abs(target), (target > 0).astype(np.int64)
    same_side = ((starts > 0)[bit.astype(np.int64)] == (target > 0)).astype(np.int64)
    last = np.where(end < np.array([len(bits) for bits in reached])[end_kind], FURTHEST - same_side, 0)
    fresh = [bits.copy() for bits in reached]  # what the last hop has added
    for hop in range(1, FURTHEST + 1):
        before = [bits.copy() for bits in reached]
        for kind in (0, 1):  # an even number of hops ends on the side where it began
            asked = np.flatnonzero((found == FAR) & (hop <= last) & (end_kind == kind) & ((last - hop) % 2 == 0))
            nodes, place = np.unique(end[asked], return_inverse=True)
            reached[kind][nodes] |= sides[kind].reach(nodes, fresh[1 - kind])
            arrived = (reached[kind][nodes][place] >> bit[asked]) & np.uint64(1)
            found[asked[arrived > 0]] = hop
        open_pairs = (found == FAR) & (hop < last)
        if not open_pairs.any():
            break
        for kind, side in enumerate(sides):
            if hop == 1:
                _push(sides[1 - kind], np.flatnonzero(fresh[1 - kind]), fresh[1 - kind], reached[kind])
            elif fresh[1 - kind].any():
                if (open_pairs & (last > hop + 1)).any():
                    reached[kind] |= side.reach_all(fresh[1 - kind])
                else:
                    ends = np.unique(end[open_pairs & (end_kind != kind)])
                    nodes = np.unique(sides[1 - kind].neighbours[sides[1 - kind].lists(ends)[0]])
                    reached[kind][nodes] |= side.reach(nodes, fresh[1 - kind])
        fresh = [now & ~earlier for now, earlier in zip(reached, before, strict=True)]
    return found


def _push(side: Side, nodes: IntArray, bits: Bits, other: Bits) -> None:
    """Hands the bits of a few nodes to their neighbours."""
    places, degrees = side.lists(nodes)
    np.bitwise_or.at(other, side.neighbours[places], np.repeat(bits[nodes], degrees))
