"""What learned relations in attention cost: a training step with them against the same step without, in one run.

    python -m benchmarks.attention                        # some minutes
    python -m benchmarks.attention --widths 64 --layers 2 --repeats 3 --windows 4 --users 100

Prints one line of JSON for each size. A step is forward, backward and AdamW of the soft-token model on windows of 50
items, none of them padding, with sampled softmax; the backbone is a Qwen3 with heads of 32. The steps with and without
relations are taken in turn, and the ratio is the median of the ratios of neighbours. The look-up of relations in the
graph is part of the step, and is also timed apart.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rec.config.tree import Backbone, Data, LearnedRelations, LossWeights, Optim, SoftToken
from rec.data.batch import Sequences
from rec.data.dataset import Dataset
from rec.data.views import NextItems
from rec.graph.graph import Graph
from rec.models import build
from rec.models.relations import tensors, tokens_of
from rec.nn.relations import relation_ids
from rec.train.optim import build_optimizer

ITEMS, HEAD = 50, 32
"""Of a window; the width of a head of attention."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--users", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        dataset = prepared(Path(folder), asked.users)
        graph, batch = Graph.open(dataset.root / "graph"), full_windows(dataset, asked.windows)
        for width in asked.widths:
            for layers in asked.layers:
                found = measured(dataset, graph, batch, width, layers, asked.repeats)
                machine = {"threads": asked.threads, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
                sizes = {"windows": asked.windows, "items": ITEMS, "width": width, "layers": layers}
                print(json.dumps({"benchmark": "attention", **sizes, **machine, **found}), flush=True)


def prepared(folder: Path, users: int) -> Dataset:
    """Users with a hundred interactions each, of 10,000 items, and the train graph."""
    log, root = folder / "log.csv", folder / "dataset"
    kindling = [sys.executable, "-m", "launch"]
    for words in (
        ["synthesize", "--users", f"{users}", "--items", "10000", "--interactions", f"{users}00", "--out", str(log)],
        ["prepare", str(log), "--format", "csv", "--out", str(root)],
        ["graph", str(root)],
    ):
        subprocess.run([*kindling, *words], check=True, stdout=subprocess.DEVNULL)
    return Dataset.open(root)


def full_windows(dataset: Dataset, windows: int) -> Sequences:
    view = NextItems(dataset, Data(max_items=ITEMS, negatives=256, negatives_of="step"), predict_first=False, seed=1)
    epoch = view.epoch(0)
    full = epoch.take(np.flatnonzero(epoch.length == ITEMS)[:windows])
    assert len(full.length) == windows, "the log has too few long histories"
    return view.batch(0, full, full)


def stepping(dataset: Dataset, graph: Graph, batch: Sequences, config: SoftToken) -> Callable[[], None]:
    """A model with an optimizer; each call is a training step."""
    torch.manual_seed(0)
    model = build(config, users=dataset.users, items=dataset.items, graph=graph)
    optimizer, targets = build_optimizer(model, Optim()), int((batch.targets_BT > 0).sum())

    def step() -> None:
        optimizer.zero_grad()
        (model(batch).total / targets).backward()
        optimizer.step()

    return step


def measured(dataset: Dataset, graph: Graph, batch: Sequences, width: int, layers: int, repeats: int) -> dict[str, Any]:
    shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "head_dim": HEAD}
    heads = dict.fromkeys(("num_attention_heads", "num_key_value_heads"), width // HEAD)
    config = {
        "backbone": Backbone(architecture="qwen3", config={**shape, **heads, "vocab_size": 1}),
        "dim": width,
        "loss": LossWeights(cross_entropy=0.0, sampled_softmax=1.0),
    }
    lookup_in, tokens = tensors(graph), tokens_of(batch, batch.user_B)
    cases: dict[str, Callable[[], object]] = {
        "plain": stepping(dataset, graph, batch, SoftToken(**config)),
        "learned": stepping(dataset, graph, batch, SoftToken(**config, relations=LearnedRelations())),
        "lookup": lambda: relation_ids(lookup_in, tokens),
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats + 2):
        for name, case in cases.items():
            begun = time.process_time()
            case()
            seconds[name].append(time.process_time() - begun)
    taken = {name: values[2:] for name, values in seconds.items()}  # the first two warm up
    return {
        "seconds": {name: round(statistics.median(values), 4) for name, values in taken.items()},
        "ratio": round(statistics.median(map(ratio, taken["learned"], taken["plain"])), 3),
        "lookup": round(statistics.median(map(ratio, taken["lookup"], taken["learned"])), 3),
    }


def ratio(one: float, other: float) -> float:
    return one / other


if __name__ == "__main__":
    main()
