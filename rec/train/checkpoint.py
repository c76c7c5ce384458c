"""What survives: written beside, checksummed, renamed; the newest whole one counts, and only if it is this run's.

checkpoints/step-00000500/
  rank-00000-of-00002.safetensors ...     what each rank wrote (rec.train.pieces)
  state.json                              step, best metric, identity, configuration
  COMMITTED                               size and checksum of each file; written last
checkpoints/latest, checkpoints/best      names of the newest and of the best checkpoint
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rec.errors import CheckpointError
from rec.files import replace_text, sync
from rec.ranks import Ranks
from rec.train.checksum import Facts

MARKER = "COMMITTED"
ALONE = Ranks()


class Checkpoints:
    """The checkpoints of one run folder. Only the first rank begins, commits and removes."""

    def __init__(self, root: Path, *, keep: int, keep_every: int) -> None:
        """`keep` of the newest stay, and the best, and those of steps that `keep_every` divides (0: none)."""
        self.root, self.keep, self.keep_every = root, keep, keep_every

    def begin(self, step: int) -> Path:
        """An empty folder beside the checkpoint to be, for all ranks to write into."""
        beside = self.folder(step).with_suffix(".tmp")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True, exist_ok=True)
        return beside

    def commit(self, step: int, files: Mapping[str, Facts], *, best: bool) -> Path:
        """Makes a checkpoint out of what was written since `begin`: all of it, or nothing of it.

        Args:
            step: optimizer steps done.
            files: what every rank says it wrote.
            best: whether this is the best checkpoint so far.

        Raises:
            CheckpointError: if a file is not here as it was written.
            OSError: if the disk refuses.
        """
        folder = self.folder(step)
        beside = folder.with_suffix(".tmp")
        for name, facts in files.items():
            if not (beside / name).is_file() or (beside / name).stat().st_size != facts.size:
                raise CheckpointError(
                    f"{beside / name} was written by another rank but is not to be seen here; "
                    "the run folder must lie on a disk that all nodes share: set out=..."
                )
        replace_text(beside / MARKER, _marked(files))
        sync(beside)
        if folder.exists():  # the same step once more: the old one stays until the new one is there
            folder.rename(folder.with_suffix(".old"))
        beside.rename(folder)
        sync(self.root)
        replace_text(self.root / "latest", folder.name + "\n")
        if best:
            self.mark_best(step)
        return folder

    def abandon(self, step: int) -> None:
        """Gives back the room of a checkpoint that was begun and cannot be committed."""
        shutil.rmtree(self.folder(step).with_suffix(".tmp"), ignore_errors=True)

    def newest(self, report: Callable[[str], None], ranks: Ranks = ALONE, before: int | None = None) -> Path | None:
        """The newest whole checkpoint, of a step less than `before` if that is given; None where there is none.

        Each rank reads its share of the files. A damaged checkpoint is passed over and set aside as NAME.damaged, so
        that it takes no place among those kept.

        Args:
            report: told about every damaged checkpoint.

        Raises:
            CheckpointError: if there are checkpoints but each is damaged, and no others were asked for.
        """
        damaged: list[Path] = []
        for folder in reversed(ranks.first_only(lambda: self._candidates(before))):
            faults = [fault for fault in ranks.gather(damage(folder, ranks.rank, ranks.world)) if fault is not None]
            if not faults:
                ranks.first_only(lambda: self._set_aside(damaged))
                return folder
            if ranks.first:
                report(f"{folder} is damaged ({faults[0]}) and is passed over")
            damaged.append(folder)
        if damaged and before is None:
            raise CheckpointError(
                f"every checkpoint in {self.root} is damaged; restore one, or remove the folder to start from scratch"
            )
        return None

    def _candidates(self, before: int | None) -> list[Path]:
        """What may be a checkpoint, oldest first; what a kill has left is put in order."""
        for aside in self.root.glob("step-*.old"):  # left between the two renamings of `commit`
            if aside.with_suffix("").exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.rename(aside.with_suffix(""))
        for torn in self.root.glob("step-*.tmp") if before is None else ():
            shutil.rmtree(torn, ignore_errors=True)
        return [folder for folder in self._all() if before is None or _step(folder) < before]

    def folder(self, step: int) -> Path:
        """Where the checkpoint of a step lies, or would."""
        return self.root / f"step-{step:08d}"

    def best(self) -> Path | None:
        """The best checkpoint, if one was marked and is there."""
        pointer = self.root / "best"
        folder = self.root / pointer.read_text().strip() if pointer.is_file() else None
        return folder if folder is not None and folder.is_dir() else None

    def mark_best(self, step: int) -> None:
        """Points `best` to the checkpoint of a step."""
        replace_text(self.root / "best", self.folder(step).name + "\n")

    def _all(self) -> list[Path]:
        folders = [folder for folder in self.root.glob("step-*") if folder.name.removeprefix("step-").isdigit()]
        return sorted(folders, key=_step)

    def _set_aside(self, damaged: list[Path]) -> None:
        for folder in damaged:
            shutil.rmtree(folder.with_suffix(".damaged"), ignore_errors=True)
            folder.rename(folder.with_suffix(".damaged"))

    def prune(self) -> None:
        """Removes what need not be kept, after a commit: what was committed is whole and stays, so there is always one.

        What the disk does not let go of, as a network disk does while somebody reads it, is tried again the next time.
        """
        for folder in self._all()[: -self.keep]:
            for_ever = self.keep_every > 0 and _step(folder) % self.keep_every == 0
            if not for_ever and folder != self.best():
                folder.rename(folder.with_suffix(".gone"))  # at once, or not at all
        for left in ("gone", "old", "damaged", "tmp"):  # the last of saves that were killed: none is under way now
            for folder in self.root.glob(f"step-*.{left}"):
                shutil.rmtree(folder, ignore_errors=True)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def damage(folder: Path, rank: int = 0, world: int = 1) -> str | None:
    """What is wrong with a checkpoint, or None; with several ranks, with this one's share of its files."""
    marker = folder / MARKER
    if not marker.is_file():
        return f"no {MARKER}"
    files = _read(marker)
    if files is None:
        return f"{MARKER} is torn"
    stray = {path.name for path in folder.glob("rank-*")} - files.keys()
    if stray:
        return f"{min(stray)} is not part of it"
    for name, expected in list(files.items())[rank::world]:
        try:
            fault = _fault(folder / name, expected)
        except (OSError, ValueError) as error:  # the disk cannot read it, or the marker has a name that none can have
            fault = f"cannot be read: {error}"
        if fault is not None:
            return f"{name} {fault}"
    return None


