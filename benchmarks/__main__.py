"""Runs the benchmarks, keeps their lines, and makes the table of docs/benchmarks.md from them.

    python -m benchmarks                          # all: more than an hour; `make bench`
    python -m benchmarks head ranking             # some of them; the lines of the others stay
    python -m benchmarks --quick                  # small sizes, in three minutes, nothing written; `make bench-quick`
    python -m benchmarks --render                 # the table anew, from the lines that are there

With `--quick` a ratio that is stable, such as one of memory, must hold, or the exit code is 1; the others are shown.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import say
from benchmarks.page import LINES, write

ROOT = Path(__file__).parents[1]
ALL: tuple[str, ...] = (
    "head",
    "training",
    "padding",
    "loader",
    "ranking",
    "prepare",
    "checkpoint",
    "startup",
    "attention",
    "graph",
    "propagation",
)
"""Benchmarks that print comparisons, in the order of the table; each is a module of this folder."""
QUICK: dict[str, list[str]] = {
    "head": ["--items", "16000", "--repeats", "1"],
    "padding": ["--users", "10000"],
    "attention": ["--users", "200", "--windows", "8", "--widths", "64", "--layers", "2", "--repeats", "3"],
    "graph": ["--interactions", "50000", "--users", "1000", "--items", "2000"],
    "propagation": ["--parts", "20", "--repetitions", "1"],
    "ranking": ["--items", "50000", "--users", "512", "--repeats", "1"],
    "prepare": ["--interactions", "200000", "--users", "20000", "--items", "5000", "--repeats", "1"],
}
"""Benchmark -> the sizes with which it is done in seconds."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; all without one")
    parser.add_argument("--quick", action="store_true", help="small sizes; insists on what is stable")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    given = parser.parse_args()
    if unknown := set(given.names) - set(ALL):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    if given.render:
        write(json.loads(LINES.read_text()))
        return 0
    if given.quick:
        found = [line for name in given.names or QUICK for line in measured(name, QUICK[name])]
        return 1 if any(list(map(missed, found))) else 0
    kept = json.loads(LINES.read_text()) if LINES.exists() else {}
    for name in given.names or ALL:
        kept[name] = measured(name, [])
        write({name: kept[name] for name in ALL if name in kept})  # now: what comes next may take an hour, or fail
    return 0


def measured(name: str, sizes: list[str]) -> list[dict[str, Any]]:
    """The lines that a benchmark prints."""
    say(f"{name} ...")
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *sizes], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    print(done.stdout, end="", flush=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def missed(line: dict[str, Any]) -> bool:
    """Whether a stable ratio does not hold."""
    bad: bool = line["stable"] and not line["holds"]
    if bad:
        say(f"{line['row']}, {line['case']}: {line['ratio']} times {line['against']}")
    return bad


if __name__ == "__main__":
    sys.exit(main())
