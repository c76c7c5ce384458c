"""Propagation over the edges between users and items (LightGCN, He et al. 2020, arXiv 2002.02126, equations 3 and 4).

    e^(l+1) = S e^(l),   S = D^(-1/2) A D^(-1/2)        e = mean of e^(0) .. e^(L)

A joins users and items only, so that one side of the result needs one side of every second layer: the mean over layers
of the items is, by Horner's rule, L products with alternate halves of A,

    (L + 1) e_items = x_items + S_iu (x_users + S_ui (x_items + ...)).

S is symmetric: the gradient goes back through the same products, nothing of the forward pass is kept, and A lies in
memory twice (by user and by item) and never a third time, transposed.

*Hidden users.* A training position must not read its target through the graph. The users of the whole step are taken
out of it: they neither send nor receive, and all degrees are those of the graph without them. So what an item's vector
says in this step is made of edges of other people only, whatever the window, the micro-batch or the rank: changing,
adding or removing edges of the step's users changes no bit of it. What other people did together is what the graph is
for. A is kept binary and D beside it, so that this costs a product with one column and not a new matrix.

U users, I item rows with padding, E edges, D width.
"""

import warnings
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rec.nn.dropout import keep_pairs


class Edges(NamedTuple):
    """The edges of one side: row n is joined to rows neighbours[offsets[n] : offsets[n + 1]] of the other side."""

    offsets: Tensor
    """(rows + 1) int32, or int64 from 2^31 edges on."""
    neighbours_E: Tensor
    """Rows of the other side, of the same type, ascending within a row."""

    @property
    def rows_E(self) -> Tensor:
        """The row of each edge."""
        degrees, each = self.offsets.diff(), torch.arange(len(self.offsets) - 1, device=self.offsets.device)
        return each.repeat_interleave(degrees, output_size=len(self.neighbours_E))


class Half(NamedTuple):
    """One half of S, into one side: diag(scale) A, to be multiplied by what the other side's scale has multiplied."""

    edges: Edges
    values_E: Tensor
    """float32: 1, or what edge dropout makes of it."""
    scale_N1: Tensor
    """float32 D^(-1/2) of this side; 0 for what has no edges, and for hidden users."""


class Means(NamedTuple):
    """What propagation gives."""

    user_UD: Tensor
    """No rows where they were not wanted."""
    item_ID: Tensor


