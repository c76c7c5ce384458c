"""Where the time of a step goes: some steps under torch's profiler, a trace of them, and one page about it.

`--profile` asks for it. RUN/profile/page.md is for people; RUN/profile/trace.json.gz shows every operation on a
line of time, in ui.perfetto.dev or chrome://tracing.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from rec.files import replace_text

WARM = 3
"""Steps before those that are profiled: the first ones allocate memory and start threads."""
PARTS = (
    *("waiting for data", "forward", "backward", "exchange of losses", "update", "waiting for numbers"),
    *("evaluation", "saving"),
)
"""Of a step, as the loop names them."""
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "scaled_dot_product", "attention")
"""Words of the operations that multiply matrices."""
OPERATIONS = 15
"""That the page lists."""


def part(name: str) -> AbstractContextManager[Any]:
    """Marks what the loop is doing; costs next to nothing where nobody profiles."""
    assert name in PARTS
    return record_function(_label(name))


class Row(NamedTuple):
    """A part of a step, or an operation."""

    name: str
    milliseconds: float
    """Of a step."""
    calls: float
    """In a step."""


class Profiler:
    """Profiles some steps, and writes its files after the last of them, or when the run ends before.

    Args:
        folder: where they go.
        steps: how many steps.
        done: optimizer steps of the run before the first one here.
    """

    def __init__(self, folder: Path, steps: int, done: int) -> None:
        self.folder, self.steps, self.done, self.written = folder, steps, done, False
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        plan = schedule(wait=WARM - 1, warmup=1, active=steps, repeat=1)
        self.profiler = profile(activities=activities, schedule=plan, on_trace_ready=self._write)

    def step(self) -> None:
        """To be called at the end of each step."""
        self.profiler.step()

    @property
    def said(self) -> str:
        """What has come of it, for people."""
        if not self.written:
            return f"not profiled: there were no steps after the first {WARM}"
        return f"where the time of a step went: {self.folder / 'page.md'}"

    def _write(self, profiler: Any) -> None:
        # a GPU has our words, and its kernels, once more; what the host began has their time
        events = [event for event in profiler.key_averages() if event.device_type.name == "CPU"]
        # each step has one; the profiler itself counts one that is only begun, too, where the run ends before the last
        update = next((event for event in events if event.key == _label("update")), None)
        if self.written or update is None:  # the run has ended before the first step that counts
            return
        self.written, steps = True, update.count
        self.folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self.folder / "trace.json.gz"))
        first = self.done + WARM + 1
        title = f"# Steps {first} to {first + steps - 1}: where their time went"
        replace_text(self.folder / "page.md", page(title, steps, events))


@contextmanager
def profiling(folder: Path, steps: int, done: int, *, first: bool) -> Iterator[Profiler | None]:
    """Within it steps are profiled, on the first rank, if there are any to be; see `Profiler`."""
    if not (steps and first):
        yield None
        return
    profiler = Profiler(folder, steps, done)
    with profiler.profiler:
        yield profiler


def page(title: str, steps: int, events: Iterable[Any]) -> str:
    """What the profiler's averages say, in a page.

    Args:
        title: its first line.
        steps: that the averages are over.
        events: of `key_averages`.
    """
    events = list(events)
    step = sum(event.cpu_time_total for event in events if event.key.startswith("ProfilerStep")) / 1000 / steps
    named = {event.key: event for event in events}
    parts = [
        Row(name, found.cpu_time_total / 1000 / steps, found.count / steps)
        for name in PARTS
        if (found := named.get(_label(name))) is not None
    ]
    rest = Row("everything else", step - sum(row.milliseconds for row in parts), 1)
    device = any(event.self_device_time_total for event in events)
    own = "self_device_time_total" if device else "self_cpu_time_total"
    busy = [
        Row(event.key, getattr(event, own) / 1000 / steps, event.count / steps)
        for event in events
        if not event.key.startswith(("ProfilerStep", _label("")))
    ]
    operations = sorted(busy, key=lambda row: -row.milliseconds)[:OPERATIONS]
    computing = sum(row.milliseconds for row in busy)
    products = sum(row.milliseconds for row in busy if any(word in row.name for word in PRODUCTS))
    where = "the GPU" if device else "the processor"
    return "\n".join([
        title,
        "",
        f"{step:,.1f} ms a step on the first rank, under the profiler, which makes steps somewhat longer.",
        "",
        *_table("part of a step", [*parts, rest], step),
        "",
        f"Matrix products, attention's included, are {products / computing:.0%} of the {computing:,.1f} ms that "
        f"operations take on {where}.",
        "",
        *_table(f"operation on {where}", operations, computing),
        "",
        "Every operation on a line of time: open trace.json.gz in https://ui.perfetto.dev.",
        "",
    ])  # fmt: skip


def _table(what: str, rows: list[Row], whole: float) -> list[str]:
    lines = [f"| {what} | ms a step | share | calls a step |", "| --- | ---: | ---: | ---: |"]
    return lines + [
        f"| {row.name} | {row.milliseconds:,.1f} | {row.milliseconds / whole:.1%} | {row.calls:,.4g} |" for row in rows
    ]


def _label(name: str) -> str:
    """As the profiler knows it, so that no operation has the same name."""
    return f"kindling: {name}"
