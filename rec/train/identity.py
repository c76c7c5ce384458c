"""What makes a run this run and no other, and what its numbers depend on besides."""

import importlib.metadata
import platform
from typing import Any

import torch

from rec.config.load import flatten, to_values
from rec.config.tree import Run
from rec.data.dataset import Dataset

FREE = {"data": ("micro_batch", "prefetch"), "model": ("backbone.gradient_checkpointing", "backbone.source")}
"""What may differ on resume among the groups that make a run's identity: it changes speed, not the curve."""

SCHEMA = 2
"""Of what a checkpoint holds, and of what its numbers mean: one more whenever code of before could not go on."""


def identity(run: Run, dataset: Dataset) -> dict[str, Any]:
    """Dotted key -> value of everything that makes two runs the same experiment."""
    groups = {name: to_values(getattr(run, name)) for name in ("model", "data")}
    flat = {
        f"{group}.{key}": value
        for group, values in groups.items()
        for key, value in flatten(values).items()
        if key not in FREE[group]
    }
    choice = {"eval.select": run.eval.select, "eval.filter_seen": run.eval.filter_seen}
    fixed = {"seed": run.seed, "dataset fingerprint": dataset.fingerprint, "checkpoint schema": SCHEMA}
    return {**flat, **choice, **fixed}


def versions() -> dict[str, str]:
    """What the numbers of a run depend on besides its configuration."""
    packages = ("kindling", "torch", "transformers", "accelerate", "deepspeed", "numpy", "datasets", "pyarrow")
    installed = {name: importlib.metadata.version(name) for name in packages if _is_installed(name)}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {"python": platform.python_version(), "device": device, **installed}


def _is_installed(package: str) -> bool:
    return bool(list(importlib.metadata.distributions(name=package)))
