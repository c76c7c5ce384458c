"""What a launch asks for: on the command line, or through the environment of `accelerate launch`."""

import itertools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from rec.errors import ConfigError

if TYPE_CHECKING:
    from rec.config.tree import Run
    from rec.ranks import Ranks
    from rec.train.strategies import Strategy

NAMES = ("single", "ddp", "zero1", "zero2", "zero3", "fsdp2")


def asked(given: str | None, ranks: "Ranks", run: "Run") -> "Strategy":
    """The strategy of this launch. The command line counts where `accelerate launch` says nothing.

    Raises:
        ConfigError: if both say something different, or ask for what a run does not offer.
    """
    from rec.train.strategies import require_offered

    strategy = _asked(given, ranks, run)
    require_offered(strategy.name, run)
    return strategy


def _asked(given: str | None, ranks: "Ranks", run: "Run") -> "Strategy":
    from rec.train.strategies import Strategy

    accelerate = from_accelerate(os.environ, run)
    promised = processes_promised() if "ACCELERATE_MIXED_PRECISION" in os.environ else None
    if promised is not None and ranks.world == 1 < promised:
        raise ConfigError(
            f"`accelerate launch` was asked for {promised} processes but started one, as it does without a word for "
            "distributed_type MULTI_CPU or with --cpu; use a file of configs/accelerate"
        )
    if given is None:
        return accelerate or Strategy("single" if ranks.world == 1 else "ddp")
    if accelerate is not None and given != accelerate.name and named(given) != accelerate:
        raise ConfigError(
            f"--strategy is {given} but the Accelerate file asks for {accelerate.name}; leave one of the two out"
        )
    return accelerate or named(given)


def named(given: str) -> "Strategy":
    """`given` is one of NAMES, or a DeepSpeed JSON file."""
    from rec.train.strategies import Strategy

    if given.endswith(".json"):
        return of_json(read(Path(given)), given)
    if given.startswith("zero") and given in NAMES:
        return Strategy(given, deepspeed={"zero_optimization": {"stage": int(given[-1])}})  # type: ignore[arg-type]
    if given not in NAMES:
        raise ConfigError(f"--strategy is {given}; choose one of {', '.join(NAMES)}, or a DeepSpeed JSON file")
    return Strategy(given)  # type: ignore[arg-type]


def read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} is no JSON ({error}); mend it") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds no JSON object; see ds_config.json for an example")
    return content


def of_json(settings: Mapping[str, Any], name: str) -> "Strategy":
    from rec.train.strategies import Strategy
    from rec.train.strategies.settings import stage_of

    return Strategy(f"zero{stage_of(settings, name)}", deepspeed=settings)  # type: ignore[arg-type]


def from_accelerate(environment: Mapping[str, str], run: "Run") -> "Strategy | None":
    """None where the launcher was another, or its file asks for plain processes."""
    from rec.train.strategies import Strategy

    def on(name: str, default: str = "false") -> bool:
        return environment.get(name, default).lower() in ("true", "1", "yes")

    precision = environment.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", run.train.precision):
        raise ConfigError(
            f"the Accelerate file says mixed_precision: {precision} but train.precision is {run.train.precision}; "
            "remove it from the file, the number belongs to the run"
        )
    if environment.get("ACCELERATE_DYNAMO_BACKEND", "NO").upper() != "NO":
        raise ConfigError(
            "the Accelerate file asks for torch.compile (dynamo_config), which a run does not do; remove it"
        )
    for variable, what in (("MEGATRON_LM", "Megatron-LM"), ("PARALLELISM_CONFIG", "a parallelism_config")):
        if on(f"ACCELERATE_USE_{variable}"):
            raise ConfigError(f"the Accelerate file asks for {what}; use one of configs/accelerate")
    if on("ACCELERATE_USE_DEEPSPEED"):
        return _deepspeed(environment)
    if not on("ACCELERATE_USE_FSDP"):
        return None
    if environment.get("FSDP_VERSION", "1") != "2":
        raise ConfigError("the Accelerate file asks for FSDP1; set fsdp_version: 2")
    if on("FSDP_ACTIVATION_CHECKPOINTING"):
        raise ConfigError(
            "the Accelerate file says fsdp_activation_checkpointing, which belongs to the run; "
            "remove it, and set model.backbone.gradient_checkpointing=true"
        )
    return Strategy(
        "fsdp2",
        reshard_after_forward=on("FSDP_RESHARD_AFTER_FORWARD", "true"),
        offload=on("FSDP_OFFLOAD_PARAMS"),
    )


def processes_promised() -> int | None:
    """How many processes the command line, or the file, of the `accelerate launch` above us asks for.

    It leaves no other trace of that number; None where it cannot be found.
    """
    words: list[str] = psutil.Process().parent().cmdline()
    values: dict[str, str] = dict(itertools.pairwise(word for given in words for word in given.split("=", 1)))
    for option in ("--num_processes", "--num-processes"):
        if values.get(option, "").isdigit():
            return int(values[option])
    named = values.get("--config_file") or values.get("--config-file")
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    file = Path(named or home / "accelerate" / "default_config.yaml")
    found = re.search(r'^\W*num_processes"?:\s*(\d+)', file.read_text(), re.MULTILINE) if file.is_file() else None
    return int(found[1]) if found else None


def _deepspeed(environment: Mapping[str, str]) -> "Strategy":
    """From the JSON that the Accelerate file names, or from the few values that it holds itself."""
    file = environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if file != "none":
        return of_json(read(Path(file)), file)
    zero: dict[str, Any] = {"stage": int(environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", 2))}
    for part in ("optimizer", "param"):
        device = environment.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{part.upper()}_DEVICE", "none")
        if device != "none":
            zero[f"offload_{part}"] = {"device": device}
    settings: dict[str, Any] = {"zero_optimization": zero}
    if (clip := environment.get("ACCELERATE_GRADIENT_CLIPPING", "none")) != "none":
        settings["gradient_clipping"] = float(clip)
    if (accumulation := int(environment.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", 1))) != 1:  # 1 may be its default
        settings["gradient_accumulation_steps"] = accumulation
    return of_json(settings, "the Accelerate file")
