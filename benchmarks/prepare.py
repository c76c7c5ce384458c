"""How long `kindling prepare` takes for a large CSV, and how much memory, beside a bare scan, sort and write.

    python benchmarks/prepare.py                                  # 8 million rows: about a minute, 2 GB of disk
    python benchmarks/prepare.py --interactions 200000 --users 20000 --items 5000

Prints one line of JSON. The reference (Arrow: read the CSV, sort by user and time, write Parquet) checks nothing,
numbers nothing, splits nothing, and holds the whole log in memory.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REFERENCE = """
import sys
from pyarrow import csv, parquet
parquet.write_table(csv.read_csv(sys.argv[1]).sort_by([("user", "ascending"), ("timestamp", "ascending")]), sys.argv[2])
"""


def measured(command: list[str]) -> dict[str, float]:
    """Seconds and peak resident megabytes of one process."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    # the kernel counts kilobytes, on macOS bytes
    scale = 1 if platform.system() == "Darwin" else 1024
    return {"seconds": round(time.perf_counter() - began, 2), "peak_mb": round(usage.ru_maxrss * scale / 2**20)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--interactions", type=int, default=8_000_000)
    sizes = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.csv"
        words = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
        kindling = [sys.executable, "-m", "launch"]
        found: dict[str, Any] = {"benchmark": "prepare", **sizes, "cores": os.cpu_count()}
        found["synthesize"] = measured([*kindling, "synthesize", *words, "--out", str(log)])
        prepare = [*kindling, "prepare", str(log), "--format", "csv", "--out", str(Path(folder) / "dataset")]
        found["prepare"] = measured(prepare)
        found["prepare_core"] = measured([*prepare[:-1], str(Path(folder) / "core"), "--duplicates", "first",
                                          "--core-users", "5", "--core-items", "5"])  # fmt: skip
        reference = [sys.executable, "-c", REFERENCE, str(log), str(Path(folder) / "reference.parquet")]
        found["reference"] = measured(reference)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
