"""A model beside the baselines, as JSON and as a table; and the count of how often the test split was read.

{"split": "test", "protocol": "full", "dataset": {"fingerprint": …, "split": "leave_one_out:4f1c22a9"},
 "queries": 943, "masked_share": 0.0, "metrics": {"ndcg@10[full]": 0.104, …}, "intervals": {…: [low, high]},
 "slices": {"history": [{"bucket": "5-9", "queries": 120, "means": {…}}, …], "target_popularity": […]},
 "baselines": {"rules": {"ndcg@10[full]": 0.101, …}, …}, "settings": {"rules": {"window": 10, …}, …},
 "readings": 1}
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import torch

from rec.config.tree import Eval
from rec.data.dataset import Dataset, Split
from rec.eval.blocks import evenly_spaced
from rec.eval.evaluate import Result, evaluate
from rec.eval.intervals import intervals, slices
from rec.models.base import Score
from rec.ranks import Ranks

CHOSEN_BY, CHOSEN_FROM = "ndcg@10", 10_000
"""Baselines are chosen by this metric, on so many validation queries at most."""

Settings = Mapping[str, float | str]


@dataclass(frozen=True)
class Comparison:
    result: Result
    baselines: Mapping[str, Result]
    settings: Mapping[str, Settings]
    """What was chosen for each baseline on the validation split."""

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        return intervals(self.result)

    def content(self, readings: int | None = None) -> dict[str, Any]:
        """What the JSON has; `readings` says how often the run's split was read, this time included."""
        result = self.result
        return {
            "split": result.split,
            "protocol": str(result.protocol),
            "dataset": {"fingerprint": result.dataset.fingerprint, "split": result.dataset.split_name},
            "queries": result.queries,
            "masked_share": result.masked_share,
            "metrics": result.means,
            "intervals": {name: list(bounds) for name, bounds in self.intervals.items()},
            "slices": {name: [part._asdict() for part in parts] for name, parts in slices(result).items()},
            "baselines": {name: baseline.means for name, baseline in self.baselines.items()},
            "settings": {name: dict(settings) for name, settings in self.settings.items()},
            "readings": readings,
        }

    def table(self, readings: int | None = None) -> str:
        """The model beside the baselines, a column for each metric, and under the model its intervals."""
        result = self.result
        around = {name: f"{_figure(low)}-{_figure(high)}" for name, (low, high) in self.intervals.items()}
        rows = [["", *result.means], ["model", *map(_figure, result.means.values())]]
        rows.append(["  95 %", *(around.get(name, "") for name in result.means)])
        rows += [[name, *map(_figure, other.means.values())] for name, other in self.baselines.items()]
        lines = [
            f"{result.split} of {result.dataset.root.name} ({result.dataset.split_name}, "
            f"fingerprint {result.dataset.fingerprint[:8]}): {result.queries} queries, "
            f"{result.masked_share:.1%} of the targets seen before",
            *_aligned(rows),
        ]
        chosen = {name: settings for name, settings in self.settings.items() if settings}
        lines += [f"{name}: {_spoken(settings)}" for name, settings in chosen.items()]
        if readings is not None and result.split == "test":
            lines.append(_counted(readings))
        return "\n".join(lines)


class Chosen(Protocol):
    """A baseline that was fitted and set on the validation split."""

    @property
    def score(self) -> Score: ...

    @property
    def settings(self) -> Settings: ...


Choose = Callable[[Dataset, Callable[[Score], float]], Chosen]
"""Fits a baseline to a dataset, with what validates a scorer."""


def compare(
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
    baselines: Mapping[str, Choose] | None = None,
    seed: int = 0,
) -> Comparison:
    """Evaluates the model and, one after the other, the baselines; the same on every rank.

    Baselines are chosen by ndcg@10 on `valid` under full ranking, whatever is reported afterwards; without a
    validation split, they have the first settings of their grids.
    """
    alike = partial(evaluate, dataset=dataset, config=config, max_items=max_items, ranks=ranks, device=device)
    read = partial(alike, split=split, protocol=protocol, metrics=metrics, seed=seed)

    def quality(baseline: Score) -> float:
        users = evenly_spaced(dataset.queries("valid"), CHOSEN_FROM)
        if not len(users):
            return 0.0
        return alike(baseline, split="valid", metrics=(CHOSEN_BY,), users=users).means[f"{CHOSEN_BY}[full]"]

    model, beside, settings = read(score), {}, {}
    for name, choose in (baselines or {}).items():
        chosen = choose(dataset, quality)
        beside[name], settings[name] = read(chosen.score), chosen.settings
    return Comparison(model, beside, settings)


def count_reading(folder: Path, split: Split, **what: object) -> int:
    """Adds a line to `evaluations/SPLIT.jsonl` of a run folder; how many there are now.

    A test split that is read again and again turns into a validation split: nothing forbids it, but it is
    counted.
    """
    file = folder / "evaluations" / f"{split}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **what}) + "\n")
    return len(file.read_text().splitlines())


def _counted(readings: int) -> str:
    if readings == 1:
        return "first reading of the test split by this run"
    return f"reading {readings} of the test split by this run: choices made after the first are fitted to it"


def _figure(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


def _spoken(settings: Settings) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    first, *others = widths
    return ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)]).rstrip() for row in rows]
