"""A user's own DeepSpeed JSON: taken as it is, but for the numbers of the run."""

import dataclasses
import json
from copy import deepcopy
from typing import Any

import pytest

from rec.config.tree import Data, Optim, Run, Train
from rec.data.dataset import Dataset
from rec.errors import ConfigError
from rec.ranks import Ranks
from rec.train.strategies.settings import fill, stage_of
from tests.small import a_run, soft_token

Json = dict[str, Any]

NUMBERS: Json = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}
ADAM: Json = {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}
HALVES: Json = {
    "bf16": {"enabled": "auto"},
    "fp16": {
        "enabled": "auto",
        "loss_scale": 0,
        "loss_scale_window": 1000,
        "initial_scale_power": 16,
        "hysteresis": 2,
        "min_loss_scale": 1,
    },
}
WARMUP: Json = {"warmup_min_lr": "auto", "warmup_max_lr": "auto", "warmup_num_steps": "auto"}
TYPICAL: dict[str, Json] = {
    "zero2 with offload": {
        **HALVES,
        **NUMBERS,
        "optimizer": {"type": "AdamW", "params": {**ADAM, "torch_adam": True, "adam_w_mode": True}},
        "scheduler": {"type": "WarmupLR", "params": WARMUP},
        "zero_optimization": {
            "stage": 2,
            "offload_optimizer": {"device": "cpu", "pin_memory": True},
            "allgather_partitions": True,
            "allgather_bucket_size": 5e8,
            "overlap_comm": True,
            "reduce_scatter": True,
            "reduce_bucket_size": 5e8,
            "contiguous_gradients": True,
            "round_robin_gradients": True,
        },
        "steps_per_print": 2000,
        "wall_clock_breakdown": False,
    },
    "zero3 with all numbers to be chosen": {
        **HALVES,
        **NUMBERS,
        "optimizer": {"type": "Adam", "params": ADAM},
        "scheduler": {
            "type": "WarmupDecayLR",
            "params": {**WARMUP, "total_num_steps": "auto", "warmup_type": "linear", "last_batch_iteration": -1},
        },
        "zero_optimization": {
            "stage": 3,
            "offload_optimizer": {"device": "none", "pin_memory": True},
            "offload_param": {"device": "none", "pin_memory": True},
            "overlap_comm": True,
            "contiguous_gradients": True,
            "sub_group_size": 1e9,
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_max_live_parameters": 1e9,
            "stage3_max_reuse_distance": 1e9,
            "stage3_gather_16bit_weights_on_model_save": "auto",
        },
        "amp": {"enabled": "auto", "opt_level": "auto"},
        "steps_per_print": "auto",
        "wall_clock_breakdown": "auto",
    },
    "zero1, bare": {"zero_optimization": {"stage": 1}},
}


@pytest.fixture
def run(mixed: Dataset, tmp_path) -> Run:
    """Two micro-batches a step on each of two ranks."""
    data = Data(global_batch=12, micro_batch=3, max_items=6)
    return a_run(mixed, tmp_path, soft_token(), data=data, optim=Optim(lr=3e-3, weight_decay=0.01, clip=0.5))


def autos(settings: Any) -> list[Any]:
    """All "auto" in a tree."""
    values = list(settings.values()) if isinstance(settings, dict) else [settings]
    return [value for value in values if value == "auto"] + [
        found for value in values if isinstance(value, dict) for found in autos(value)
    ]


@pytest.mark.parametrize("name", TYPICAL)
def test_a_typical_file_gets_the_numbers_of_the_run_and_keeps_the_rest(run: Run, name: str):
    before = deepcopy(TYPICAL[name])
    settings = fill(TYPICAL[name], run, 2)
    assert before == TYPICAL[name]
    assert not autos(settings)
    assert not {"optimizer", "scheduler", "amp"} & {key for key, section in settings.items() if section}
    assert settings["gradient_clipping"] == 0.5
    # to DeepSpeed every micro-batch is a step of its own
    assert settings["train_micro_batch_size_per_gpu"] == 3
    assert settings["gradient_accumulation_steps"] == 1
    assert "train_batch_size" not in settings
    assert not settings["fp16"]["enabled"]
    assert not settings["bf16"]["enabled"]
    asked, given = before["zero_optimization"], settings["zero_optimization"]
    assert {key: value for key, value in asked.items() if value != "auto"}.items() <= given.items()


