"""What a run says: a progress bar or plain lines, and metrics.jsonl. On the first rank only; one schema."""

import json
import math
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from tqdm import tqdm

from rec.files import replace_text

Values = Mapping[str, float]


class Tracker(Protocol):
    """Anything else that wants the measurements."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


class Report:
    """Measures steps and writes them down.

    metrics.jsonl has a line per logged step: {"step", "time" (seconds since 1970), "train/loss", "train/<part>",
    "train/grad_norm", "train/lr", "train/skipped" (steps left out so far), "speed/positions_per_second" (real input
    items, all ranks), "speed/wait_share" (of the time, spent waiting for data), "memory/peak_gib" (of this process)},
    and one per evaluation with its metrics and "valid/users", how many users they are of. A number that is not finite
    is null, since JSON has no other word for it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        steps: int,
        start: int,
        first: bool,
        owed: bool = False,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        """Goes on after `start` steps; what was measured later, or is to be measured again, is dropped.

        Args:
            folder: the run's.
            steps: of the whole run.
            start: steps done.
            first: whether this is the rank that writes.
            owed: whether the evaluation at `start` comes again.
            trackers: get what the file gets.
        """
        self.first, self.trackers = first, trackers
        self.file = folder / "metrics.jsonl"
        self._error: OSError | None = None
        if first:
            folder.mkdir(parents=True, exist_ok=True)
            _forget(self.file, start, owed=owed)
        shown = first and sys.stderr.isatty()
        self.bar = tqdm(total=steps, initial=start, unit="step", disable=not shown, dynamic_ncols=True)
        self.plain = first and not shown
        self.steps = steps
        self._begin()

    def waited(self, seconds: float) -> None:
        """Counts time spent waiting for data."""
        self._waited += seconds

    def advance(self, items: int) -> None:
        """Counts a step of `items` real input positions over all ranks."""
        self._items += items
        self._steps += 1
        self.bar.update()

    def train(self, step: int, values: Values) -> None:
        """Writes the measurements of step number `step`, and the speed since they were last written."""
        seconds = time.perf_counter() - self._since
        speed = {
            "speed/positions_per_second": self._items / seconds,
            "speed/seconds_per_step": seconds / max(1, self._steps),
            "speed/wait_share": self._waited / seconds,
            "memory/peak_gib": peak_memory_gib(),
        }
        self._write(step, {**{f"train/{name}": value for name, value in values.items()}, **speed})
        self.bar.set_postfix(loss=f"{values['loss']:.4f}")
        if self.plain:
            left = (self.steps - step) * seconds / max(1, self._steps)
            self.say(
                f"step {step}/{self.steps}  loss {values['loss']:.4f}  "
                f"{speed['speed/positions_per_second']:,.0f} positions/s  {_clock(left)} left"
            )
        self._begin()

    def evaluation(self, step: int, metrics: Values, *, best: bool) -> None:
        """Writes validation metrics after `step` steps; their time does not count as training speed."""
        self._write(step, {f"valid/{name}": value for name, value in metrics.items()})
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if name != "users")
        of = f" of {many(round(metrics['users']), 'user')}" if "users" in metrics else ""
        self.say(f"step {step}/{self.steps}  valid{of}  {shown}{'  (best)' if best else ''}")
        self._begin()

    def say(self, text: str) -> None:
        """A line for the person who watches, above the progress bar."""
        if self.first:
            self.bar.write(text, file=sys.stderr)

    @property
    def failed(self) -> bool:
        """Whether a measurement could not be written: what is trained after it would have no record."""
        return self._error is not None

    def require_written(self) -> None:
        """Raises the OSError, if there was one, for which a measurement is missing."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.bar.close()
        for tracker in self.trackers:
            tracker.finish()

    def _begin(self) -> None:
        self._since, self._waited, self._items, self._steps = time.perf_counter(), 0.0, 0, 0

    def _write(self, step: int, values: dict[str, float]) -> None:
        if not self.first:
            return
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        line = {"step": step, "time": round(time.time(), 3), **dict.fromkeys(values), **finite}
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
            for tracker in self.trackers:
                tracker.log(finite, step=step)
        except OSError as error:
            if self._error is None:
                self.say(f"cannot write measurements: {error.strerror or error}; stopping")
            self._error = error


def many(count: int, noun: str) -> str:
    """A number of things.

    >>> many(1, "micro-batch"), many(2, "process"), many(1200, "step")
    ('1 micro-batch', '2 processes', '1,200 steps')
    """
    plural = "es" if noun.endswith(("s", "h")) else "s"
    return f"{count:,} {noun}{'' if count == 1 else plural}"


def peak_memory_gib() -> float:
    """Most memory this process ever held, GiB: of the GPU where there is one, else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _forget(file: Path, start: int, *, owed: bool) -> None:
    """Drops lines of what will be done again, so that a resumed run has each point once."""
    if not file.is_file():
        return
    kept = []
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # the run was killed in the middle of its last line
            continue
        again = owed and any(name.startswith("valid/") for name in line)
        if line["step"] < start or (line["step"] == start and not again):
            kept.append(text + "\n")
    replace_text(file, "".join(kept))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
