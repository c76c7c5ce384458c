"""`kindling graph DATASET`: the train graph and the neighbours of items, into the dataset."""

import argparse
import sys
import time
from pathlib import Path

from launch.command import DONE, command

TOP = 32
"""Neighbours that are kept where nobody says how many, in small catalogues, too."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="kindling graph",
        description="Makes the graph of a dataset's training interactions: who had what, which items go together, "
        "follow each other, or share a brand, category, author or genre.",
    )
    made.add_argument("dataset", type=Path, help="folder of a prepared dataset")
    made.add_argument("--top", type=int, help=f"neighbours kept for each item (default {TOP})")
    return made


@command
def main() -> int:
    """Makes the graph, unless the same one is there."""
    given = parser().parse_args()
    from tqdm import tqdm

    from rec.data.dataset import Dataset
    from rec.graph.build import build, existing, require_top

    dataset = Dataset.open(given.dataset)
    top = TOP
    if given.top is not None:
        top = require_top(given.top, dataset)
    graph = existing(dataset, top)
    if graph:
        print(f"{graph.folder} is there already: the same graph of the same dataset", file=sys.stderr)
        return DONE
    if (dataset.root / "graph").exists():
        print(f"{dataset.root / 'graph'} is replaced: runs that read the old one cannot go on", file=sys.stderr)
    began = time.perf_counter()
    with tqdm(total=2 * (dataset.items + 1), unit="list", disable=not sys.stderr.isatty()) as bar:
        graph = build(dataset, top=top, advance=bar.update)
    counts = graph.manifest["counts"]
    print(f"{graph.folder}: {counts['edges']:,} edges of {graph.users:,} users and {graph.items:,} items")
    print(f"without any edge: {counts['isolated_users']:,} users, {counts['isolated_items']:,} items")
    for name in ("together", "following"):
        print(f"{name}: {counts[name]:,} pairs, {counts[name] / graph.items:.1f} an item")
    for name, attribute in graph.attributes.items():
        print(f"{name}: {len(attribute.counts):,} values")
    print(f"{time.perf_counter() - began:.1f} s")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
