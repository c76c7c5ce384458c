"""Files that are there whole or not at all, and locks that end with their process."""

import errno
import fcntl
import os
import sys
import time
from pathlib import Path
from typing import IO

NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What network disks say that are mounted without locks: Lustre without `-o flock`, old NFS."""
AGAIN = 0.2
"""Seconds between two tries to get a lock."""


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


def lock(file: Path, *, patience: float = 0.0) -> IO[str] | None:
    """An open file that no other process can lock while this one has it open; None if another has it.

    The system lets go of it when the process ends, however it ends. Where the disk knows no locks, it says so, and
    nothing is kept from anybody.

    Args:
        file: made, with its folder, if it is not there.
        patience: seconds to wait for whoever has it.
    """
    deadline = time.monotonic() + patience
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = file.open("a", encoding="utf-8")
        if _locks(handle) and _is(handle, file):
            return handle
        handle.close()
        if time.monotonic() >= deadline:
            return None
        time.sleep(min(AGAIN, patience))


def _locks(handle: IO[str]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            handle.close()
            raise
        print(f"{handle.name}: this disk knows no locks; see to it yourself that no two jobs share it", file=sys.stderr)
    return True


def _is(handle: IO[str], file: Path) -> bool:
    """Whether the open file is still the one of that name: who had it before may have removed it."""
    return file.exists() and os.path.samestat(os.fstat(handle.fileno()), file.stat())
