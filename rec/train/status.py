"""RUN/status.json: where a run stands, for scripts. The exit code of a launcher does not tell.

{"state": "running" | "stopped" | "done" | "failed",
 "step":  optimizer steps in the newest checkpoint,
 "steps": of the whole run,
 "code":  exit code of the first rank, null while it runs,
 "time":  of writing, seconds since 1970}

stopped means: asked to, and everything up to `step` is saved. A run that was ended by force, since it did not stop in
time, has failed, as has one that met an error; what `step` says is saved all the same. A run killed with SIGKILL can
write nothing and still says running.
"""

import json
import sys
import time
from pathlib import Path
from typing import Literal

from rec.files import replace_text

State = Literal["running", "stopped", "done", "failed"]


class Status:
    """Written by the first rank, as soon as there is a run folder."""

    def __init__(self, folder: Path, *, steps: int, first: bool) -> None:
        self.file, self.steps, self.first = folder / "status.json", steps, first
        self.ended = False
        self.step = self._before()
        self.running()

    def running(self, step: int | None = None) -> None:
        """The run goes on, and `step` optimizer steps are in its newest checkpoint: as many as before, if not given."""
        self.step = self.step if step is None else step
        self._write("running", None)

    def end(self, state: State, code: int) -> None:
        """The last word, with the exit code that follows; any later one is not heard."""
        if not self.ended:
            self.ended = True
            self._write(state, code)

    def _write(self, state: State, code: int | None) -> None:
        if not (self.first and self.file.parent.is_dir()):
            return
        now = round(time.time(), 3)
        content = {"state": state, "step": self.step, "steps": self.steps, "code": code, "time": now}
        try:
            replace_text(self.file, json.dumps(content) + "\n")
        except OSError as error:  # a full disk ends no training; a script sees by the time that this is old
            print(f"cannot write {self.file}: {error.strerror}", file=sys.stderr)

    def _before(self) -> int:
        """What an earlier start of the run has saved."""
        try:
            return int(json.loads(self.file.read_text())["step"]) if self.first and self.file.is_file() else 0
        except (ValueError, KeyError):  # another program's file, or one edited by hand: it is replaced
            return 0
