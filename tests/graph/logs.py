"""Small logs whose graphs are made in a folder of their own."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from rec.data.dataset import Dataset
from rec.graph.build import build
from rec.graph.graph import Graph
from tests.eval.tiny import write

ITEMS = 12
LOGS = st.lists(st.lists(st.integers(1, ITEMS), max_size=20), min_size=1, max_size=8)
"""Up to 8 users, many repetitions, items that nobody has, users without items."""


def all_for_training(root: Path, log: Sequence[Sequence[int]], items: int = ITEMS) -> Dataset:
    return write(root, log, items, bounds=[(len(row),) * 5 for row in log])


@contextmanager
def graph_of(log: Sequence[Sequence[int]], items: int = ITEMS, top: int = 32) -> Iterator[Graph]:
    """The graph of a log that is wholly for training."""
    with tempfile.TemporaryDirectory() as folder:
        yield build(all_for_training(Path(folder) / "data", log, items), top=top)
