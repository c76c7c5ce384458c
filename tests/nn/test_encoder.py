"""The encoder against its equations, written down anew for one sequence in double precision."""

import math

import torch
from torch import Tensor

from rec.nn.dropout import Keys
from rec.nn.encoder import Encoder

B, T, D, HEADS = 3, 6, 12, 3


def _encoder(dropout: float = 0.0, layers: int = 2) -> Encoder:
    torch.manual_seed(3)
    encoder = Encoder(D, layers=layers, heads=HEADS, positions=9, dropout=dropout, keys=Keys()).double()
    with torch.no_grad():  # norms and biases start as constants, which would hide where they enter
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) / 5)
    return encoder


def _norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    deviation = x - x.mean()
    return deviation / (deviation.square().mean() + 1e-5).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _reference(encoder: Encoder, sequence_TD: Tensor) -> Tensor:
    """Place by place and head by head, as the paper writes it."""
    w = {name: value.detach() for name, value in encoder.named_parameters()}
    states = [vector + w["position.weight"][place] for place, vector in enumerate(sequence_TD)]
    for layer in range(len(encoder.blocks)):
        at = f"blocks.{layer}"
        normed = [_norm(state, w, f"{at}.attention_norm") for state in states]
        projections = [w[f"{at}.query_key_value.weight"] @ x + w[f"{at}.query_key_value.bias"] for x in normed]
        attended = []
        for place in range(len(states)):
            heads = []
            for head in range(HEADS):
                own = slice(head * D // HEADS, (head + 1) * D // HEADS)
                query = projections[place][:D][own]
                keys = [projections[other][D : 2 * D][own] for other in range(place + 1)]
                values = [projections[other][2 * D :][own] for other in range(place + 1)]
                weight = [math.exp(float(query @ key) / math.sqrt(D / HEADS)) for key in keys]
                heads.append(sum(a / sum(weight) * value for a, value in zip(weight, values, strict=True)))
            attended.append(w[f"{at}.attention_out.weight"] @ torch.cat(heads) + w[f"{at}.attention_out.bias"])
        states = [state + branch for state, branch in zip(states, attended, strict=True)]
        for place, state in enumerate(states):
            inner = w[f"{at}.inner.weight"] @ _norm(state, w, f"{at}.inner_norm") + w[f"{at}.inner.bias"]
            states[place] = state + w[f"{at}.inner_out.weight"] @ inner.clamp(min=0) + w[f"{at}.inner_out.bias"]
    return torch.stack([_norm(state, w, "norm") for state in states])


def test_states_are_those_of_the_equations():
    encoder, inputs_BTD = _encoder(), torch.randn(B, T, D, dtype=torch.float64)
    for states_TD, sequence_TD in zip(encoder(inputs_BTD), inputs_BTD, strict=True):
        torch.testing.assert_close(states_TD, _reference(encoder, sequence_TD), rtol=1e-10, atol=1e-10)


def test_no_state_sees_what_comes_later():
    encoder, inputs_BTD = _encoder(), torch.randn(B, T, D, dtype=torch.float64)
    changed_BTD = inputs_BTD.clone()
    changed_BTD[:, 4:] = torch.randn(B, T - 4, D, dtype=torch.float64)
    before, after = encoder(inputs_BTD), encoder(changed_BTD)
    torch.testing.assert_close(before[:, :4], after[:, :4], rtol=0, atol=1e-12)
    assert not torch.isclose(before[:, 4:], after[:, 4:]).all()


def test_each_dropout_draws_a_mask_of_its_own_and_none_in_evaluation():
    encoder = _encoder(dropout=0.3, layers=2)
    drops = [encoder.drop, *(drop for block in encoder.blocks for drop in (block.drop_attention, block.drop_inner))]
    assert sorted(drop.salt for drop in drops) == list(range(5))
    encoder.drop.keys.key_B = torch.arange(B)
    inputs_BTD = torch.randn(B, T, D, dtype=torch.float64)
    assert not torch.equal(encoder(inputs_BTD), encoder.eval()(inputs_BTD))
    encoder.drop.keys.key_B = None
    assert torch.equal(encoder(inputs_BTD), encoder(inputs_BTD))