def _fault(path: Path, expected: Facts) -> str | None:
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != expected.size:
        return f"has {path.stat().st_size} bytes instead of {expected.size}"
    return "has another checksum" if Facts.of(path, expected.kind) != expected else None


def _read(marker: Path) -> dict[str, Facts] | None:
    """What a marker says of each file; None unless it is to the letter what a commit writes."""
    try:
        text = marker.read_text(encoding="utf-8")
        files = {name: Facts.read(facts) for name, facts in json.loads(text).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return files if text == _marked(files) else None


def _marked(files: Mapping[str, Facts]) -> str:
    return json.dumps({name: facts.written() for name, facts in files.items()}, indent=1)


def digest_of(folder: Path) -> str:
    """SHA-256 of a committed checkpoint: of what its marker says of all its files."""
    return hashlib.sha256((folder / MARKER).read_bytes()).hexdigest()


def require_same(saved: Mapping[str, Any], current: Mapping[str, Any], folder: Path, graph: str = "") -> None:
    """Raises CheckpointError unless the identity of a saved run is that of the current one, naming what differs.

    Args:
        saved: the identity in the checkpoint.
        current: that of the run.
        folder: of the checkpoint.
        graph: the command that makes the old graph of the same dataset again, where it is known.
    """
    differing = [key for key in sorted(saved.keys() | current.keys()) if saved.get(key) != current.get(key)]
    if differing:
        told = "; ".join(f"{key} is {_shown(key, current)} but was {_shown(key, saved)}" for key in differing)
        remedy = "give the old values back"
        if graph and differing == ["graph fingerprint"]:
            remedy = f"make the old graph again with `{graph}`"
        raise CheckpointError(f"{folder} is of another run: {told}; {remedy}, or another name=... for a new run")


def _shown(key: str, identity: Mapping[str, Any]) -> str:
    """A value, of a fingerprint as much as other sentences show of it."""
    if key not in identity:
        return "not set"
    value = identity[key]
    return value[:12] if key.endswith("fingerprint") and isinstance(value, str) else repr(value)
