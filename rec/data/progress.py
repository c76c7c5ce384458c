"""How far a long job is: a bar on a terminal, else a line now and then."""

import sys
import time
from typing import IO, Self

from tqdm import tqdm

SECONDS = 10.0
"""Between two lines where there is no terminal."""


class Progress:
    """Progress of one job through named stages, on standard error."""

    def __init__(self, stream: IO[str] | None = None):
        self._stream = stream or sys.stderr
        self._bar: tqdm[None] | None = None
        self._said = time.monotonic()
        self._began = self._said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stage(self, name: str) -> None:
        """A stage without a known length begins."""
        self.close()
        if self._stream.isatty():
            self._bar = tqdm(total=100, desc=name, file=self._stream, leave=False, bar_format="{desc}: {elapsed}")

    def reading(self, share: float, rows: int) -> None:
        """So much of the log is read."""
        if self._stream.isatty():
            if self._bar is None:
                self._bar = tqdm(total=100, desc="reading", unit="%", file=self._stream, leave=False)
            self._bar.n = round(100 * share)
            self._bar.set_postfix_str(f"{rows:,} rows")
        elif (now := time.monotonic()) - self._said >= SECONDS:
            self._said = now
            print(f"reading: {share:.0%}, {rows:,} rows, {now - self._began:.0f} s", file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
