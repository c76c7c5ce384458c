"""DeepSpeed's JSON, with the numbers that the run owns put in.

A number that the run owns may say "auto" in the JSON, be absent, or be the same; another number is an error, since one
of the two would be ignored. Everything else in the file is DeepSpeed's and is taken as it is.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from rec.config.tree import Run
from rec.errors import ConfigError

AUTO = "auto"
BUCKET = 50_000_000
"""Elements in a bucket of exchanged gradients where the JSON leaves it to us: 200 MB. DeepSpeed's own value is 2 GB."""


def fill(json: Mapping[str, Any], run: Run, world: int) -> dict[str, Any]:
    """The configuration that `deepspeed.initialize` gets.

    Raises:
        ConfigError: if a number differs from the run's, or the file asks for what a run does not offer.
    """
    settings = deepcopy(dict(json))
    micro = run.data.micro_batch
    for key, value, name in _owned(run, world):
        _agree(settings, key, value, name)
    _optimizer(settings, run)
    _scheduler(settings)
    _precision(settings, run)
    zero = _zero(settings)
    return {
        **settings,
        "zero_optimization": zero,
        # the loop accumulates and divides: to DeepSpeed every micro-batch is one of a step of its own
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": 1,
        "train_batch_size": micro * world,
        "gradient_clipping": run.optim.clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }


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


def _optimizer(settings: dict[str, Any], run: Run) -> None:
    """The run's AdamW stands in for a section of the same meaning."""
    section = settings.pop("optimizer", None)
    if section is None:
        return
    if section.get("type", "").lower() not in ("adam", "adamw"):
        raise ConfigError(
            f"the DeepSpeed file asks for the optimizer {section.get('type')} but a run is trained with AdamW; "
            "remove 'optimizer' from the file"
        )
    params, optim = section.get("params", {}), run.optim
    for key, value in (("lr", optim.lr), ("weight_decay", optim.weight_decay), ("eps", optim.eps)):
        _agree(params, key, value, f"optim.{key}")
    _agree(
        {"betas": tuple(params["betas"])} if isinstance(params.get("betas"), list) else {},
        "betas",
        optim.betas,
        "optim.betas",
    )


def _scheduler(settings: dict[str, Any]) -> None:
    """A scheduler of "auto" alone says that the run decides."""
    section = settings.pop("scheduler", None)
    values = (section or {}).get("params", {}).values()
    if any(value != AUTO for value in values):
        raise ConfigError(
            f"the DeepSpeed file has a scheduler ({section.get('type')}) but the rate follows optim.schedule; "
            "remove 'scheduler' from the file"
        )


def _precision(settings: dict[str, Any], run: Run) -> None:
    """Parameters stay fp32 and the products follow train.precision, unless the file asks for DeepSpeed's own bf16."""
    for key in ("fp16", "bf16"):
        section = dict(settings.get(key, {}))
        enabled = section.get("enabled", AUTO)
        if enabled is True and run.train.precision != key:
            raise ConfigError(
                f"the DeepSpeed file enables {key} but train.precision is {run.train.precision}; "
                f'put "auto" in the file, or set train.precision={key}'
            )
        settings[key] = {**section, "enabled": enabled is True}


def _zero(settings: Mapping[str, Any]) -> dict[str, Any]:
    zero = dict(settings["zero_optimization"])
    defaults = {
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
        "stage3_prefetch_bucket_size": BUCKET,
        "stage3_param_persistence_threshold": 100_000,
    }
    zero |= {key: value for key, value in defaults.items() if zero.get(key, AUTO) == AUTO}
    for part in ("offload_optimizer", "offload_param"):
        if zero.get(part, {}).get("device") == "nvme":
            raise ConfigError(
                f"the DeepSpeed file offloads to nvme ({part}), from where checkpoints cannot be taken here; use cpu"
            )
    left = [key for key, value in zero.items() if value == AUTO]
    if left:
        raise ConfigError(f"the DeepSpeed file leaves zero_optimization.{left[0]} to be chosen; give it a value")
    return zero