@pytest.mark.parametrize("name", TYPICAL)
def test_deepspeed_itself_takes_what_becomes_of_a_typical_file(run: Run, name: str):
    config = pytest.importorskip("deepspeed.runtime.config", reason="install kindling[deepspeed]")
    settings = fill(TYPICAL[name], run, 1)
    parsed = config.DeepSpeedConfig(settings)
    assert parsed.zero_config.stage == TYPICAL[name]["zero_optimization"]["stage"]
    assert parsed.gradient_clipping == 0.5


def test_what_is_unknown_here_is_left_as_it_is(run: Run):
    file: Json = {
        "zero_optimization": {"stage": 2, "something_new": {"deep": [1, "auto"]}},
        "flops_profiler": {"enabled": True, "detailed": False},
        "data_types": {"grad_accum_dtype": "fp32"},
        "a_new_section": {"x": 1},
    }
    settings = fill(file, run, 2)
    assert settings["zero_optimization"]["something_new"] == {"deep": [1, "auto"]}
    assert {key: settings[key] for key in ("flops_profiler", "data_types", "a_new_section")} == {
        key: file[key] for key in ("flops_profiler", "data_types", "a_new_section")
    }


def test_the_runs_own_numbers_may_stand_in_the_file(run: Run):
    file = {
        "train_batch_size": 12,
        "train_micro_batch_size_per_gpu": 3,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 0.5,
        "optimizer": {
            "type": "AdamW",
            "params": {"lr": 3e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "torch_adam": False},
        },
        "zero_optimization": {"stage": 2},
    }
    assert fill(file, run, 2)["train_micro_batch_size_per_gpu"] == 3


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ({"train_batch_size": 16}, r"train_batch_size=16 but data.global_batch is 12; put \"auto\" in the file"),
        ({"train_micro_batch_size_per_gpu": 4}, "train_micro_batch_size_per_gpu=4 but data.micro_batch is 3"),
        ({"gradient_accumulation_steps": 1}, r"=1 but data.global_batch / \(data.micro_batch \* processes\) is 2"),
        ({"gradient_clipping": 1.0}, "gradient_clipping=1.0 but optim.clip is 0.5"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}}, "lr=0.0001 but optim.lr is 0.003"),
        ({"optimizer": {"type": "AdamW", "params": {"eps": 1e-6}}}, "eps=1e-06 but optim.eps is 1e-08"),
        ({"optimizer": {"type": "AdamW", "params": {"weight_decay": 0}}}, "weight_decay=0 but optim.weight_decay is"),
        ({"optimizer": {"type": "Adam", "params": {"betas": [0.8, 0.999]}}}, r"betas=\(0.8, 0.999\) but optim.betas"),
        ({"optimizer": {"type": "Adam", "params": {"betas": 0.9}}}, r"betas=0.9 but optim.betas is"),
        ({"optimizer": {"type": "Lamb"}}, "the optimizer Lamb but a run is trained with AdamW; remove 'optimizer'"),
        ({"optimizer": {"params": {}}}, "the optimizer None but a run is trained with AdamW"),
        ({"optimizer": {"type": "Adam", "params": {"adam_w_mode": False}}}, "optimizer.params.adam_w_mode=False"),
        ({"optimizer": {"type": "Adam", "params": {"amsgrad": True}}}, "amsgrad=True, which the run's AdamW"),
        (
            {"scheduler": {"type": "WarmupLR", "params": {**WARMUP, "warmup_num_steps": 500}}},
            "scheduler.params.warmup_num_steps=500 but the rate follows optim.schedule",
        ),
        ({"fp16": {"enabled": True}}, "enables fp16 but train.precision is fp32"),
        ({"bf16": {"enabled": True}}, "enables bf16 but train.precision is fp32; put \"auto\" in the file"),
        ({"bfloat16": {"enabled": True}}, "enables bf16 but train.precision is fp32"),
        ({"amp": {"enabled": True}}, "enables amp, which a run does not offer; remove it, and set train.precision"),
        ({"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}, "enables torch_autocast"),
        ({"elasticity": {"enabled": True}}, "enables elasticity"),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}, r"to nvme \(offload_param\)"),
        ({"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "nvme"}}}, r"nvme \(offload_optimizer\)"),
        (
            {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu", "ratio": 0.3}}},
            "offload_optimizer.ratio, which needs DeepSpeed's own Adam",
        ),
        ({"zero_optimization": {"stage": 2, "compute_grad_norm": False}}, "compute_grad_norm=false, but a run leaves"),
        ({"bf16": True}, "says bf16=True; give it an object"),
    ],
)  # fmt: skip
def test_what_contradicts_the_run_is_one_error_with_key_both_values_and_remedy(run: Run, file: Json, says: str):
    with pytest.raises(ConfigError, match=says) as caught:
        fill({"zero_optimization": {"stage": 2}, **file}, run, 2)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("precision", "enabled", "own"), [("bf16", "auto", False), ("bf16", False, False), ("bf16", True, True)]
)
def test_deepspeeds_own_bf16_is_used_only_where_the_file_says_so(run: Run, precision: Any, enabled: Any, own: bool):
    run = dataclasses.replace(run, train=Train(precision=precision))
    for key in ("bf16", "bfloat16"):
        file = {"zero_optimization": {"stage": 2}, key: {"enabled": enabled, "check_grad_overflow": False}}
        settings = fill(file, run, 2)
        assert settings["bf16"]["enabled"] is own
        assert "bfloat16" not in settings
        assert settings["bf16"]["check_grad_overflow"] is own  # a step that is not finite is left out at any rate


