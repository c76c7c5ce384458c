"""The mean over layers of vectors that go to and fro between two sides of a graph, S e being the next layer of e.

A joins users and items only, so that one side of the result needs one side of every second layer: the mean over layers
of the items is, by Horner's rule, L products with alternate halves of A,

    (L + 1) e_items = x_items + S_iu (x_users + S_ui (x_items + ...)).

S is symmetric: the gradient goes back through the same products, nothing of the forward pass is kept, and A lies in
memory twice (by user and by item) and never a third time, transposed.

*Cost.* Next to the products, a pass over a table costs little in memory that is in use and eight times as much in new
memory, whose pages the system has to clear. So the values of S are multiplied out, once in a step and a number for each
edge, and the product adds layer 0: no table is made that is not the result of a product.

N rows of one side, M of the other, E edges, D width.
"""

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Edges(NamedTuple):
    """The edges of one side: row n is joined to rows neighbours[offsets[n] : offsets[n + 1]] of the other side."""

    offsets: Tensor
    """(rows + 1) int32, or int64 from 2^31 edges on."""
    neighbours_E: Tensor
    """Rows of the other side, of the same type, ascending within a row."""

    @property
    def rows_E(self) -> Tensor:
        """The row of each edge, int32."""
        return self.spread(torch.arange(len(self.offsets) - 1, dtype=torch.int32, device=self.offsets.device))

    def spread(self, value_N: Tensor) -> Tensor:
        """A value for each row -> (E) that of the row of each edge."""
        return value_N.repeat_interleave(self.offsets.diff(), output_size=len(self.neighbours_E))


class Half(NamedTuple):
    """One half of S, into one side."""

    edges: Edges
    values_E: Tensor
    """float32: (d_row d_neighbour)^(-1/2), or what edge dropout makes of it; 0 where the user is hidden."""


def mean_over_layers(own_ND: Tensor, other_MD: Tensor, to_own: Half, to_other: Half, layers: int) -> Tensor:
    """(N, D) vectors of one side, from layer 0 of that side and of the other, (M, D); all fp32, one layer or more."""
    mean: Tensor = _MeanOverLayers.apply(own_ND, other_MD, to_own, to_other, layers)
    return mean


class _MeanOverLayers(torch.autograd.Function):
    """Forward by Horner's rule, and backward, too.

    Of a gradient g, with c = 1 / (L + 1), layer 0 of the own side takes c (g + S S g + ...), that of the other side
    c (S g + S S S g + ...): each is what the other becomes by one product more.
    """

    @staticmethod
    def forward(ctx: Any, own_ND: Tensor, other_MD: Tensor, to_own: Half, to_other: Half, layers: int) -> Tensor:
        ctx.halves, ctx.layers = (to_own, to_other), layers
        sides = [(own_ND, to_own), (other_MD, to_other)]
        vectors, _ = sides[layers % 2]
        for layer in reversed(range(layers)):
            layer_0, half = sides[layer % 2]
            vectors = sum_of_neighbours(*half.edges, half.values_E, vectors, layer_0)
        return vectors.mul_(1 / (layers + 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor | None, ...]:
        to_own, to_other = ctx.halves
        start_ND = gradient_ND * (1 / (ctx.layers + 1))
        own_ND, other_MD = start_ND, sum_of_neighbours(*to_other.edges, to_other.values_E, start_ND)
        for layer in range(1, ctx.layers):
            if layer % 2:
                own_ND = sum_of_neighbours(*to_own.edges, to_own.values_E, other_MD, start_ND)
            else:
                other_MD = sum_of_neighbours(*to_other.edges, to_other.values_E, own_ND)
        return own_ND, other_MD, None, None, None


@torch.library.custom_op("kindling::sum_of_neighbours", mutates_args=())
def sum_of_neighbours(
    offsets: Tensor, neighbours_E: Tensor, values_E: Tensor, vectors_MD: Tensor, start_ND: Tensor | None = None
) -> Tensor:
    """(M, D) vectors -> (N, D): in row n the sum over its edges of value times the neighbour's vector, upon the start.

    An operation of its own, so that a plan can rehearse it on tensors without data.
    """
    rows, columns = len(offsets) - 1, len(vectors_MD)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        matrix = torch.sparse_csr_tensor(offsets, neighbours_E, values_E, (rows, columns), check_invariants=False)
    total = vectors_MD.new_zeros(rows, vectors_MD.shape[1]) if start_ND is None else start_ND.clone()
    return torch.addmm(total, matrix, vectors_MD, out=total)


@sum_of_neighbours.register_fake
def _(
    offsets: Tensor, neighbours_E: Tensor, values_E: Tensor, vectors_MD: Tensor, start_ND: Tensor | None = None
) -> Tensor:
    return vectors_MD.new_empty(len(offsets) - 1, vectors_MD.shape[1])
