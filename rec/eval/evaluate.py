"""All queries of a split, each counted exactly once, on any number of ranks.

Fixed blocks of queries are dealt to the ranks in turn. Every rank calls the scorer equally often, with a
block of another where it has none left, since a sharded model can only be called by all ranks together. What
comes back is put in the order of user rows, so that sums run in one order and no result depends on the number
of ranks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from rec.config.tree import Eval
from rec.data.dataset import TEST_START, VALID_START, Dataset, IntArray, Split
from rec.errors import ConfigError, DatasetError
from rec.eval import protocol as protocols
from rec.eval import ranking
from rec.eval.blocks import Answer, Block, assemble, drawn, in_order, split_into_blocks, targets
from rec.eval.exposure import Exposure
from rec.eval.interrupt import give_up_if
from rec.eval.metrics import Metric, Placed, Values, parse_all
from rec.eval.protocol import Protocol, Sampler
from rec.eval.ranking import Reading
from rec.models.base import Score, ask, settled
from rec.models.scores import Scores
from rec.models.spread import Spread
from rec.ranks import Ranks


@dataclass(frozen=True)
class Result:
    """One reading of a split by one scorer."""

    dataset: Dataset = field(repr=False)
    split: Split
    protocol: Protocol
    metrics: tuple[Metric, ...]
    users: IntArray = field(repr=False)
    """(Q) user rows of the queries, ascending."""
    placed: Placed = field(repr=False)
    """Ranks of their targets."""
    masked: IntArray = field(repr=False)
    """(Q) targets that stand in the history and are never found."""
    lists_QK: IntArray = field(repr=False)
    """Recommended item rows; K is 0 unless a metric of exposure was asked for."""

    @property
    def queries(self) -> int:
        return len(self.users)

    @property
    def masked_share(self) -> float:
        """Share of all targets that stand in the history of their query, and so count as missed."""
        return float(self.masked.sum() / self.placed.targets.sum())

    @cached_property
    def lengths(self) -> IntArray:
        """(Q) items in the history, uncut."""
        column = VALID_START if self.split == "valid" else TEST_START
        return np.asarray(self.dataset.bounds[self.users, column], np.int64)

    @cached_property
    def target_counts(self) -> Values:
        """(Q) training interactions of the target; their mean, where a query has several."""
        query, item = targets(self.dataset, self.split, self.users)
        counts = np.bincount(query, weights=self.dataset.train_counts[item], minlength=self.queries)
        return np.asarray(counts / self.placed.targets, np.float64)

    @cached_property
    def exposure(self) -> Exposure:
        return Exposure(self.lists_QK, self.dataset.train_counts)

    def values(self, metric: Metric) -> Values:
        """(Q) the metric of each query; `coverage` has none."""
        return self.exposure.values(metric) if metric.of_exposure else metric.values(self.placed)

    def mean(self, metric: Metric) -> float:
        if metric.name == "coverage":
            return self.exposure.coverage(metric.cutoff)
        return float(self.values(metric).mean())

    @cached_property
    def means(self) -> dict[str, float]:
        """Metric with its protocol -> mean over queries, for example `ndcg@10[full]`."""
        return {self.label(metric): self.mean(metric) for metric in self.metrics}

    def label(self, metric: Metric) -> str:
        return f"{metric}[{self.protocol}]"


def evaluate(
    score: Score,
    dataset: Dataset,
    split: Split,
    *,
    config: Eval,
    max_items: int,
    ranks: Ranks,
    device: torch.device,
    protocol: str = "full",
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    users: IntArray | None = None,
    asked: Callable[[], bool] | None = None,
) -> Result:
    """Ranks the targets of every query of the split, or of some `users`, by row; the same result on every rank.

    `metrics` stand in for those of `config`; `seed` is that of sampled candidates. A model is settled
    for the time, and then as before. Before each block, every rank is `asked` whether to raise Interrupted.
    """
    wanted = parse_all(config.metrics if metrics is None else metrics)
    among = protocols.parse(protocol)
    if split == "train":
        raise ConfigError("the split is 'train', which has no targets; choose valid or test")
    longest = max((metric.cutoff for metric in wanted if metric.of_exposure), default=0)
    if longest and not among.full:
        raise ConfigError(f"coverage, popularity and head_share need the protocol full, not {among}")
    blocks = split_into_blocks(dataset, split, config.block, dataset.queries(split) if users is None else users)
    if not blocks:
        raise DatasetError(f"{dataset.root} has no targets in the split '{split}'; choose another split")
    asker = _Asker(
        dataset=dataset,
        split=split,
        max_items=max_items,
        filter_seen=config.filter_seen and among.kind != "upstream",  # there, a target is always a candidate
        sampler=None if among.full else Sampler.of(among, dataset, split, seed),
        longest=longest,
        device=device,
    )
    answers: list[Answer] = []
    failures: list[str] = []
    with settled(score):
        for turn in range(-(-len(blocks) // ranks.world)):
            if asked is not None:
                give_up_if(asked, ranks, device)
            mine = turn * ranks.world + ranks.rank
            block = asker.block(blocks[min(mine, len(blocks) - 1)])
            reading = asker.reading(score, block, wanted=mine < len(blocks))
            if reading is not None:
                try:
                    answers.append(asker.answer(reading, block))
                except FloatingPointError as error:  # kept until all ranks can raise it together
                    failures.append(str(error))
    everywhere = ranks.gather((answers, failures))
    for _, wrong in everywhere:
        if wrong:
            raise FloatingPointError(wrong[0])
    whole = in_order([answer for given, _ in everywhere for answer in given])
    offsets = np.concatenate([[0], np.cumsum(whole.targets)])
    return Result(
        dataset, split, among, wanted, whole.users, Placed(whole.ranks, offsets), whole.masked, whole.lists_QK
    )


def validation(
    score: Score,
    dataset: Dataset,
    *,
    config: Eval,
    max_items: int,
    ranks: Ranks,
    device: torch.device,
    seed: int,
    asked: Callable[[], bool] | None = None,
) -> dict[str, float]:
    """For the training loop: `config.select` and `config.metrics` on `valid`, fully ranked, by name.

    `users` is the number of those that the figures are of: all, or `config.users` of them, by the `seed`.
    """
    users = dataset.queries("valid")
    result = evaluate(
        score, dataset, "valid", config=config, max_items=max_items, ranks=ranks, device=device,
        metrics=(config.select, *config.metrics), asked=asked,
        users=drawn(users, config.users, seed) if config.users else users,
    )  # fmt: skip
    return {**{str(metric): result.mean(metric) for metric in result.metrics}, "users": result.queries}


@dataclass(frozen=True, kw_only=True)
class _Asker:
    """Users -> queries -> scores -> ranks, one block at a time."""

    dataset: Dataset
    split: Split
    max_items: int
    filter_seen: bool
    sampler: Sampler | None
    longest: int
    device: torch.device

    def block(self, users: IntArray) -> Block:
        return assemble(
            self.dataset,
            self.split,
            users,
            max_items=self.max_items,
            filter_seen=self.filter_seen,
            sampler=self.sampler,
        )

    def reading(self, score: Score, block: Block, *, wanted: bool) -> Reading | None:
        """What the scores of the block tell; None where it is `wanted` of another rank, and the model only called."""

        def read(scores: Scores) -> Reading | None:
            shape = (len(block.users), self.dataset.items + 1)
            if scores.shape != shape:
                raise ValueError(f"scores have the shape {scores.shape}, expected {shape}: queries, items + 1")
            if not wanted and not isinstance(scores, Spread):
                return None
            found = ranking.read(scores, block.pool.to(scores.device), self.longest)
            return found if wanted else None  # what is spread over ranks is read by all

        found: Reading | None = ask(score, block.queries.to(self.device), read)
        return found

    def answer(self, reading: Reading, block: Block) -> Answer:
        reading.require_finite(self.dataset.items, lambda row: self.dataset.user_ids[block.users[row]])
        ranks_BM = reading.ranks_BM.cpu().numpy()
        own = np.arange(ranks_BM.shape[1]) < block.targets[:, None]
        lists_BK = reading.items_BK.int().cpu().numpy()
        return Answer(block.users, block.targets, block.masked, ranks_BM[own], lists_BK)
