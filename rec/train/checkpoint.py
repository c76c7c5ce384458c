"""What survives: written beside, checksummed, renamed; the newest whole one counts, and only if it is this run's.

checkpoints/step-00000500/
  model.safetensors  optimizer.safetensors  state.json      what was saved
  COMMITTED                                                 size and SHA-256 of each file; written last
checkpoints/best                                            name of the best checkpoint
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rec.errors import CheckpointError

MARKER = "COMMITTED"


class Checkpoints:
    """The checkpoints of one run folder. Only the first rank commits."""

    def __init__(self, root: Path, *, keep: int) -> None:
        self.root, self.keep = root, keep

    def commit(self, step: int, write: Callable[[Path], None], *, best: bool) -> Path:
        """Makes `step-N` out of what `write` puts into a folder: all of it, or nothing of it.

        Args:
            step: optimizer steps done.
            write: fills an empty folder.
            best: whether this is the best checkpoint so far.

        Raises:
            CheckpointError: if the disk refuses; older checkpoints are untouched.
        """
        folder = self.root / f"step-{step:08d}"
        beside = folder.with_suffix(".tmp")
        try:
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            write(beside)
            files = sorted(path for path in beside.iterdir() if path.is_file())
            marker = {path.name: {"size": path.stat().st_size, "sha256": _digest(path)} for path in files}
            (beside / MARKER).write_text(json.dumps(marker, indent=1))
            for path in [*files, beside / MARKER, beside]:
                _sync(path)
            if folder.exists():  # the same step once more: the old one stays until the new one is there
                folder.rename(folder.with_suffix(".old"))
            beside.rename(folder)
            shutil.rmtree(folder.with_suffix(".old"), ignore_errors=True)
            if best:
                self.mark_best(step)
            _sync(self.root)
        except (OSError, SafetensorError) as error:  # the latter is how a full disk looks through safetensors
            shutil.rmtree(beside, ignore_errors=True)
            reason = getattr(error, "strerror", None) or error
            raise CheckpointError(
                f"cannot save {folder}: {reason}; earlier checkpoints are intact: make room and start again"
            ) from error
        self._prune()
        return folder

    def newest(self, report: Callable[[str], None], *, before: int | None = None) -> Path | None:
        """The newest whole checkpoint; None where there is none at all.

        Args:
            report: told about every damaged checkpoint that is passed over.
            before: only checkpoints of earlier steps than this count.

        Raises:
            CheckpointError: if there are checkpoints but each is damaged.
        """
        for aside in self.root.glob("step-????????.old"):  # left by a kill between the two renamings of `commit`
            if aside.with_suffix("").exists():
                shutil.rmtree(aside)
            else:
                aside.rename(aside.with_suffix(""))
        folders = sorted(self.root.glob("step-????????"), reverse=True)
        if before is not None:
            folders = [folder for folder in folders if int(folder.name.removeprefix("step-")) < before]
        for folder in folders:
            fault = damage(folder)
            if fault is None:
                return folder
            report(f"{folder} is damaged ({fault}) and is passed over")
        if folders:
            raise CheckpointError(
                f"every checkpoint in {self.root} is damaged; restore one, or remove the folder to start from scratch"
            )
        return None

    def best(self) -> Path | None:
        """The best checkpoint, if one was marked and is there."""
        pointer = self.root / "best"
        folder = self.root / pointer.read_text().strip() if pointer.is_file() else None
        return folder if folder is not None and folder.is_dir() else None

    def mark_best(self, step: int) -> None:
        """Points `best` to the checkpoint of a step."""
        _replace_text(self.root / "best", f"step-{step:08d}")

    def _prune(self) -> None:
        kept = sorted(self.root.glob("step-????????"))[-self.keep :]
        for folder in self.root.glob("step-????????"):
            if folder not in kept and folder != self.best():
                shutil.rmtree(folder)


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    marker = folder / MARKER
    if not marker.is_file():
        return f"no {MARKER}"
    try:
        files: dict[str, Any] = json.loads(marker.read_text())
    except ValueError:
        return f"{MARKER} is torn"
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["size"]:
            return f"{name} has {path.stat().st_size} bytes instead of {expected['size']}"
        if _digest(path) != expected["sha256"]:
            return f"{name} has another checksum"
    return None


def digest_of(folder: Path, name: str) -> str:
    """SHA-256 of a file of a committed checkpoint, as its marker says."""
    return str(json.loads((folder / MARKER).read_text())[name]["sha256"])


def require_same(saved: Mapping[str, Any], current: Mapping[str, Any], folder: Path) -> None:
    """Raises CheckpointError unless the identity of a saved run is that of the current one, naming what differs."""
    for key in sorted(saved.keys() | current.keys()):
        if saved.get(key) != current.get(key):
            raise CheckpointError(
                f"{key} is {current.get(key)!r} but {folder} was trained with {saved.get(key)!r}; "
                "give the old value back, or another name=... for a new run"
            )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace_text(path: Path, text: str) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_text(text + "\n")
    _sync(beside)
    beside.replace(path)
