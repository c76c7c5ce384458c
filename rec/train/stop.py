"""Signal or STOP file -> a flag that the ranks agree on at a step boundary; the end by force, if that takes too long.

Python runs the handler of a signal only when its main thread is back in the interpreter, and a thread that waits for
other ranks may never be. So a thread of its own reads the signals from a pipe, keeps the time, and forces the end.
"""

import faulthandler
import math
import os
import select
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn, Self

from rec.config.tree import Train
from rec.train.status import Status

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
FORCED = 1
"""Exit code of an end by force."""
APART = 5.0
"""Seconds in which a further signal is still the same request: scheduler, terminal and launcher each pass it on."""
LOOK_EVERY = 0.5
"""Seconds between looks for the file: run folders lie on network disks."""
LAST_WORDS = 5.0
"""Seconds for what is said and written at an end by force; the disk may be what hangs."""
STDERR = 2
"""Its number, which stays where `sys.stderr` is replaced."""
WAKE, CLOSE = b"\xfe", b"\xff"
"""No signals have these numbers."""


def stop_file(folder: Path) -> Path:
    """The file whose presence stops a run."""
    return folder / "STOP"


class Stop:
    """Whether this process was asked to stop: listens from its construction until it is left."""

    def __init__(self) -> None:
        self.grace = Train.grace
        self._born = time.monotonic()
        self._asked = self._stepping = False
        self._status: Status | None = None
        self._next_look = 0.0
        self._ear, self._mouth = os.pipe()
        os.set_blocking(self._mouth, False)
        self._fd_before = signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        self._guard = threading.Thread(target=self._watch_time, name="stop", daemon=True)
        self._guard.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Gives the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        os.write(self._mouth, CLOSE)
        self._guard.join()
        faulthandler.cancel_dump_traceback_later()
        os.close(self._ear)
        os.close(self._mouth)

    @property
    def asked(self) -> bool:
        """Whether a signal came or, on the first rank, the file is there. Once asked, always asked."""
        if self._status is not None and self._status.first and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_EVERY
            self._asked = self._asked or stop_file(self._status.file.parent).exists()
        return self._asked

    def watch(self, status: Status, *, grace: float, restarted: bool) -> None:
        """Looks for the file of a run from now on, and writes into its status if the end has to be forced.

        A file older than this process stopped the run before it, and is removed: whoever starts a run means it to run.
        After a restart by the launcher itself none is removed, since nobody took the request back.
        """
        self.grace, self._status = grace, status
        os.write(self._mouth, WAKE)  # the time left may be another now
        file = stop_file(status.file.parent)
        if status.first and not restarted and file.exists() and _age(file) > time.monotonic() - self._born:
            file.unlink()

    def steps_begin(self) -> None:
        """From now on a request is heeded at the end of a step; before, at the end of a stage of loading."""
        self._stepping = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _watch_time(self) -> None:
        first, asked_at = "", math.inf
        while True:
            left = asked_at + self.grace - time.monotonic()
            if first:
                _end_without_python(max(left, 0) + LAST_WORDS)
            if not select.select([self._ear], [], [], max(left, 0) if first else None)[0]:
                self._force(f"{self.grace:g} seconds after {first}")
            for byte in os.read(self._ear, 64):
                if byte == CLOSE[0]:
                    return
                if byte in SIGNALS and not first:
                    first, asked_at = signal.Signals(byte).name, time.monotonic()
                    self._say(first)
                elif byte in SIGNALS and time.monotonic() - asked_at > APART and not self._is_over():
                    self._force(f"by {signal.Signals(byte).name} after {first}")

    def _is_over(self) -> bool:
        """Whether the run has said its last word, so that a launcher's signal to the last of its processes is late."""
        return self._status is not None and self._status.ended

    def _say(self, name: str) -> None:
        _end_without_python(self.grace + LAST_WORDS)  # before anything that may hang
        if self._status is None or self._status.first:
            how = f"by force at a second signal, or in {self.grace:g} seconds"
            when = (
                "after this step or the next" if self._stepping else "before the first step, so that nothing is begun"
            )
            print(f"{name}: stopping {when}; {how}", file=sys.stderr, flush=True)

    def _force(self, why: str) -> NoReturn:
        _end_without_python(LAST_WORDS)
        print(f"ended by force, {why}; the same command goes on from what was saved", file=sys.stderr, flush=True)
        if self._status is not None:
            self._status.end("failed", FORCED)
        os._exit(FORCED)


def _end_without_python(seconds: float) -> None:
    """Arms the end of the process, with FORCED and a traceback of every thread, even if no Python runs any more."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)


def _age(file: Path) -> float:
    """Seconds since a file was touched, by the clock of its own disk."""
    with tempfile.NamedTemporaryFile(dir=file.parent) as now:
        return os.stat(now.name).st_mtime - file.stat().st_mtime
