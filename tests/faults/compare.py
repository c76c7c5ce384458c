"""What of a finished run has to be as in the run that nothing disturbed."""

import json
import math
from pathlib import Path
from typing import Any

import torch

from rec.config.tree import Run
from rec.files import lock
from rec.train.checkpoint import damage
from rec.train.pieces import Parts

Read = dict[tuple[int, int], list[str]]


def differences(run: Run, whole: Run) -> list[str]:
    """Of a finished run from the whole one, bit for bit; none if nothing was lost.

    Compared are: parameters and moments, the generators of every rank, every measurement, the model published as the
    best, and, of every start, the batches that each rank read and the random numbers that it drew.
    """
    found = [f"{name} differ" for name in unequal(last(run), last(whole))]
    if generators(run) != generators(whole):
        found.append("the generators' states differ")
    if curve(run) != curve(whole):
        found.append("metrics.jsonl differs")
    published = ("model/model.safetensors", "checkpoints/best")
    found += [f"{name} differs" for name in published if content(run, name) != content(whole, name)]
    return [*found, *misread(batches(run), batches(whole)), *unwell(run)]


def content(run: Run, name: str) -> bytes:
    return (run.folder / name).read_bytes()


def last(run: Run) -> Path:
    """The newest checkpoint."""
    return max((run.folder / "checkpoints").glob("step-????????"))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Parameters and moments of a checkpoint, whole."""
    parts = Parts(folder)
    return {key: parts.whole(key) for key in parts.shapes}


def unequal(folder: Path, other: Path) -> list[str]:
    """Names of tensors that are not bit-equal in two checkpoints."""
    ones, others = tensors(folder), tensors(other)
    names = sorted(ones.keys() | others.keys())
    return [name for name in names if not (name in ones and name in others and torch.equal(ones[name], others[name]))]


def generators(run: Run) -> list[dict[str, Any]]:
    """States of the generators of all ranks in the newest checkpoint."""
    return [json.loads(file.metadata()["random"]) for file in Parts(last(run)).files]


def curve(run: Run) -> list[dict[str, Any]]:
    """Everything measured but time, speed and memory, line by line."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "train/", "valid/")
    return [{name: value for name, value in line.items() if name.startswith(kept)} for line in lines]


def deviations(run: Run, whole: Run) -> tuple[float, float]:
    """The largest relative difference of any loss, and of any other measurement; infinite if they are of other steps.

    Of values below 0.01 it is the difference in hundredths.
    """
    ones, others = curve(run), curve(whole)
    if [line.keys() for line in ones] != [line.keys() for line in others]:
        return math.inf, math.inf
    worst = {False: 0.0, True: 0.0}
    for line, other in zip(ones, others, strict=True):
        for name, value in other.items():
            far = abs(line[name] - value) / max(abs(value), 1e-2)
            is_loss = name.startswith("train/") and name != "train/grad_norm"
            worst[is_loss] = max(worst[is_loss], far)
    return worst[True], worst[False]


def notes(run: Run) -> Path:
    """Where the starts of a run keep their notes: beside its disk, of which they take no room."""
    return run.out.with_name(f"{run.out.name}-notes")


def batches(run: Run) -> dict[str, Read]:
    """Start -> (rank, step) -> digest of the batch, its windows, and what was drawn."""
    read: dict[str, Read] = {}
    for file in sorted(notes(run).glob("*/batches-*.txt")):
        rank = int(file.stem.removeprefix("batches-"))
        lines = [line.split(" ", 1) for line in file.read_text().splitlines()]
        read.setdefault(file.parent.name, {}).update({(rank, int(step)): rest.split(" ") for step, rest in lines})
    return read


def misread(starts: dict[str, Read], whole: dict[str, Read]) -> list[str]:
    """Batches that a start read otherwise than the whole run, and steps that no start has read."""
    (expected,) = whole.values()
    found = [
        f"{start}: rank {rank} got another batch or other random numbers in step {step}"
        for start, read in starts.items()
        for (rank, step), what in read.items()
        if expected[rank, step] != what
    ]
    missing = expected.keys() - {key for read in starts.values() for key in read}
    return [*found, *(f"rank {rank} never read step {step}" for rank, step in sorted(missing))]


def windows(run: Run) -> dict[str, dict[int, list[str]]]:
    """Start -> step -> the windows that all ranks together read, in ascending order of their keys."""
    joined: dict[str, dict[int, list[str]]] = {}
    for start, read in batches(run).items():
        steps = joined.setdefault(start, {})
        for (_, step), (_, keys, *_) in read.items():
            steps[step] = sorted([*steps.get(step, []), *keys.split(",")])
    return joined


def unwell(run: Run) -> list[str]:
    """What is wrong with a run folder whose ranks have ended."""
    found = [f"{path.name} is left" for path in (run.folder / "checkpoints").glob("*.tmp")]
    found += [
        f"{folder.name}: {fault}"
        for folder in (run.folder / "checkpoints").glob("step-????????")
        if (fault := damage(folder)) is not None
    ]
    if json.loads((run.folder / "status.json").read_text())["state"] != "done":
        found.append("status.json does not say done")
    return [*found, *locked(run)]


def locked(run: Run) -> list[str]:
    """Whether anybody still has the run folder."""
    handle = lock(run.folder / "lock")
    if handle is None:
        return ["the run folder is still locked"]
    handle.close()
    return []
