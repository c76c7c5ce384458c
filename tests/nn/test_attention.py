"""A bias in the attention of any decoder: against the library's eager attention with an explicit mask."""

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel

from rec.config.tree import Backbone
from rec.errors import ConfigError
from rec.nn import backbone
from rec.nn.attention import require_biased
from rec.nn.dropout import Keys
from tests.small import SHAPES, WIDTH, decoder

FAMILIES = sorted(SHAPES)
HEADS = {"gpt2": 2, "qwen2": 4, "qwen3": 4, "llama": 4}
B, T = 3, 7


def build(architecture: str, *, biased: bool = True, **options: bool) -> nn.Module:
    torch.manual_seed(4)
    source = decoder(architecture, **options)
    shape = backbone.configuration(source)
    return backbone.build(source, shape, dropout=0.0, keys=Keys(), weights=False, biased=biased)


def eager(model: nn.Module, inputs: Tensor, bias: Tensor) -> Tensor:
    """The same weights under Transformers' eager attention, the bias and causality in a 4-D mask."""
    reference = AutoModel.from_config(model.config, attn_implementation="eager")
    reference.load_state_dict(model.state_dict())
    later = torch.ones(T, T).triu(1).bool()
    return reference.to(inputs.dtype)(
        inputs_embeds=inputs, attention_mask=bias.masked_fill(later, torch.finfo(bias.dtype).min)
    ).last_hidden_state


def inputs_of(architecture: str) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    bias = torch.randn(B, HEADS[architecture], T, T, generator=random)
    return torch.randn(B, T, WIDTH, generator=random), bias.requires_grad_()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("architecture", FAMILIES)
def test_states_and_gradients_are_those_of_eager_attention_with_an_explicit_mask(architecture: str, recompute: bool):
    model = build(architecture, gradient_checkpointing=recompute).train()
    inputs, bias = inputs_of(architecture)
    weight = torch.randn(B, T, WIDTH)
    ours = backbone.hidden_states(model, inputs, bias)
    (gradient,) = torch.autograd.grad((ours * weight).sum(), bias)
    theirs = eager(model, inputs, bias)
    (expected,) = torch.autograd.grad((theirs * weight).sum(), bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    assert gradient.abs().amax((0, 2, 3)).min() > 0


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_bias_of_nothing_gives_the_plain_model(architecture: str):
    inputs, bias = inputs_of(architecture)
    with torch.no_grad():
        plain = backbone.hidden_states(build(architecture, biased=False), inputs)
        model = build(architecture)
        torch.testing.assert_close(backbone.hidden_states(model, inputs), plain, rtol=0, atol=0)
        torch.testing.assert_close(backbone.hidden_states(model, inputs, 0 * bias), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_one_bias_for_all_heads_and_one_for_each_layer(architecture: str):
    model = build(architecture)
    inputs, bias = inputs_of(architecture)
    with torch.no_grad():
        shared = backbone.hidden_states(model, inputs, bias[:, :1])
        repeated = backbone.hidden_states(model, inputs, (bias[:, :1].expand_as(bias),) * 2)
        other = backbone.hidden_states(model, inputs, (bias[:, :1], 0 * bias[:, :1]))
    torch.testing.assert_close(shared, repeated, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(shared, other, atol=1e-3)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_what_a_bias_says_of_later_places_is_not_read(architecture: str):
    model = build(architecture)
    inputs, bias = inputs_of(architecture)
    other = torch.where(torch.ones(T, T).triu(1).bool(), torch.full_like(bias, 1e4), bias)
    one = backbone.hidden_states(model, inputs, bias)
    (gradient,) = torch.autograd.grad(one.square().sum(), bias)
    assert torch.equal(one, backbone.hidden_states(model, inputs, other))
    assert not gradient.triu(1).any()


def test_bf16_products_take_a_bias_in_fp32():
    model = build("qwen3").train()
    inputs, bias = inputs_of("qwen3")
    with torch.autocast("cpu", torch.bfloat16):
        ours = backbone.hidden_states(model, inputs, bias)
    weight = torch.randn(B, T, WIDTH)
    (gradient,) = torch.autograd.grad((ours * weight).sum(), bias)
    whole = backbone.hidden_states(model, inputs, bias)
    (expected,) = torch.autograd.grad((whole * weight).sum(), bias)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(ours.float(), whole, rtol=0.1, atol=0.1)
    assert (gradient - expected).norm() < 0.05 * expected.norm()


def test_the_window_of_a_sliding_layer_holds_beside_the_bias():
    config = {**SHAPES["qwen3"], "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0}
    source = Backbone(architecture="qwen3", config=config)
    model = backbone.build(source, backbone.configuration(source), dropout=0.0, keys=Keys(), weights=False, biased=True)
    inputs, bias = inputs_of("qwen3")
    states = backbone.hidden_states(model, inputs, bias)
    (gradient,) = torch.autograd.grad(states.square().sum(), bias)
    assert gradient[:, :, 6, 4:7].all()
    assert not gradient[:, :, 6, :4].any()


def test_a_backbone_that_was_not_built_for_it_refuses_a_bias():
    inputs, bias = inputs_of("gpt2")
    with pytest.raises(AssertionError, match="not built `biased`"):
        backbone.hidden_states(build("gpt2", biased=False), inputs, bias)


def test_a_decoder_that_drops_the_bias_is_refused():
    model = AutoModel.from_config(backbone.configuration(decoder("gpt2")), attn_implementation="sdpa")
    with pytest.raises(ConfigError, match=r"GPT2Model does not hand relations .* set model\.relations to null"):
        require_biased(model, WIDTH, 2)
