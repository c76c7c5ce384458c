"""Attention with a bias of the caller's own, for any Hugging Face decoder, through the library's own door.

    attention(t, s) = softmax over s <= t of (q_t . k_s / sqrt(d) + bias(t, s))

Transformers looks an attention function up by name and hands it what the model was called with. The name is one of our
own, so that a model either adds the bias or is refused (`require_biased`): an implementation that does not know the
argument would drop it without a word.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rec.errors import ConfigError

Bias = Tensor | tuple[Tensor, ...]
"""Float (B, 1 or heads, T, T), added to the scaled products of every layer; or one such tensor for each layer.

Query by key, without causality, which is the attention's own. What lies above the diagonal is not read.
"""

NEVER = torch.finfo(torch.bfloat16).min
"""Added where attention is not allowed: a number in every type but fp16, where it is the infinity."""

PLAIN, BIASED = "sdpa", "relation_biased"
"""Names of attention functions in Transformers: its own, and the one of this module."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    relation_bias: Bias | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """(B, heads, T, d) queries, keys and values (of fewer heads, perhaps) -> (B, T, heads, d).

    Without a bias it is Transformers' own "sdpa". With one, which has to be `causal` already, a mask of the library's
    holds, too, as it makes for sliding windows.
    """
    if relation_bias is not None:
        bias = relation_bias[cast(int, module.layer_idx)] if isinstance(relation_bias, tuple) else relation_bias
        allowed, attention_mask = attention_mask, bias.to(query.dtype)
        if allowed is not None:
            attention_mask = attention_mask.masked_fill(~allowed, NEVER)
    taken = _taken.get()
    if taken is not None:
        taken.append(_weights(query, key, attention_mask, scaling))
    learns = relation_bias is not None and cast(Tensor, attention_mask).requires_grad
    if learns and query.device.type == "cpu" and query.dtype == torch.float32:
        assert not dropout, "the house drops by keys; see `rec.nn.dropout`"
        return products(query, key, value, cast(Tensor, attention_mask), scaling), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest)


def products(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float | None) -> Tensor:
    """The same as the matrix products that it is made of: (B, heads, T, d) -> (B, T, heads, d).

    Where a bias learns on a CPU, torch has no fused kernel, and its unfused one looks for queries without any key at
    each call, of which a bias of finite numbers has none: this takes two thirds to three quarters of the time.
    """
    sequences, heads, places, width = query.shape
    groups = (sequences * key.shape[1], -1, width)  # heads that share a key stand below each other
    added = bias.expand(sequences, heads, places, -1).reshape(groups[0], -1, key.shape[2])
    scale = width**-0.5 if scaling is None else scaling
    scores = torch.baddbmm(added, query.reshape(groups), key.reshape(groups).mT, alpha=scale)
    return (scores.softmax(-1) @ value.reshape(groups)).view(query.shape).transpose(1, 2)


@contextmanager
def recorded(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """Within it, every layer of the backbone adds its weights to the list: (B, heads, T, T) fp32, whose rows sum to 1.

    A backbone that knows no bias is led through `attend`, too, which without a bias is the attention that it has.
    """
    model: Any = backbone
    taken: list[Tensor] = []
    own = model.config._attn_implementation
    token = _taken.set(taken)
    model.set_attn_implementation(BIASED)
    try:
        yield taken
    finally:
        model.set_attn_implementation(own)
        _taken.reset(token)


_taken: ContextVar[list[Tensor] | None] = ContextVar("weights that are recorded", default=None)


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """What the fused attention forms and forgets."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1, dtype=torch.float32)


def causal(bias: Bias) -> Bias:
    """The bias, and NEVER for keys that come after their query: once for all layers that share it."""
    if isinstance(bias, tuple):
        return tuple(cast(Tensor, causal(one)) for one in bias)
    return bias.masked_fill(torch.ones(bias.shape[-2:], dtype=torch.bool, device=bias.device).triu(1), NEVER)


def register() -> None:
    """Makes the function known to Transformers under the name BIASED."""
    AttentionInterface.register(BIASED, attend)
    AttentionMaskInterface.register(BIASED, sdpa_mask)


def require_biased(model: nn.Module, width: int, layers: int) -> None:
    """Raises ConfigError unless every layer of a decoder adds a bias: it would learn nothing, and nobody would see it.

    Args:
        model: takes vectors of `width`.
    """
    first = next(model.parameters())
    if first.is_meta:
        return
    inputs_BTH = torch.linspace(-1, 1, 3 * width, device=first.device).sin().view(1, 3, width)
    biases = tuple(torch.zeros(1, 1, 3, 3, device=first.device, requires_grad=True) for _ in range(layers))
    mode = model.training
    with torch.enable_grad():
        states = model.eval()(inputs_embeds=inputs_BTH, relation_bias=causal(biases)).last_hidden_state
        found = torch.autograd.grad((states * inputs_BTH).sum(), biases, allow_unused=True)
    model.train(mode)
    if any(gradient is None or not gradient.any() for gradient in found):
        raise ConfigError(
            f"{type(model).__name__} does not hand relations to the attention of all its layers; "
            "choose for example gpt2, qwen2, qwen3 or llama, or set model.relations to null"
        )


register()
