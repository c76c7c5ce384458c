"""One evaluation as JSON and as a table; and the count of how often the test split was read.

{"split": "test", "protocol": "full", "dataset": {"fingerprint": …, "split": "leave_one_out:4f1c22a9"},
 "queries": 943, "masked_share": 0.0, "metrics": {"ndcg@10[full]": 0.104, …}, "intervals": {…: [low, high]},
 "slices": {"history": [{"bucket": "5-9", "queries": 120, "means": {…}}, …], "target_popularity": […]},
 "baselines": {"rules": {"ndcg@10[full]": 0.101, …}, …}, "settings": {"rules": {"window": 10, …}, …},
 "readings": 1}
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rec.data.dataset import Split
from rec.eval.evaluate import Result
from rec.eval.intervals import intervals, slices

Settings = Mapping[str, float | str]


@dataclass(frozen=True)
class Report:
    result: Result
    baselines: Mapping[str, Result]
    settings: Mapping[str, Settings]
    """What was chosen for each baseline on the validation split."""
    readings: int | None = None
    """How often the run's split has been read, this time included."""

    def content(self) -> dict[str, Any]:
        result = self.result
        return {
            "split": result.split,
            "protocol": str(result.protocol),
            "dataset": {"fingerprint": result.dataset.fingerprint, "split": result.dataset.split_name},
            "queries": result.queries,
            "masked_share": result.masked_share,
            "metrics": result.means,
            "intervals": {name: list(bounds) for name, bounds in intervals(result).items()},
            "slices": {name: [part._asdict() for part in parts] for name, parts in slices(result).items()},
            "baselines": {name: baseline.means for name, baseline in self.baselines.items()},
            "settings": {name: dict(settings) for name, settings in self.settings.items()},
            "readings": self.readings,
        }

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.content(), indent=1) + "\n")

    def table(self) -> str:
        """The model beside the baselines, a column for each metric, and under the model its intervals."""
        result = self.result
        around = {name: f"{low:.4f}-{high:.4f}" for name, (low, high) in intervals(result).items()}
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
        lines += [f"{name}: {_spoken(settings)} (chosen on valid)" for name, settings in chosen.items()]
        if self.readings is not None and result.split == "test":
            lines.append(_counted(self.readings))
        return "\n".join(lines)


def count_reading(folder: Path, split: Split, **what: str | float | None) -> int:
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
