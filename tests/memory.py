"""The memory that a process really takes: the most it had at once, above what it had at the start."""

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

MMAP_THRESHOLD = -3
"""glibc's name for it in `mallopt`."""


def peak_of(work: Callable[[], object]) -> int:
    """Bytes that `work` adds to this process at its fullest moment. For a forked rank: it changes how malloc works.

    Blocks above 64 KB are given back to the system when they are freed, so that the peak is that of live tensors.
    """
    ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 65536)
    gc.collect()
    before = _kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    work()
    return 1024 * (_kilobytes("VmHWM") - before)


def _kilobytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])