def test_gradients_in_fp32_beside_bf16_parameters_need_stage_2(run: Run):
    run = dataclasses.replace(run, train=Train(precision="bf16"))
    file = {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
    with pytest.raises(ConfigError, match=r"data_types.grad_accum_dtype.*; choose zero_optimization.stage=2"):
        fill({**file, "zero_optimization": {"stage": 1}}, run, 2)
    assert fill({**file, "zero_optimization": {"stage": 2}}, run, 2)["data_types"] == file["data_types"]


@pytest.mark.parametrize("stage", [0, 4, None, "2", "auto", True, 2.0])
def test_a_stage_that_is_none_is_an_error(stage: Any):
    with pytest.raises(ConfigError, match=r"mine.json: zero_optimization.stage is .*; choose 1, 2 or 3 \(without ZeRO"):
        stage_of({"zero_optimization": {"stage": stage}}, "mine.json")


@pytest.mark.parametrize("zero", [{}, {"zero_optimization": {}}, {"zero_optimization": None}])
def test_a_missing_stage_is_an_error(zero: Json):
    with pytest.raises(ConfigError, match=r"zero_optimization.stage is None"):
        stage_of(zero, "mine.json")


def test_what_deepspeed_refuses_is_the_users_to_mend(run: Run):
    zero = pytest.importorskip("rec.train.strategies.zero", reason="install kindling[deepspeed]")
    settings = fill({"zero_optimization": {"stage": 2, "stage2_bucket": 5}}, run, 1)
    with pytest.raises(ConfigError, match=r"DeepSpeed refuses its file: .*stage2_bucket") as caught:
        zero.Zero(Ranks(), "fp32", settings)
    assert len(str(caught.value).splitlines()) == 1
    assert json.dumps(settings)  # untouched by the attempt
