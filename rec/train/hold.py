"""One run folder, one job: a second one with the same name ends before it touches anything."""

from pathlib import Path
from typing import IO, Self

from rec.errors import CheckpointError
from rec.files import lock
from rec.ranks import Ranks


class Hold:
    """A lock on the run folder, from the time that there is one; the first rank has it, for all."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        """
        Raises:
            CheckpointError: if another job has it.
        """
        self.folder = folder
        self._lock: IO[str] | None = None
        ranks.first_only(self._take_what_is_there)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def take(self) -> None:
        """Makes the folder, and has it. On the first rank only."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._lock is not None:
            return
        self._lock = lock(self.folder / "lock")
        if self._lock is None:
            raise CheckpointError(
                f"another job is training {self.folder}; wait for its end, or choose another name=... for this run"
            )

    def _take_what_is_there(self) -> None:
        if self.folder.is_dir():
            self.take()
