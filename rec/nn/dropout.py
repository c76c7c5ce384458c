"""Dropout whose mask is a function of the sample, not of a generator.

The mask of a window hangs on its key, a hash of (seed, step, window): it does not change with the batch it is in, the
rank it is on, more padding, or a restart. So one and two processes, or an interrupted and a whole run, train alike.
"""

import torch
from torch import Tensor, nn


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
    """(B, count) bool: True with probability 1 - p, a hash of (key, salt, place).

    The hash is the 32-bit finaliser of MurmurHash3 (Appleby 2011) on wrapping int32 arithmetic, whose right shifts
    carry the sign along: hence the masks.
    """
    row = key_B ^ (key_B >> 32) ^ (salt * 0x9E3779B97F4A7C15 & 0x7FFFFFFFFFFFFFFF)
    row = (row & 0x7FFFFFFF).to(torch.int32)
    place = torch.arange(count, dtype=torch.int32, device=key_B.device) * -1640531527  # 2^32 / golden ratio
    x = place ^ row[:, None]
    x ^= (x >> 16) & 0xFFFF
    x *= -2048144789
    x ^= (x >> 13) & 0x7FFFF
    x *= -1028477387
    x ^= (x >> 16) & 0xFFFF
    return x >= int(p * 2**32) - 2**31
