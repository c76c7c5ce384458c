"""One run folder, one job: a second one with the same name ends before it touches anything."""

from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from rec.errors import CheckpointError
from rec.files import lock
from rec.ranks import Ranks

PATIENCE = 30.0
"""Seconds to wait for the lock: that of a job that has just ended, or of a node that died, may take a moment to go."""
OURS = {"lock", "status.json"}
"""All that a start leaves behind that ended before it began."""


class Hold:
    """A lock on the run folder, which is made for it; the first rank has it, for all."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        """
        Raises:
            CheckpointError: if another job has it.
        """
        self.folder, self._made = folder, False
        self._lock: IO[str] | None = None
        ranks.first_only(self._take)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Lets go of the folder, and removes one that was made for nothing: the input was wrong."""
        if self._lock is None:
            return
        with suppress(OSError):  # another job has come in between, and has the folder now
            if self._made and {path.name for path in self.folder.iterdir()} <= OURS:
                (self.folder / "status.json").unlink(missing_ok=True)
                (self.folder / "lock").unlink()
                self.folder.rmdir()
        self._lock.close()

    def _take(self) -> None:
        self._made = not self.folder.exists()
        self._lock = lock(self.folder / "lock", patience=PATIENCE)
        if self._lock is None:
            raise CheckpointError(
                f"another job is training {self.folder}; wait for its end, or choose another name=... for this run"
            )
