"""What makes a run this run and no other, and what its numbers depend on besides."""

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any

import torch

from rec.config.load import flatten, to_values
from rec.config.tree import Run
from rec.data.dataset import Dataset
from rec.models import graph_of

FREE = {
    "data": ("micro_batch", "prefetch"),
    "model": ("backbone.gradient_checkpointing", "backbone.source", "shard_tables"),
}
"""What may differ on resume among the groups that make a run's identity: it changes speed, not the curve.

A backbone's source may be another path; what lies there has to be the same language model.
"""

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
    choice: dict[str, Any] = {"eval.select": run.eval.select, "eval.filter_seen": run.eval.filter_seen}
    if run.eval.users:  # figures of other users cannot say which checkpoint is the best
        choice["eval.users"] = run.eval.users
    if run.init_from is not None:
        choice["init_from"] = str(run.init_from)
    fixed = {"seed": run.seed, "dataset fingerprint": dataset.fingerprint, "checkpoint schema": SCHEMA}
    return {**flat, **_language_model(run), **_graph(run, dataset), **choice, **fixed}


def changes(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """A line for every key of which a run goes on with another value than it had, "goes on with optim.lr=1 (was 2)".

    What is not in a run's identity may be changed on the way; nobody should do so without noticing.

    Args:
        saved: the configuration as a checkpoint has it, nested plain values.
        current: that of now, likewise.
    """
    before, now = flatten(saved), flatten(current)
    return [
        f"goes on with {key}={_shown(key, now)} (was {_shown(key, before)})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) or (key in before) != (key in now)
    ]


def _shown(key: str, values: Mapping[str, Any]) -> str:
    if key not in values:
        return "nothing"
    return values[key] if isinstance(values[key], str) else json.dumps(values[key])


def _language_model(run: Run) -> dict[str, Any]:
    """What is said where the backbone comes from; not what this version of Transformers makes of it."""
    wanted = getattr(run.model, "backbone", None)
    if wanted is None:
        return {}
    from rec.nn import backbone  # and Transformers with it, which other recommenders start without

    values = flatten(backbone.values_at_source(wanted))
    return {f"the backbone's {key}": value for key, value in values.items()}


def _graph(run: Run, dataset: Dataset) -> dict[str, Any]:
    graph = graph_of(run, dataset)
    return {} if graph is None else {"graph fingerprint": graph.fingerprint}


def top_of_graph(run: Run, dataset: Dataset) -> int | None:
    """The `--top` that the run's graph was made with; None where it reads none."""
    graph = graph_of(run, dataset)
    return None if graph is None else int(graph.manifest["options"]["top"])


def versions() -> dict[str, str]:
    """What the numbers of a run depend on besides its configuration."""
    computing = ("kindling", "torch", "transformers", "accelerate", "deepspeed", "cut-cross-entropy")
    packages = (*computing, "numpy", "datasets", "pyarrow")
    installed = {name: importlib.metadata.version(name) for name in packages if _is_installed(name)}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {"python": platform.python_version(), "device": device, **installed}


def _is_installed(package: str) -> bool:
    return bool(list(importlib.metadata.distributions(name=package)))
