"""What all benchmarks share: things measured in turn, and one line of JSON for each comparison.

A line compares what is ours with a reference that the same run measured beside it. Timings are of shared machines, so
what counts is the ratio: the median of the ratios of neighbours. `python -m benchmarks` collects the lines, and makes
the table of docs/benchmarks.md from them.
"""

import ctypes
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import torch

Seconds = dict[str, list[float]]
RESET = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


def in_turn(
    cases: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> Seconds:
    """Seconds of each case, `repeats` times, one case after the other; a first round that warms up is left out."""
    seconds: Seconds = {name: [] for name in cases}
    for _ in range(repeats + 1):
        for name, case in cases.items():
            begun = clock()
            case()
            wait()
            seconds[name].append(clock() - begun)
    return {name: taken[1:] for name, taken in seconds.items()}


def ratio(seconds: Seconds, ours: str, reference: str) -> float:
    """The median of the ratios of neighbours."""
    return statistics.median(map(_divided, seconds[ours], seconds[reference]))


def _divided(one: float, other: float) -> float:
    return one / other


def device() -> torch.device:
    """Where things are measured: a GPU, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Until the GPU has done what it was told to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(case: Callable[[], object]) -> float:
    """Megabytes held at most while it ran the case, beyond what was held before: by this process, or on the GPU."""
    if torch.cuda.is_available():
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        case()
        wait()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # what is free already, but not given back, would hide what the case takes
    before = _memory("VmRSS")
    RESET.write_text("5")  # the peak begins anew
    case()
    return _memory("VmHWM") - before


def _memory(name: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def tell(
    row: str,
    case: str,
    *,
    unit: str,
    ours: float,
    reference: float,
    against: str,
    ratio: float | None = None,
    at_most: float | None = None,
    at_least: float | None = None,
    stable: bool = False,
    packages: tuple[str, ...] = (),
    **about: float | str,
) -> None:
    """Prints a comparison.

    Args:
        row: the subject: a row of the table of docs/benchmarks.md may have several cases.
        case: what is compared, with its size.
        unit: of both numbers, such as "s", "MB", "rows/s".
        ours: the median of what is ours.
        reference: the median of what it is compared with.
        against: what that is.
        ratio: ours / reference, where it is not the one of these two medians.
        at_most: what the ratio should not exceed.
        at_least: what the ratio should reach.
        stable: whether the ratio hangs on nothing else that the machine does, so that a test may insist on it.
        packages: whose versions matter beside those of Python, torch and numpy.
        about: what else is worth knowing, such as repetitions.
    """
    found = ours / reference if ratio is None else ratio
    holds = (at_most is None or found <= at_most) and (at_least is None or found >= at_least)
    line = {
        "row": row,
        "case": case,
        "unit": unit,
        "ours": _short(ours),
        "reference": _short(reference),
        "against": against,
        "ratio": _short(found),
        **({} if at_most is None else {"at_most": at_most}),
        **({} if at_least is None else {"at_least": at_least}),
        "holds": holds,
        "stable": stable,
        **about,
        "versions": {name: version(name) for name in ("torch", "numpy", *packages)},
        "machine": machine(),
    }
    print(json.dumps(line), flush=True)


def machine() -> dict[str, float | str]:
    """What it was measured on."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        **gpu,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:  # not Linux
        return platform.processor()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _short(value: float) -> float:
    """Four digits are more than a shared machine is good for."""
    return float(f"{value:.4g}")


def say(text: str) -> None:
    """For whoever waits; the lines of JSON have the other stream for themselves."""
    print(text, file=sys.stderr, flush=True)
