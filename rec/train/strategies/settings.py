"""DeepSpeed's JSON, with the numbers that the run owns put in.

A number that the run owns may say "auto" in the JSON, be absent, or be the same; another number is an error, since one
of the two would be ignored. Any other "auto" means DeepSpeed's own default. The rest is DeepSpeed's, taken as it is.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rec.config.tree import Run
from rec.errors import ConfigError

AUTO = "auto"
QUANTIZED = ("zero_quantized_weights", "zero_quantized_nontrainable_weights", "zero_quantized_gradients")
BUCKET = 50_000_000
"""Elements in a bucket of exchanged gradients where the JSON leaves it to us: 200 MB. DeepSpeed's own value is 2 GB."""
OURS = ("optimizer", "scheduler", "bfloat16", "amp", "train_batch_size")
"""What is looked at here and not passed on. DeepSpeed stumbles over a disabled "amp", and multiplies by itself."""
OF_ADAMW = {"adam_w_mode": True, "bias_correction": True, "amsgrad": False}
"""Switches of DeepSpeed's Adam, with the value that makes it the run's AdamW."""
OF_NO_MEANING = ("torch_adam", "fused")
"""Which program computes the same Adam."""


def stage_of(json: Mapping[str, Any], name: str) -> int:
    """ZeRO's stage, 1 to 3.

    Raises:
        ConfigError: if the JSON that is called `name` has none of these.
    """
    stage = _section(json, "zero_optimization").get("stage")
    if not isinstance(stage, int) or stage not in (1, 2, 3) or isinstance(stage, bool):
        raise ConfigError(
            f"{name}: zero_optimization.stage is {stage!r}; choose 1, 2 or 3 (without ZeRO: --strategy ddp)"
        )
    return stage


