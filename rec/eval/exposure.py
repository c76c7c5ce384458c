"""What is recommended, whether it is a target or not: coverage and popularity bias of the lists of K items.

coverage@K     share of the catalogue that stands in at least one list
popularity@K   training interactions of the recommended items, mean over the list: the average recommendation
               popularity (ARP) of Yin et al., VLDB 2012
head_share@K   share of the list that belongs to the head, the fifth of the catalogue with most training
               interactions (of equals, the lower rows): 1 - APLT of Abdollahpouri et al., FLAIRS 2019
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rec.data.dataset import IntArray
from rec.eval.metrics import Metric, Values

HEAD = 0.2


@dataclass(frozen=True)
class Exposure:
    lists_QK: IntArray
    """The recommended item rows of each query, best first; 0 where there are fewer."""
    train_counts: IntArray
    """(items + 1) training interactions of each item."""

    @cached_property
    def head(self) -> IntArray:
        """(items + 1) 1 for items of the head, 0 for others and for padding."""
        counts = self.train_counts[1:]
        head = np.zeros(len(counts) + 1, np.int64)
        head[np.argsort(-counts, kind="stable")[: int(np.ceil(HEAD * len(counts)))] + 1] = 1
        return head

    def coverage(self, cutoff: int) -> float:
        shown = np.unique(self.lists_QK[:, :cutoff])
        return float(np.count_nonzero(shown)) / (len(self.train_counts) - 1)

    def values(self, metric: Metric) -> Values:
        """(Q) `popularity` or `head_share` of each list."""
        lists = self.lists_QK[:, : metric.cutoff]
        worth = self.head if metric.name == "head_share" else np.where(np.arange(len(self.head)), self.train_counts, 0)
        return np.asarray(worth[lists].sum(1) / np.maximum((lists > 0).sum(1), 1), np.float64)
