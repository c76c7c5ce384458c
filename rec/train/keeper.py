"""A run and its folder: what is written at the start, what is restored, what is saved."""

import dataclasses
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rec.config.load import dump, to_values
from rec.config.tree import Run
from rec.data.dataset import Dataset
from rec.errors import CheckpointError
from rec.models.base import Recommender
from rec.models.saved import publish, published_digest
from rec.ranks import Ranks
from rec.train.checkpoint import Checkpoints, digest_of, require_same
from rec.train.engine import Engine
from rec.train.progress import Progress
from rec.train.status import Status

FREE = {"data": ("micro_batch", "prefetch"), "model": ("backbone.gradient_checkpointing", "backbone.source")}
"""What may differ on resume among the groups that make a run's identity: it changes speed, not the curve."""


def identity(run: Run, dataset: Dataset) -> dict[str, Any]:
    """Dotted key -> value of everything that makes two runs the same experiment."""
    groups = {name: to_values(getattr(run, name)) for name in ("model", "data")}
    flat = {
        f"{group}.{key}": value
        for group, values in groups.items()
        for key, value in _flatten(values).items()
        if key not in FREE[group]
    }
    choice = {"eval.select": run.eval.select, "eval.filter_seen": run.eval.filter_seen}
    return {**flat, **choice, "seed": run.seed, "dataset fingerprint": dataset.fingerprint}


class Keeper:
    """Keeps one run: restores it, saves it, publishes its best model. The first rank writes."""

    def __init__(self, run: Run, dataset: Dataset, ranks: Ranks, status: Status) -> None:
        self.run, self.dataset, self.ranks, self.status = run, dataset, ranks, status
        self.identity = identity(run, dataset)
        self.checkpoints = Checkpoints(run.folder / "checkpoints", keep=run.train.keep)
        self.newest = ranks.first_only(self._begin)

    def restore(self, engine: Engine) -> Progress:
        """Puts the newest checkpoint into the engine; a fresh start where there is none."""
        if self.newest is None:
            return Progress()
        progress = self._read(self.newest, engine)
        self.ranks.first_only(lambda: self._settle(engine.bare, progress))
        return progress

    def take_back(self, engine: Engine, *, before: int) -> int | None:
        """Puts parameters and moments of the newest checkpoint of a step before `before` into the engine.

        Returns:
            The step that had changed them last; None if no such checkpoint is whole, and nothing is changed.
        """
        older = self.ranks.first_only(lambda: self.checkpoints.newest(print, before=before))
        return None if older is None else self._read(older, engine).changed

    def _read(self, folder: Path, engine: Engine) -> Progress:
        engine.restore(load_file(folder / "model.safetensors"), load_file(folder / "optimizer.safetensors"))
        return Progress(**json.loads((folder / "state.json").read_text())["progress"])

    def save(self, engine: Engine, progress: Progress, *, best: bool) -> None:
        """Commits a checkpoint, and publishes it as the run's model if it is the best."""
        model, moments = engine.state()

        def commit() -> None:
            self.checkpoints.commit(
                progress.step, lambda folder: self._write(folder, model, moments, progress), best=best
            )
            self._settle(engine.bare, progress)
            self.status.running(progress.step)

        self.ranks.first_only(commit)

    def _settle(self, model: Recommender, progress: Progress) -> None:
        """Makes the mark of the best checkpoint and `RUN/model` what the newest checkpoint says, if they are not.

        They follow a commit; a run that was killed in between settles them when it goes on.
        """
        if progress.best is None:
            return
        best = self.checkpoints.root / f"step-{progress.best_step:08d}"
        if best.is_dir() and self.checkpoints.best() != best:
            self.checkpoints.mark_best(progress.best_step)
        weights = digest_of(best, "model.safetensors") if best.is_dir() else None
        if weights is not None and published_digest(self.run) != weights:
            about = {"step": progress.best_step, self.run.eval.select: progress.best, "sha256": weights}
            publish(self.run, model, best / "model.safetensors", self.dataset, about)

    def _begin(self) -> Path | None:
        """Checks the run folder against the run, and writes down what runs, with which versions."""
        folder = self.run.folder
        newest = self.checkpoints.newest(print)
        if newest is not None:
            if self.run.train.resume == "never":
                raise CheckpointError(f"train.resume is never, but {folder} has checkpoints; choose another name=...")
            require_same(json.loads((newest / "state.json").read_text())["identity"], self.identity, newest)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.yaml").write_text(dump(self.run), encoding="utf-8")
        (folder / "versions.json").write_text(json.dumps(versions(), indent=1))
        return newest

    def _write(self, folder: Path, model: dict[str, Tensor], moments: dict[str, Tensor], progress: Progress) -> None:
        save_file({name: value.contiguous() for name, value in model.items()}, folder / "model.safetensors")
        save_file({name: value.contiguous() for name, value in moments.items()}, folder / "optimizer.safetensors")
        state = {"progress": dataclasses.asdict(progress), "identity": self.identity, "run": to_values(self.run)}
        (folder / "state.json").write_text(json.dumps(state, indent=1))


def versions() -> dict[str, str]:
    """What the numbers of a run depend on besides its configuration."""
    packages = ("kindling", "torch", "transformers", "accelerate", "numpy", "datasets", "pyarrow")
    installed = {name: importlib.metadata.version(name) for name in packages if _is_installed(name)}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {"python": platform.python_version(), "device": device, **installed}


def _is_installed(package: str) -> bool:
    return bool(list(importlib.metadata.distributions(name=package)))


def _flatten(values: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": leaf for inner, leaf in _flatten(value).items()}
        else:
            flat[key] = value
    return flat