def fill(json: Mapping[str, Any], run: Run, world: int) -> dict[str, Any]:
    """The configuration that `deepspeed.initialize` gets.

    Raises:
        ConfigError: if a number differs from the run's, or the file asks for what a run does not offer.
    """
    for key, value, name in _owned(run, world):
        _agree(json, key, value, name)
    _optimizer(_section(json, "optimizer"), run)
    _scheduler(_section(json, "scheduler"))
    _refuse(json)
    rest = {key: value for key, value in json.items() if key not in OURS}
    return {
        **_without_autos(rest),
        **_precision(json, run),
        "zero_optimization": _zero(_section(json, "zero_optimization")),
        # the loop accumulates and divides: to DeepSpeed every micro-batch is one of a step of its own
        "train_micro_batch_size_per_gpu": run.data.micro_batch,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": run.optim.clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }


def _section(json: Mapping[str, Any], key: str) -> dict[str, Any]:
    section = json.get(key)
    if section is not None and not isinstance(section, dict):
        raise ConfigError(f"the DeepSpeed file says {key}={section}; give it an object, see ds_config.json")
    return dict(section or {})


def _owned(run: Run, world: int) -> Iterator[tuple[str, float, str]]:
    """Key of the JSON, the run's number, the run's name for it."""
    data = run.data
    yield "train_micro_batch_size_per_gpu", data.micro_batch, "data.micro_batch"
    yield "train_batch_size", data.global_batch, "data.global_batch"
    accumulation = data.global_batch // (data.micro_batch * world)
    yield "gradient_accumulation_steps", accumulation, "data.global_batch / (data.micro_batch * processes)"
    yield "gradient_clipping", run.optim.clip, "optim.clip"


def _agree(section: Mapping[str, Any], key: str, value: Any, name: str) -> None:
    given = section.get(key, AUTO)
    if given not in (AUTO, value):
        raise ConfigError(
            f"the DeepSpeed file says {key}={given} but {name} is {value}; "
            f'put "auto" in the file, the number belongs to the run'
        )


def _optimizer(section: dict[str, Any], run: Run) -> None:
    """The run's AdamW stands in for a section of the same meaning."""
    if section and str(section.get("type")).lower() not in ("adam", "adamw"):
        raise ConfigError(
            f"the DeepSpeed file asks for the optimizer {section.get('type')} but a run is trained with AdamW; "
            "remove 'optimizer' from the file"
        )
    params, optim = _section(section, "params"), run.optim
    if isinstance(params.get("betas"), list):
        params["betas"] = tuple(params["betas"])
    for key in ("lr", "betas", "eps", "weight_decay"):
        _agree(params, key, getattr(optim, key), f"optim.{key}")
        params.pop(key, None)
    for key, value in params.items():
        if key not in OF_NO_MEANING and value not in (AUTO, OF_ADAMW.get(key)):
            raise ConfigError(
                f"the DeepSpeed file says optimizer.params.{key}={value}, which the run's AdamW does not do; "
                "remove it from the file"
            )


def _scheduler(section: dict[str, Any]) -> None:
    """A scheduler of "auto" alone says that the run decides; a linear warm-up from the first step is the run's, too."""
    for key, value in _section(section, "params").items():
        if value != AUTO and (key, value) not in (("warmup_type", "linear"), ("last_batch_iteration", -1)):
            raise ConfigError(
                f"the DeepSpeed file says scheduler.params.{key}={value} but the rate follows optim.schedule and "
                "optim.warmup; remove 'scheduler' from the file"
            )


def _refuse(json: Mapping[str, Any]) -> None:
    """What would change the batch, the arithmetic or the layout behind the run's back."""
    for key, remedy in (
        ("torch_autocast", "set train.precision=bf16"),
        ("amp", "set train.precision=bf16"),
        ("elasticity", "any number of processes goes on from any checkpoint without it"),
    ):
        if _section(json, key).get("enabled", AUTO) not in (AUTO, False):
            raise ConfigError(f"the DeepSpeed file enables {key}, which a run does not offer; remove it, and {remedy}")


def _precision(json: Mapping[str, Any], run: Run) -> dict[str, Any]:
    """Parameters stay fp32 and the products follow train.precision, unless the file asks for DeepSpeed's own bf16."""
    sections = {"fp16": _section(json, "fp16"), "bf16": _section(json, "bf16") or _section(json, "bfloat16")}
    for key, section in sections.items():
        enabled = section.get("enabled", AUTO)
        if enabled not in (AUTO, False) and run.train.precision != key:
            raise ConfigError(
                f"the DeepSpeed file enables {key} but train.precision is {run.train.precision}; "
                f'put "auto" in the file, or set train.precision={key}'
            )
        sections[key] = {**_without_autos(section), "enabled": enabled not in (AUTO, False)}
    if sections["bf16"]["enabled"]:
        sections["bf16"]["check_grad_overflow"] = True  # the loop counts on it: such a step is left out
        if _section(json, "data_types").get("grad_accum_dtype") == "fp32" and stage_of(json, "the file") == 1:
            raise ConfigError(
                "the DeepSpeed file adds up gradients in fp32 (data_types.grad_accum_dtype) beside bf16 parameters, "
                "which stage 1 does with another optimizer; choose zero_optimization.stage=2"
            )
    return sections


def _zero(section: dict[str, Any]) -> dict[str, Any]:
    defaults = {
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
        "stage3_prefetch_bucket_size": BUCKET,
        "stage3_param_persistence_threshold": 100_000,
    }
    zero = {**defaults, **_without_autos(section)}
    for part in ("offload_optimizer", "offload_param"):
        if _section(zero, part).get("device") == "nvme":
            raise ConfigError(
                f"the DeepSpeed file offloads to nvme ({part}), from where checkpoints cannot be taken here; use cpu"
            )
    for key in ("zero_hpz_partition_size", *QUANTIZED):
        if zero.get(key, False) not in (False, 1):
            raise ConfigError(
                f"the DeepSpeed file sets zero_optimization.{key}, which keeps copies of parameters that a checkpoint "
                "does not reach; remove it"
            )
    if not zero.get("compute_grad_norm", True):
        raise ConfigError(
            "the DeepSpeed file says zero_optimization.compute_grad_norm=false, but a run leaves out a step whose norm "
            "is not finite; remove it"
        )
    if _section(zero, "offload_optimizer").get("ratio", 1) != 1:
        raise ConfigError(
            "the DeepSpeed file sets zero_optimization.offload_optimizer.ratio, which needs DeepSpeed's own Adam; "
            "remove it"
        )
    return zero


def _without_autos(section: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without what is left to be chosen, at any depth: DeepSpeed has a default for each."""
    return {
        key: _without_autos(value) if isinstance(value, dict) else value
        for key, value in section.items()
        if value != AUTO
    }
