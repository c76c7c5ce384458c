"""The feed: interactions a second in global shuffle, a seek into the midst of an epoch, and how long training waits.

    python -m benchmarks.loader                      # 8 million interactions, windows of 50: prepared first, a minute
    python -m benchmarks.loader --users 2000 --items 1000 --interactions 40000 --steps 20 --repeats 1

All give the same windows as padded tensors, inputs and targets: the feed out of the prepared dataset; `datasets` out of
a Parquet file with a row for each window, streamed as Arrow tables of a batch, the fastest of its ways that loses no
row, once shuffled in a buffer, as near as a stream gets to the feed's order, and once not at all;
`torch.utils.data.DataLoader` out of the same arrays as the feed, in random order, in this process. A seek is the first
batch of a feed that has read nothing of its epoch. What waits is a training step of a model that is small beside the
work of its batch: width 64, 2 layers, 256 sampled items.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as Rows

from benchmarks.checkpoint import a_run
from benchmarks.measure import in_turn, ratio, tell
from benchmarks.resume import quick
from launch.train import execute
from rec.config.tree import Data, Run
from rec.data.dataset import Dataset
from rec.data.feed import Feed
from rec.data.views import NextItems
from rec.data.windows import Windows
from rec.ranks import Ranks

SIZES = {"users": 100_000, "items": 349_000, "interactions": 8_000_000}
LONGEST, BUFFER = 50, 10_000
Pair = tuple[Tensor, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, size in {**SIZES, "batch": 256, "steps": 200, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    asked = vars(parser.parse_args())
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = a_run(folder, {name: asked[name] for name in SIZES})
        dataset = Dataset.open(run.dataset)
        data = Data(global_batch=asked["batch"], micro_batch=asked["batch"], max_items=LONGEST, negatives=0)
        view = NextItems(dataset, data, predict_first=False, seed=0)
        windows = view.epoch(0)
        write(folder / "windows.parquet", dataset, windows)
        said = f"{asked['interactions']:,} interactions of {asked['users']:,} users, batches of {asked['batch']}"
        speed(asked, said, dataset, windows, view, folder / "windows.parquet")
        seeks(asked, said, dataset, data)
        waiting(said, run, asked["steps"])


def speed(asked: dict[str, int], said: str, dataset: Dataset, windows: Windows, view: NextItems, parquet: Path) -> None:
    """Interactions a second of all three."""
    batch, steps = asked["batch"], min(asked["steps"], len(windows.length) // asked["batch"])
    feed = Feed(view, view.data, seed=0, ranks=Ranks())
    loader = DataLoader(Stored(dataset, windows), batch, shuffle=True, collate_fn=padded_rows, num_workers=0)
    items: dict[str, int] = {}

    def ours() -> None:
        items["feed"] = sum(feed.step(k).items for k in range(steps))

    def counted(name: str, pairs: Callable[[], Iterator[Pair]]) -> None:
        items[name] = sum(int((inputs > 0).sum()) for inputs, _ in islice(pairs(), steps))

    references = {
        f"datasets, shuffled in a buffer of {BUFFER:,}": partial(streamed, parquet, batch, BUFFER),
        "datasets, in the order of the file": partial(streamed, parquet, batch, 0),
        "DataLoader": partial(iter, loader),
    }
    cases = {"feed": ours} | {name: partial(counted, name, pairs) for name, pairs in references.items()}
    seconds = in_turn(cases, asked["repeats"])
    feed.close()
    rates = {name: [items[name] / taken for taken in seconds[name]] for name in cases}
    for name in references:
        tell(
            "loader", f"interactions a second, {said}", unit="/s", ours=median(rates["feed"]),
            reference=median(rates[name]), against=name, ratio=ratio(rates, "feed", name),
            at_least=None if name == "DataLoader" else 10, packages=("datasets", "pyarrow"), repeats=asked["repeats"],
        )  # fmt: skip


def seeks(asked: dict[str, int], said: str, dataset: Dataset, data: Data) -> None:
    """Seconds until the first batch at some place of an epoch that nobody has read in."""
    taken = []
    for turn in range(3 * asked["repeats"]):
        feed = Feed(NextItems(dataset, data, predict_first=False, seed=0), replaced(data), seed=0, ranks=Ranks())
        epoch = max(1, feed.windows // data.global_batch)
        feed.epoch.cache_clear()
        begun = time.perf_counter()
        feed.step(epoch * (1 + turn) + epoch * (turn % 3 + 1) // 4)
        taken.append(time.perf_counter() - begun)
        feed.close()
    tell(
        "loader", f"a seek to a quarter, half and three quarters of an epoch, {said}", unit="s", ours=median(taken),
        reference=0.05, against="50 ms", at_most=1, repeats=len(taken),
    )  # fmt: skip


def waiting(said: str, run: Run, steps: int) -> None:
    """The share of its time that a run waits for batches, by its own account."""
    sampled = quick(run)
    data = replace(sampled.data, max_items=LONGEST, negatives=256)
    run = replace(sampled, data=data, train=replace(run.train, log_every=steps))
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(execute(run))
    file = run.folder / "metrics.jsonl"
    while not (file.is_file() and file.read_text().count("\n") >= 2):  # the first line pays for the start
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    share = json.loads(file.read_text().splitlines()[1])["speed/wait_share"]
    tell(
        "loader", f"waiting for batches of 64 windows, {said}", unit="s", ours=share, reference=1.0,
        against="a second of training", at_most=0.03,
    )  # fmt: skip


def replaced(data: Data) -> Data:
    """Nothing is prepared ahead: what follows a seek is not part of it."""
    return replace(data, prefetch=0)


def write(file: Path, dataset: Dataset, windows: Windows) -> None:
    """A row for each window: its inputs and the target of the last one."""
    offsets = np.concatenate([[0], np.cumsum(windows.length + 1)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], windows.length + 1)
    items = dataset.item_rows[np.repeat(windows.start, windows.length + 1) + within].astype(np.int64)
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(items))
    pq.write_table(pa.table({"user": windows.user, "items": lists}), file, row_group_size=10_000)


def streamed(file: Path, batch: int, buffer: int) -> Iterator[Pair]:
    """By `datasets`; a buffer of 0 does not shuffle."""
    from datasets import load_dataset

    rows = load_dataset("parquet", data_files=str(file), split="train", streaming=True)
    rows = rows.with_format("arrow")
    for table in (rows.shuffle(seed=0, buffer_size=buffer) if buffer else rows).batch(batch):
        items = table["items"].combine_chunks().flatten()
        yield from pairs(items.values.to_numpy(), np.diff(items.offsets.to_numpy()))


def pairs(values: np.ndarray, lengths: np.ndarray) -> Iterator[Pair]:
    """Flat rows -> inputs and targets, padded."""
    place = np.arange(lengths.max())
    whole = np.zeros((len(lengths), len(place)), np.int64)
    whole[place < lengths[:, None]] = values
    targets = torch.from_numpy(whole[:, 1:])
    yield torch.from_numpy(whole[:, :-1]) * (targets > 0), targets


class Stored(Rows[np.ndarray]):
    """The windows by number."""

    def __init__(self, dataset: Dataset, windows: Windows) -> None:
        self.items, self.start, self.stop = dataset.item_rows, windows.start, windows.start + windows.length + 1

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.items[self.start[row] : self.stop[row]]


def padded_rows(rows: list[np.ndarray]) -> Pair:
    return next(pairs(np.concatenate(rows), np.array([len(row) for row in rows])))


if __name__ == "__main__":
    sys.stdout.flush()
    main()
