"""Parameter groups, and the rate as a function of the step."""

import pytest
import torch
from torch import nn

from rec.config.tree import Group, Optim
from rec.errors import ConfigError
from rec.train.optim import build_optimizer, rate_at, set_rates
from tests.small import make, soft_token


def _model() -> nn.Module:
    return make(soft_token("gpt2", freeze=("heads.query.*",)), 3, 5)


def _rule_of(model: nn.Module, optim: Optim) -> dict[str, tuple[float, float]]:
    """Parameter name -> (peak rate, weight decay)."""
    by_id = {
        id(parameter): (group["peak"], group["weight_decay"])
        for group in build_optimizer(model, optim).param_groups
        for parameter in group["params"]
    }
    return {name: by_id[id(p)] for name, p in model.named_parameters() if id(p) in by_id}


def test_every_trainable_parameter_is_optimised_once_and_no_frozen_one():
    model = _model()
    groups = build_optimizer(model, Optim(groups={"tables.*": Group(lr=1.0)})).param_groups
    optimised = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(set(optimised)) == len(optimised)
    assert set(optimised) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert id(model.heads.query.weight) not in optimised


def test_matrices_decay_and_vectors_do_not():
    rules = _rule_of(_model(), Optim(weight_decay=0.1))
    assert rules["tables.item.weight"][1] == rules["backbone.h.0.attn.c_attn.weight"][1] == 0.1
    assert rules["backbone.h.0.ln_1.weight"][1] == rules["backbone.h.0.attn.c_attn.bias"][1] == 0.0


def test_the_first_pattern_that_fits_decides_and_null_keeps_the_value_of_optim():
    groups = {"tables.user.*": Group(lr=1e-2), "tables.*": Group(weight_decay=0.0), "backbone.*": Group(lr=1e-5)}
    rules = _rule_of(_model(), Optim(lr=1e-3, weight_decay=0.1, groups=groups))
    assert rules["tables.user.weight"] == (1e-2, 0.1)
    assert rules["tables.item.weight"] == (1e-3, 0.0)
    assert rules["backbone.h.0.attn.c_attn.weight"] == (1e-5, 0.1)
    assert rules["backbone.ln_f.weight"] == (1e-5, 0.0)
    assert rules["heads.item_in.weight"] == (1e-3, 0.1)


def test_a_pattern_that_fits_no_trainable_parameter_is_an_error_that_names_the_parts():
    for pattern in ("table.*", "heads.query.*"):
        with pytest.raises(ConfigError, match=r"fits no trainable parameter; the parts are tables\.\*, heads\.\*"):
            build_optimizer(_model(), Optim(groups={pattern: Group(lr=1.0)}))


def test_rates_of_all_groups_rise_and_fall_together():
    optimizer = build_optimizer(_model(), Optim(lr=1e-3, groups={"tables.*": Group(lr=1e-2)}))
    for share in (0.5, 1.0, 0.25):  # not compounded
        set_rates(optimizer, share)
        assert {group["lr"] / group["peak"] for group in optimizer.param_groups} == {share}


@pytest.mark.parametrize(
    ("optim", "expected"),
    [
        (Optim(schedule="constant"), [1, 1, 1, 1, 1, 1, 1, 1]),
        (Optim(schedule="constant", warmup=4), [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        (Optim(schedule="linear", warmup=4), [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25]),
        (Optim(schedule="linear", final=0.5), [1, 0.9375, 0.875, 0.8125, 0.75, 0.6875, 0.625, 0.5625]),
        # (1 + cos(pi k / 8)) / 2
        (Optim(), [1, 0.961940, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.038060]),
        (Optim(final=0.1, warmup=6), [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 0.55]),
    ],
)
def test_the_rate_follows_its_golden_values(optim: Optim, expected: list[float]):
    assert [rate_at(step, optim, 8) for step in range(8)] == pytest.approx(expected, abs=1e-6)


def test_a_warm_up_longer_than_the_run_only_rises():
    rates = [rate_at(step, Optim(warmup=100), 10) for step in range(10)]
    assert rates == pytest.approx([(step + 1) / 100 for step in range(10)])


def test_one_step_is_that_of_the_published_algorithm():
    """AdamW's first step with bias correction moves each weight by lr * sign(gradient), after decay by lr * wd."""
    model = nn.Linear(2, 2, bias=False)
    before = model.weight.detach().clone()
    optimizer = build_optimizer(model, Optim(lr=0.1, weight_decay=0.5, eps=1e-12))
    set_rates(optimizer, 0.5)
    model.weight.grad = torch.tensor([[3.0, -2.0], [1e-3, -7.0]])
    optimizer.step()
    expected = before * (1 - 0.05 * 0.5) - 0.05 * torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    torch.testing.assert_close(model.weight.detach(), expected)
