"""Files that are there whole or not at all, and locks that end with their process."""

import fcntl
import os
from pathlib import Path
from typing import IO


def replace_text(file: Path, text: str) -> None:
    """Gives a file another content: written beside, brought to the disk, renamed. Whoever reads sees old or new."""
    beside = file.with_name(file.name + ".tmp")
    with beside.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)


def sync(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_to_others(file: Path) -> None:
    """Gives a file the permissions that its folder has: safetensors makes files that only their owner can read."""
    file.chmod(file.parent.stat().st_mode & 0o666)


def lock(file: Path) -> IO[str] | None:
    """An open file that no other process can lock while this one has it open; None if another has it.

    The system lets go of it when the process ends, however it ends.
    """
    handle = file.open("a", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle
