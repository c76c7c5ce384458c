"""How many of the positions that a step computes are real: the windows of an epoch as the feed deals them.

    python -m benchmarks.padding                          # a minute: 100,000 users
    python -m benchmarks.padding --users 5000

The logs are shaped like those of a book shop: a mean of 13 interactions for each user with windows of 50 items, and a
mean of 80 with windows of 200; one epoch at the default sizes of a step, and at eight ranks. The ideal pads nothing.
Beside it stands what a batch of windows drawn at random would do, padded to its longest.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import tell
from rec.config.tree import Data
from rec.data.dataset import Dataset, IntArray
from rec.data.order import deal, order_of_epoch
from rec.data.windows import cut

CASES = ((13, 50), (80, 200))
"""Mean interactions of a user, and the most items of a window."""
RANKS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    users = parser.parse_args().users
    for mean, most in CASES:
        with tempfile.TemporaryDirectory() as folder:
            windows = cut(prepared(Path(folder), users, mean), most, predict_first=False, seed=0, epoch=0)
        told(windows.length, f"{users:,} users, mean {mean}, windows of {most}")


def prepared(folder: Path, users: int, mean: int) -> Dataset:
    log, root = folder / "log.csv", folder / "dataset"
    rows, items = str(users * mean), str(max(100, users // 4))
    for words in (
        ["synthesize", "--users", str(users), "--items", items, "--interactions", rows, "--out", str(log)],
        ["prepare", str(log), "--format", "csv", "--out", str(root)],
    ):
        subprocess.run([sys.executable, "-m", "launch", *words], check=True, stdout=subprocess.DEVNULL)
    return Dataset.open(root)


def told(lengths: IntArray, case: str) -> None:
    """Real among computed positions on one rank, and the work of the busiest of eight ranks."""
    one, many = Data(), Data(global_batch=512, micro_batch=32)
    work, skews = dealt(lengths, one, 1), dealt(lengths, many, RANKS)
    whole = len(lengths) // one.global_batch * one.global_batch
    chance = np.random.default_rng(0).permutation(lengths)[:whole].reshape(-1, one.global_batch)
    tell(
        "padding",
        f"{case}: real positions, {one.global_batch} windows a step in micro-batches of {one.micro_batch}",
        unit="of all",
        ours=real(lengths, one) / int(work.sum()),
        reference=1.0,
        against="nothing padded",
        at_least=0.95,
        stable=True,
        at_random=round(float(chance.sum() / (chance.max(1) * one.global_batch).sum()), 3),
    )
    tell(
        "padding",
        f"{case}: positions of the busiest of {RANKS} ranks in a step, {many.global_batch} windows",
        unit="positions",
        ours=float(skews.max(1).mean()),
        reference=float(skews.mean()),
        against="their mean",
        at_most=1.05,
        stable=True,
    )


def dealt(lengths: IntArray, data: Data, world: int) -> IntArray:
    """(steps, ranks) positions that are computed in each whole step of an epoch."""
    order = order_of_epoch(lengths, seed=0, epoch=0, global_batch=data.global_batch)
    steps = lengths[order[: len(order) // data.global_batch * data.global_batch]].reshape(-1, data.global_batch)

    def computed(step: IntArray, rank: int) -> int:
        rows = deal(step, micro_batch=data.micro_batch, rank=rank, world=world)
        return sum(len(some) * int(step[some].max()) for some in rows)

    return np.array([[computed(step, rank) for rank in range(world)] for step in steps])


def real(lengths: IntArray, data: Data) -> int:
    """Positions of the same steps without padding."""
    order = order_of_epoch(lengths, seed=0, epoch=0, global_batch=data.global_batch)
    return int(lengths[order[: len(lengths) // data.global_batch * data.global_batch]].sum())


if __name__ == "__main__":
    main()
