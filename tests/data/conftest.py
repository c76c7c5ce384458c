"""What the tests of data share: feeds that are closed at their end."""

from collections.abc import Iterator
from typing import Any

import pytest

from rec.config.tree import Data
from rec.data.dataset import Dataset
from rec.data.feed import Feed
from rec.data.views import NextItems
from rec.ranks import Ranks


@pytest.fixture
def feeds() -> Iterator[Any]:
    opened: list[Feed] = []

    def make(dataset: Dataset, ranks: Ranks | None = None, **options: Any) -> Feed:
        predict_first = options.pop("predict_first", True)
        data = Data(**{"global_batch": 12, "micro_batch": 2, "max_items": 4, "negatives": 3, **options})
        view = NextItems(dataset, data, predict_first=predict_first, seed=5)
        opened.append(Feed(view, data, seed=5, ranks=ranks or Ranks()))
        return opened[-1]

    yield make
    for feed in opened:
        feed.close()
