"""Relations between tokens as a bias of attention: learned for each kind of relation, or a constant of the distance."""

from collections.abc import Mapping
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn

from rec.nn.attention import Bias

PAPER = (6 / 11, 1.0, 4 / 11, 3 / 11, 2 / 11, 1 / 11, 0.0)
"""R at a distance of 0, 1, ... 5 hops, and beyond."""


class LearnedBias(nn.Module):
    """A table (ids, heads) for every kind of relation; the bias of a pair is the sum over the kinds.

    All start at zero, where the model is the one without relations.

    Args:
        sizes: kind -> number of its ids.
        heads: of a layer.
        layers: with tables of their own; 1 serves all layers with the same.
    """

    def __init__(self, sizes: Mapping[str, int], heads: int, layers: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.tables = nn.ParameterDict(
            {kind: nn.Parameter(torch.zeros(size, layers * heads)) for kind, size in sizes.items()}
        )

    def forward(self, ids: Mapping[str, Tensor]) -> Bias:
        """Kind -> (B, T, T) ids, or (T, T) -> (B, heads, T, T), or one such tensor for each layer.

        A few kinds are made one first: the sum of their tables for all combinations is small, and a pair then takes one
        look into it instead of one for each kind.
        """
        bias = sum_of_tables([self._combined(group, ids) for group in _groups(self.tables)])
        parts = bias.split(self.heads, 1)
        return parts if len(parts) > 1 else bias

    def _combined(self, kinds: list[str], ids: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(R, combinations) sums of the tables of some kinds, R = layers x heads, and (B, T, T) combinations."""
        table: Tensor | None = None
        code: Tensor | None = None
        for kind in kinds:
            values = self.tables[kind].float().t()
            table = values if table is None else (table[:, :, None] + values[:, None]).flatten(1)
            code = ids[kind].int() if code is None else torch.add(ids[kind], code, alpha=values.shape[1])
        assert table is not None
        assert code is not None
        return table, code


COMBINATIONS = 4096
"""Columns of a combined table at most: what stays in the nearest cache at a few heads."""


def _groups(tables: nn.ParameterDict) -> list[list[str]]:
    """The kinds in their order, in groups with few combinations."""
    groups: list[list[str]] = [[]]
    for kind in tables:
        if groups[-1] and prod(len(tables[one]) for one in (*groups[-1], kind)) > COMBINATIONS:
            groups.append([])
        groups[-1].append(kind)
    return groups


class _Sum(torch.autograd.Function):
    """out[b, r, q, k] = sum over groups g of table_g[r, code_g[b, q, k]]."""

    @staticmethod
    def forward(ctx: Any, codes: list[Tensor], *tables: Tensor) -> Tensor:
        ctx.codes, ctx.columns = codes, [table.shape[1] for table in tables]
        shape = codes[0].shape
        total: Tensor | None = None
        for code, table in zip(codes, tables, strict=True):
            part = table.index_select(1, code.flatten())
            total = part if total is None else total.add_(part)
        assert total is not None
        return total.view(len(total), *shape).transpose(0, 1).contiguous()  # once, and not in each layer

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        gradient = gradients[0].transpose(0, 1).reshape(gradients[0].shape[1], -1)
        sums = [_sums(gradient, code.flatten(), columns) for code, columns in zip(ctx.codes, ctx.columns, strict=True)]
        return None, *sums


def sum_of_tables(groups: list[tuple[Tensor, Tensor]]) -> Tensor:
    """[(R, columns) table, (B, T, T) or (T, T) column numbers] -> (B, R, T, T) sums, at least one with a B."""
    codes = torch.broadcast_tensors(*(code for _, code in groups))
    return cast(Tensor, _Sum.apply([code.contiguous() for code in codes], *(table for table, _ in groups)))


def _sums(gradient_RN: Tensor, code_N: Tensor, columns: int) -> Tensor:
    """(R, columns) sums of the gradients of each code, in fp64 or in an order that is always the same.

    On a CPU this takes a tenth of the time of an embedding's backward pass; on a GPU it would add in any order.
    """
    if gradient_RN.device.type == "cpu":
        sums = torch.zeros(len(gradient_RN), columns, dtype=torch.float64)
        sums.scatter_add_(1, code_N.long().expand_as(gradient_RN), gradient_RN.double())
        return sums.to(gradient_RN.dtype)
    dense = torch.ops.aten.embedding_dense_backward
    return cast(Tensor, dense(gradient_RN.t().contiguous(), code_N, columns, -1, False).t())
