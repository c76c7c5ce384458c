"""A small causal transformer over vectors (SASRec, Kang and McAuley 2018, section III; arXiv 1808.09781).

    S <- S + Dropout(SelfAttention(LayerNorm(S)))
    F <- S + Dropout(FFN(LayerNorm(S))),   FFN(x) = ReLU(x W_1 + b_1) W_2 + b_2

Deviations from the paper: attention has an output projection, as has become usual with several heads, and its weights
are not dropped. B sequences, T positions, D width.
"""

from itertools import count

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rec.nn.dropout import KeyedDropout, Keys


class Encoder(nn.Module):
    """Positions, `layers` blocks and a last LayerNorm.

    Args:
        dim: D, a multiple of `heads`.
        layers: number of blocks.
        heads: number of attention heads.
        positions: longest sequence that can be read.
        dropout: probability for what the first block reads and for the output of each half of a block.
        keys: see `KeyedDropout`.
    """

    _no_split_modules = ("Block",)  # what strategies gather one at a time, said as Transformers says it

    def __init__(self, dim: int, *, layers: int, heads: int, positions: int, dropout: float, keys: Keys) -> None:
        super().__init__()
        salts = count()
        self.position = nn.Embedding(positions, dim)
        nn.init.normal_(self.position.weight, std=0.02)
        self.drop = KeyedDropout(dropout, next(salts), keys)
        self.blocks = nn.ModuleList(
            Block(dim, heads, KeyedDropout(dropout, next(salts), keys), KeyedDropout(dropout, next(salts), keys))
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, inputs_BTD: Tensor) -> Tensor:
        """(B, T, D) vectors -> (B, T, D) states, each a function of the vectors up to its own place.

        Positions count from the beginning, and sequences are padded on the right, where causality alone keeps padding
        out of every state that is used.
        """
        place_T = torch.arange(inputs_BTD.shape[1], device=inputs_BTD.device)
        states_BTD = self.drop(inputs_BTD + self.position(place_T))
        for block in self.blocks:
            states_BTD = block(states_BTD)
        result: Tensor = self.norm(states_BTD)
        return result


class Block(nn.Module):
    """Causal self-attention and a point-wise feed-forward layer, each behind a LayerNorm and beside a residual."""

    def __init__(self, dim: int, heads: int, drop_attention: KeyedDropout, drop_inner: KeyedDropout) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.inner_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.attention_out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.inner, self.inner_out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.drop_attention, self.drop_inner = drop_attention, drop_inner
        with torch.no_grad():
            for layer in (self.query_key_value, self.attention_out, self.inner, self.inner_out):
                for matrix_DD in layer.weight.split(dim):
                    nn.init.xavier_uniform_(matrix_DD)
                nn.init.zeros_(layer.bias)

    def forward(self, states_BTD: Tensor) -> Tensor:
        states_BTD = states_BTD + self.drop_attention(self.attend(self.attention_norm(states_BTD)))
        inner_BTD = self.inner_out(F.relu(self.inner(self.inner_norm(states_BTD))))
        result: Tensor = states_BTD + self.drop_inner(inner_BTD)
        return result

    def attend(self, states_BTD: Tensor) -> Tensor:
        """softmax(Q K^T / sqrt(D / heads)) V over what is not later, by head."""
        query, key, value = self.query_key_value(states_BTD).unflatten(2, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)  # (B, heads, T, D / heads)
        result: Tensor = self.attention_out(mixed.transpose(1, 2).flatten(2))
        return result
