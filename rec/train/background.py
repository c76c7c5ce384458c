"""One piece of work at a time, beside training."""

import threading
from collections.abc import Callable


class Background:
    """A thread that does not keep the process alive, should it hang."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def failed(self) -> bool:
        """Whether the last work has ended with an error, which `wait` will raise."""
        return self._error is not None

    def start(self, act: Callable[[], None]) -> None:
        """Begins `act`; nothing else may be under way."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(act,), name="save", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until there is no work under way; raises what the last one raised, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def finish(self, seconds: float) -> Exception | None:
        """Waits so long at most; what the work has ended with."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._error

    def _run(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self._error = error
