"""STOP file or signal -> a flag that the ranks agree on at a step boundary."""

import signal
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def stop_file(folder: Path) -> Path:
    """The file whose presence stops a run. Whoever starts the run again means it to run, and it is removed."""
    return folder / "STOP"


class Stop:
    """Raised by a signal to this process, or by a file named STOP in the run folder. A second signal ends at once."""

    def __init__(self, folder: Path) -> None:
        self.file = stop_file(folder)
        self._signalled = False
        self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    @property
    def asked(self) -> bool:
        return self._signalled or self.file.exists()

    def close(self) -> None:
        """Gives the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._signalled = True