class Propagation(nn.Module):
    """The graph as a block without parameters, which looks like a function of layer 0 of both sides.

    Args:
        users: edges of the U users.
        items: the same edges by item: I rows, of which row 0 is padding and has none.
        layers: L.
        dropout: probability that a training step leaves an edge out, in both directions; the others count 1 / (1 - p).
    """

    def __init__(self, users: Edges, items: Edges, *, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers, self.dropout = layers, dropout
        for name, tensor in zip(BUFFERS, (*users, *items), strict=True):
            self.register_buffer(name, tensor, persistent=False)
        self._kept: dict[tuple[bool, int, int], Means] = {}
        self.register_load_state_dict_post_hook(lambda *_: self._kept.clear())

    def train(self, mode: bool = True) -> Self:
        """Forgets the vectors that were kept: training changes them, and every evaluation begins and ends here."""
        self._kept.clear()
        return super().train(mode)

    def forward(
        self,
        user_UD: Tensor,
        item_ID: Tensor,
        hidden_S: Tensor | None = None,
        key: Tensor | None = None,
        *,
        want_users: bool = True,
    ) -> Means:
        """The means over layers, fp32. In evaluation they are computed once and kept.

        Args:
            user_UD: layer 0 of the users.
            item_ID: layer 0 of the items.
            hidden_S: users, counted from 0, whom the graph does not show; None hides nobody.
            key: int64 (), on which the edge dropout of a training step hangs.
            want_users: false leaves the users' mean out: half of the work.
        """
        version = (want_users, user_UD._version, item_ID._version)
        keeps = not self.training and not torch.is_grad_enabled() and hidden_S is None
        if keeps and version in self._kept:
            return self._kept[version]
        with torch.autocast(user_UD.device.type, enabled=False):
            to_users, to_items = self.halves(hidden_S, key)
            user_UD, item_ID = user_UD.float(), item_ID.float()
            means = Means(
                mean_over_layers(user_UD, item_ID, to_users, to_items, self.layers) if want_users else user_UD[:0],
                mean_over_layers(item_ID, user_UD, to_items, to_users, self.layers),
            )
        if keeps:
            self._kept[version] = means
        return means

    def has_edges(self, user_B: Tensor) -> Tensor:
        """(B) users, counted from 0 -> (B) bool: whether the graph knows anything of them."""
        offsets = self.get_buffer(BUFFERS[0])
        return offsets[user_B + 1] > offsets[user_B]

    def halves(self, hidden_S: Tensor | None, key: Tensor | None) -> tuple[Half, Half]:
        """S of this step: into the users, and into the items."""
        user_offsets, user_items, item_offsets, item_users = map(self.get_buffer, BUFFERS)
        by_user, by_item = Edges(user_offsets, user_items), Edges(item_offsets, item_users)
        ones_E = torch.ones(len(user_items), device=user_items.device)
        user_U1, item_I1 = (edges.offsets.diff()[:, None].float() for edges in (by_user, by_item))
        if hidden_S is not None:
            visible_U1 = torch.ones_like(user_U1)
            visible_U1[hidden_S] = 0
            user_U1, item_I1 = user_U1 * visible_U1, sum_of_neighbours(*by_item, ones_E, visible_U1)
        to_users, to_items = Half(by_user, ones_E, _power(user_U1)), Half(by_item, ones_E, _power(item_I1))
        if self.training and self.dropout:
            assert key is not None, "the model must give the key of its step to a training pass"
            kept_by_user = keep_pairs(key, by_user.rows_E.int(), user_items.int(), self.dropout)
            kept_by_item = keep_pairs(key, item_users.int(), by_item.rows_E.int(), self.dropout)
            to_users = to_users._replace(values_E=kept_by_user / (1 - self.dropout))
            to_items = to_items._replace(values_E=kept_by_item / (1 - self.dropout))
        return to_users, to_items


BUFFERS = ("user_offsets", "user_items", "item_offsets", "item_users")


def _power(degree_N1: Tensor) -> Tensor:
    """D^(-1/2), with 0 for no edge."""
    return torch.where(degree_N1 > 0, degree_N1.clamp(min=1).rsqrt(), 0)


def mean_over_layers(own_ND: Tensor, other_MD: Tensor, to_own: Half, to_other: Half, layers: int) -> Tensor:
    """The vectors of one side, (N, D), from layer 0 of that side and of the other, (M, D); all fp32."""
    mean: Tensor = _MeanOverLayers.apply(own_ND, other_MD, to_own, to_other, layers)
    return mean


class _MeanOverLayers(torch.autograd.Function):
    """Forward by Horner's rule; backward layer by layer, since S is its own transpose."""

    @staticmethod
    def forward(ctx: Any, own_ND: Tensor, other_MD: Tensor, to_own: Half, to_other: Half, layers: int) -> Tensor:
        ctx.halves, ctx.layers = (to_own, to_other), layers
        sides = [(own_ND, to_own), (other_MD, to_other)]
        vectors, half = sides[layers % 2]
        for layer in reversed(range(layers)):
            scaled = vectors * half.scale_N1
            layer_0, half = sides[layer % 2]
            vectors = torch.addcmul(layer_0, sum_of_neighbours(*half.edges, half.values_E, scaled), half.scale_N1)
        return vectors * (1 / (layers + 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor | None, ...]:
        vectors = gradient_ND * (1 / (ctx.layers + 1))
        sums: list[Tensor | None] = [vectors, None]
        for layer in range(ctx.layers):
            half, following = ctx.halves[layer % 2], ctx.halves[(layer + 1) % 2]
            scaled = vectors * half.scale_N1
            vectors = sum_of_neighbours(*following.edges, following.values_E, scaled).mul_(following.scale_N1)
            summed = sums[(layer + 1) % 2]
            sums[(layer + 1) % 2] = vectors if summed is None else summed + vectors
        own, other = sums
        return own, other, None, None, None


@torch.library.custom_op("kindling::sum_of_neighbours", mutates_args=())
def sum_of_neighbours(offsets: Tensor, neighbours_E: Tensor, values_E: Tensor, vectors_MD: Tensor) -> Tensor:
    """(M, D) vectors -> (N, D): in row n the sum over its edges of value times the neighbour's vector.

    An operation of its own, so that a plan can rehearse it on tensors without data.
    """
    shape = (len(offsets) - 1, len(vectors_MD))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        matrix = torch.sparse_csr_tensor(offsets, neighbours_E, values_E, shape, check_invariants=False)
    return matrix @ vectors_MD


@sum_of_neighbours.register_fake
def _(offsets: Tensor, neighbours_E: Tensor, values_E: Tensor, vectors_MD: Tensor) -> Tensor:
    return vectors_MD.new_empty(len(offsets) - 1, vectors_MD.shape[1])
