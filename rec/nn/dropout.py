"""Dropout whose mask is a function of the sample, not of a generator.

The mask of a window hangs on its key, a hash of (seed, step, window): it does not change with the batch it is in, the
rank it is on, more padding, or a restart. So one and two processes, or an interrupted and a whole run, train alike.
"""

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from rec.errors import ConfigError


class Keys:
    """Holds the keys of the batch that is passing through the model; shared by its dropout layers."""

    def __init__(self) -> None:
        self.key_B: Tensor | None = None


class KeyedDropout(nn.Module):
    """Zeroes elements with probability `p` and scales the rest by 1 / (1 - p), by the keys of the batch.

    Args:
        p: probability from 0 up to, not including, 1.
        salt: a number of this layer's own, so that layers draw different masks.
        keys: where the model puts the keys before its forward pass.
    """

    def __init__(self, p: float, salt: int, keys: Keys) -> None:
        super().__init__()
        self.p, self.salt, self.keys = p, salt, keys

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> the same shape. Element (t, w) of a row draws the same number at any T."""
        if not self.training or self.p == 0:
            return x
        assert self.keys.key_B is not None, "the model must set the keys of its batch before a training pass"
        return x * (keep(self.keys.key_B, self.salt, x[0].numel(), self.p).view_as(x).to(x.dtype) / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


def keep(key_B: Tensor, salt: int, count: int, p: float) -> Tensor:
    """(B, count) bool: True with probability 1 - p, a hash of (key, salt, place)."""
    place = torch.arange(count, dtype=torch.int32, device=key_B.device) * GOLDEN
    return scrambled(place ^ _row(key_B, salt)[:, None]) >= _bound(p)


def keep_pairs(key: Tensor, left_E: Tensor, right_E: Tensor, p: float) -> Tensor:
    """(E) bool: True with probability 1 - p, a hash of a key () and of a pair of int32 rows."""
    left_E = scrambled(left_E * GOLDEN ^ _row(key, 0))
    return scrambled(left_E ^ right_E * GOLDEN) >= _bound(p)


GOLDEN = -1640531527
"""2^32 / golden ratio, as int32."""


def scrambled(x: Tensor) -> Tensor:
    """int32 -> int32, in place: the 32-bit finaliser of MurmurHash3 (Appleby 2011) on wrapping arithmetic.

    Right shifts carry the sign along: hence the masks.
    """
    x ^= (x >> 16) & 0xFFFF
    x *= -2048144789
    x ^= (x >> 13) & 0x7FFFF
    x *= -1028477387
    x ^= (x >> 16) & 0xFFFF
    return x


def _row(key: Tensor, salt: int) -> Tensor:
    """int64 keys -> int32, of all 64 bits and the salt."""
    row = key ^ (key >> 32) ^ (salt * 0x9E3779B97F4A7C15 & 0x7FFFFFFFFFFFFFFF)
    return (row & 0x7FFFFFFF).to(torch.int32)


def _bound(p: float) -> int:
    """What a share p of all int32 is below."""
    return int(p * 2**32) - 2**31


def hang(model: nn.Module, dropout: float, keys: Keys) -> None:
    """Hangs a KeyedDropout on what the first layer reads, and on the output of every attention and feed-forward block.

    What the first layer reads are the vectors given, with their positions where the architecture adds any.
    """
    blocks = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in ("attn", "self_attn", "mlp")]
    kinds = Counter(name.rpartition(".")[2] for name in blocks)
    if len(kinds) != 2 or len(set(kinds.values())) != 1:  # one attention and one feed-forward block in each layer
        raise ConfigError(
            f"model.dropout: the blocks of {type(model).__name__} are not known to this version; set model.dropout=0"
        )
    first = model.get_submodule(blocks[0].rpartition(".")[0])
    drop_input = _Dropped(KeyedDropout(dropout, salt=0, keys=keys))
    first.register_forward_pre_hook(drop_input.before, with_kwargs=True)
    for place, name in enumerate(blocks):
        model.get_submodule(name).register_forward_hook(_Dropped(KeyedDropout(dropout, place + 1, keys)).after)


class _Dropped:
    """Hooks of a dropout that is no part of the module tree, and so follows the mode of the block it hangs on."""

    def __init__(self, drop: KeyedDropout) -> None:
        self.drop = drop

    def before(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Drops the block's first argument, (B, T, H)."""
        self.drop.training = block.training
        return (self.drop(args[0]), *args[1:]), kwargs

    def after(self, block: nn.Module, args: Any, output: Any) -> Any:
        """Drops the block's output, (B, T, H), alone or first of several."""
        self.drop.training = block.training
        return (self.drop(output[0]), *output[1:]) if isinstance(output, tuple) else self.drop(output)
