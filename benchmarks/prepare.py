"""How long `kindling prepare` takes for a large CSV, and how much memory, beside a bare scan, sort and write.

    python -m benchmarks.prepare                                  # 8 million rows: some minutes, 2 GB of disk
    python -m benchmarks.prepare --interactions 200000 --users 20000 --items 5000 --repeats 1

The reference (Polars: scan the CSV, sort by user and time, write Parquet) checks nothing, numbers nothing and splits
nothing. Both are processes of their own, from start to end, on all cores.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.measure import ratio, tell

REFERENCE = """
import sys
import polars
polars.scan_csv(sys.argv[1]).sort(["user", "timestamp"]).sink_parquet(sys.argv[2])
"""
CORE = ["--duplicates", "first", "--core-users", "5", "--core-items", "5"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, size in {"users": 500_000, "items": 200_000, "interactions": 8_000_000, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    sizes = vars(parser.parse_args())
    repeats = sizes.pop("repeats")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.csv"
        words = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
        kindling = [sys.executable, "-m", "launch"]
        subprocess.run([*kindling, "synthesize", *words, "--out", str(log)], check=True, stdout=sys.stderr)
        prepare = [*kindling, "prepare", str(log), "--format", "csv", "--out", str(Path(folder) / "dataset")]
        cases = {
            "plain": prepare,
            "core": [*prepare[:-1], str(Path(folder) / "core"), *CORE],
            "Polars": [sys.executable, "-c", REFERENCE, str(log), str(Path(folder) / "reference.parquet")],
        }
        seconds: dict[str, list[float]] = {name: [] for name in cases}
        megabytes: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(repeats):
            for name, command in cases.items():
                for column, value in zip((seconds, megabytes), measured(command), strict=True):
                    column[name].append(value)
            for made in ("dataset", "core"):
                shutil.rmtree(Path(folder) / made)  # a second one is not made over the first
    said = f"{sizes['interactions']:,} rows"
    for name, what in {"plain": said, "core": f"{said}, each pair once, 5-core"}.items():
        tell(
            "preparing", what, unit="s", ours=median(seconds[name]), reference=median(seconds["Polars"]),
            against="Polars: scan, sort, write", ratio=ratio(seconds, name, "Polars"), at_most=3,
            packages=("polars", "pyarrow"), repeats=repeats, reference_megabytes=max(megabytes["Polars"]),
        )  # fmt: skip
    tell(
        "preparing", f"memory, {said}", unit="MB", ours=max(max(megabytes[name]) for name in ("plain", "core")),
        reference=4096, against="4 GB", at_most=1, stable=True,
    )  # fmt: skip


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds and peak resident megabytes of one process."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    # the kernel counts kilobytes, on macOS bytes
    scale = 1 if platform.system() == "Darwin" else 1024
    return time.perf_counter() - began, usage.ru_maxrss * scale / 2**20


if __name__ == "__main__":
    main()
