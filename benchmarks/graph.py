"""How long `kindling graph` takes for a large log, and how much memory, beside the bare products of its matrices.

    python -m benchmarks.graph                                  # 8 million interactions: some minutes, 2 GB of disk
    python -m benchmarks.graph --interactions 200000 --users 5000 --items 8000

Prints a line of JSON for the time, and one for the memory. The reference multiplies the matrix of users and items with
itself, 64 items at a time on one thread, and throws the products away: it ranks nothing, keeps nothing, and knows no
order in time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import tell
from benchmarks.prepare import measured

REFERENCE = """
import sys
from pathlib import Path
from rec.data.dataset import Dataset
from rec.graph.edges import Histories, distinct
dataset = Dataset.open(Path(sys.argv[1]))
users = distinct(Histories.of(dataset), dataset.items).astype("int32")
items = users.T.tocsr()
print(sum((items[start : start + 64] @ users).nnz for start in range(0, dataset.items + 1, 64)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=349_000)
    parser.add_argument("--interactions", type=int, default=8_000_000)
    sizes = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as folder:
        log, dataset = Path(folder) / "log.csv", Path(folder) / "dataset"
        words = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
        kindling = [sys.executable, "-m", "launch"]
        for command in (
            [*kindling, "synthesize", *words, "--out", str(log)],
            [*kindling, "prepare", str(log), "--format", "csv", "--out", str(dataset)],
        ):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        graph = measured([*kindling, "graph", str(dataset)])
        counts = json.loads((dataset / "graph/graph.json").read_text())["counts"]
        reference = measured([sys.executable, "-c", REFERENCE, str(dataset)])
        size = round(sum(file.stat().st_size for file in (dataset / "graph").rglob("*.npy")) / 2**20)
    case = f"kindling graph; {counts['edges']:,} edges, {sizes['users']:,} users, {sizes['items']:,} items"
    for unit, ours, theirs, most in zip(("s", "MB"), graph, reference, (1.5, None), strict=True):
        tell(
            "train graph", case, unit=unit, ours=ours, reference=theirs,
            against="the bare product", at_most=most, graph_mb=size,
        )  # fmt: skip


if __name__ == "__main__":
    main()
