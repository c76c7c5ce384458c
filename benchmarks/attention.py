"""What learned relations in attention cost: a training step with them against the same step without, in one run.

    python -m benchmarks.attention                        # some minutes
    python -m benchmarks.attention --widths 64 --layers 2 --repeats 3 --windows 4 --users 100

Prints two lines of JSON for each size: the step, and its look-up of relations. A step is forward, backward and AdamW of
the soft-token model on windows of 50 items, none of them padding, with sampled softmax; the backbone is a Qwen3 with
heads of 32. The steps with and without relations are taken in turn, and the ratio is the median of the ratios of
neighbours, of processor time. The look-up of relations in the graph is part of the step, and is also timed apart.
"""

import argparse
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

from benchmarks.measure import Seconds, in_turn, ratio, tell
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
                seconds = measured(dataset, graph, batch, width, layers, asked.repeats)
                compared = {
                    "learned": ("plain", "the step without", 1.25),
                    "lookup": ("learned", "the whole step", 0.1),
                }
                said = {"learned": "training step with learned relations", "lookup": "their look-up in the graph"}
                for name, (reference, against, most) in compared.items():
                    tell(
                        "relations in attention",
                        f"{said[name]}; width {width}, {layers} layers, {asked.windows} windows of {ITEMS} items",
                        unit="s", ours=statistics.median(seconds[name]), against=against, at_most=most,
                        reference=statistics.median(seconds[reference]), ratio=ratio(seconds, name, reference),
                        repetitions=asked.repeats, clock=time.process_time.__name__,
                    )  # fmt: skip


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


def measured(dataset: Dataset, graph: Graph, batch: Sequences, width: int, layers: int, repeats: int) -> Seconds:
    """Seconds of a step without relations, of one with them, and of their look-up."""
    shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "head_dim": HEAD}
    heads = dict.fromkeys(("num_attention_heads", "num_key_value_heads"), width // HEAD)
    config: dict[str, Any] = {
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
    return in_turn(cases, repeats, time.process_time)


if __name__ == "__main__":
    main()
