"""A node's own copy of a prepared dataset: made by whichever process comes first, and whole or not there."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rec.errors import DatasetError

BLOCK = 1 << 22


def stage(source: Path, scratch: Path) -> Path:
    """The copy of a dataset below `scratch`, made now if it is not there yet.

    Processes and jobs that share the node share the copy. A dataset that has changed, for example by a new feature,
    gets another one, and nothing is taken from whoever reads the old one.

    Raises:
        DatasetError: if `source` is no prepared dataset, or the copy cannot be written or is not what was read.
    """
    if not (source / "dataset.json").is_file():
        raise DatasetError(f"{source} is not a prepared dataset; make it with `kindling prepare SOURCE --out {source}`")
    files = _files(source)
    home = scratch / f"kindling-{os.getuid()}"
    copy = home / hashlib.sha256(repr(files).encode()).hexdigest()[:16]
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _locked(copy.with_suffix(".lock")):
            if not _whole(copy, files):
                _make(source, copy, files)
    except OSError as error:
        raise DatasetError(
            f"cannot copy {source} to {scratch}: {error.strerror}; choose a disk of this node with room, or leave out "
            "--stage"
        ) from None
    return copy


def _files(root: Path) -> dict[str, tuple[int, int]]:
    """Name -> (size in bytes, time of change in ns) of every file of a dataset."""
    found = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Waits until no other process of this node holds the file; a process that dies lets go of it."""
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _whole(copy: Path, files: dict[str, tuple[int, int]]) -> bool:
    """Whether all is there: cleaners of scratch folders take single files. The contents were checked when made."""
    return copy.is_dir() and {name: size for name, (size, _) in _files(copy).items()} == {
        name: size for name, (size, _) in files.items()
    }


def _make(source: Path, copy: Path, files: dict[str, tuple[int, int]]) -> None:
    beside = copy.with_suffix(".tmp")
    for old in (beside, copy):
        if old.exists():
            shutil.rmtree(old)
    for name in files:
        (beside / name).parent.mkdir(parents=True, exist_ok=True)
        _copy(source / name, beside / name)
    beside.rename(copy)


def _copy(source: Path, target: Path) -> None:
    """Raises DatasetError unless the bytes that lie there afterwards are the bytes that were read."""
    read = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(BLOCK):
            read.update(block)
            writer.write(block)
    with target.open("rb") as written:
        if hashlib.file_digest(written, "sha256").digest() != read.digest():
            raise DatasetError(f"{target} is not what was read from {source}; try another disk, or leave out --stage")
