"""Some rows of a log: as readers find them, with how to say where each stands, and once they are checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rec.errors import DatasetError

Role = Literal["user", "item", "time", "rating", "text", "reason", "split"]
ROLES: tuple[Role, ...] = ("user", "item", "time", "rating", "text", "reason", "split")
TEXTS: Mapping[Role, str] = {"text": "review", "reason": "reason"}
"""Role -> what a text of it is called in a dataset."""


@dataclass(frozen=True)
class Raw:
    """Some rows of a log; every column has the same length, and `user` and `item` are always there."""

    columns: Mapping[Role, pa.Array]
    where: Callable[[int], str]
    """Row of this chunk -> file and line, for example `log.csv line 7`."""
    done: float = 0.0
    """Share of the log that is read once this chunk is."""

    @property
    def rows(self) -> int:
        return len(self.columns["user"])


@dataclass(frozen=True)
class Chunk:
    """Checked rows of a log, in input order."""

    user: pa.DictionaryArray
    item: pa.DictionaryArray
    time: npt.NDArray[np.int64] | None
    """Milliseconds since 1970."""
    rating: npt.NDArray[np.float32] | None
    split: pa.DictionaryArray | None
    texts: Mapping[str, pa.Array]
    """Name -> texts, as they were found."""

    @property
    def rows(self) -> int:
        return len(self.user)


@dataclass
class BadLines:
    """What happens to a line that cannot be used: it ends the job, or it is skipped and counted."""

    skip: bool = False
    skipped: int = 0

    def found(self, where: Callable[[], str], what: str, count: int = 1) -> None:
        """Reports `count` lines; `where` is only asked if it must be said."""
        if not self.skip:
            raise DatasetError(f"{where()}: {what}; correct it, or leave such lines out with --on-bad-line skip")
        self.skipped += count


def missing_column(file: Path, role: str, wanted: list[str], present: list[str]) -> DatasetError:
    shown = ", ".join(present[:20]) or "nothing"
    names = " or ".join(f"'{name}'" for name in wanted)
    return DatasetError(
        f"{file} line 1 has no column {names} for the {role} (there: {shown}); name one of them with --{role}-column"
    )
