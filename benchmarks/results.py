"""Renders docs/results.md, the table of the README and that of docs/graph_llm.md out of docs/results/SET/*.json.

`kindling evaluate RUN --split test --json FILE` wrote those files: no number is typed by hand.

    python -m benchmarks.results            writes the pages
    python -m benchmarks.results --check    exits with 1 if they are not up to date
"""

import json
import re
import statistics
import sys
from typing import Any, NamedTuple

from benchmarks.study import RESULTS, ROOT

BEGIN, END = "<!-- results: made by python -m benchmarks.results -->", "<!-- end of results -->"
METRICS = ("ndcg@10[full]", "recall@10[full]")
MODELS = {
    "ids": "soft tokens, items start at random",
    "plain": "soft tokens",
    "paper": "soft tokens + paper's bias",
    "learned": "soft tokens + learned bias",
    "gnn": "soft tokens + GNN",
    "following": "soft tokens + following",
    "all": "soft tokens + learned bias + GNN + following",
    "deeper": "soft tokens of 2 layers + following",
    "sasrec": "SASRec",
    "lightgcn": "LightGCN",
}
BASELINES = {
    "popularity": "popularity",
    "recent_popularity": "recent popularity",
    "item_knn": "item-kNN",
    "rules": "sequential rules",
}
SHORT = ("plain", "following", "all", "deeper", "sasrec", "lightgcn", "rules", "item_knn")
"""Rows of the README."""
SETS = {
    "beauty": (
        "Amazon Beauty 5-core (2014), leave-one-out",
        "data/beauty",
        "kindling prepare interactions.csv.gz --user-column user --item-column item --items items.jsonl.gz "
        "--out data/beauty",
    ),
    "ml-100k": ("MovieLens-100K, leave-one-out", "data/ml-100k.prepared", "make data/ml-100k.prepared"),
    "games": (
        "Amazon Games (DEALRec), split by time",
        "data/games",
        "kindling prepare interactions.csv.gz --user-column user --item-column item --split-column split "
        "--items items.jsonl.gz --out data/games",
    ),
}
"""Data set -> its title, its folder, and what prepares that."""

OF_THE_PAPER = ("recall_capped@20[full]", "recall_capped@40[full]", "ndcg@100[full]", *METRICS)
"""What docs/graph_llm.md shows."""
READERS = {
    "small-predictive": "graph_llm",
    "no-pretraining": "no pre-training",
    "small-content": "no fine-tuning",
    "no-graph": "no graph in attention",
    "first-order": "no second-order prompts",
    "small-cllm4rec": "CLLM4Rec",
}
"""Result files of a set there, and what to call them."""
READ = {
    "beauty-8": "Amazon Beauty (2014), 8-core of its 5-core, random 80/10/10",
}
"""Data sets there."""


class Row(NamedTuple):
    """A model or a baseline on one set."""

    name: str
    label: str
    values: list[dict[str, float]]
    """Metrics of each seed; one for what has no seed."""

    def mean(self, metric: str) -> float:
        """Over seeds."""
        return statistics.fmean(values[metric] for values in self.values)

    def cell(self, metric: str) -> str:
        """mean ± standard deviation of a seed, with n - 1."""
        spread = [values[metric] for values in self.values]
        return f"{self.mean(metric):.4f}" + (f" ± {statistics.stdev(spread):.4f}" if len(spread) > 1 else "")


def read(name: str, variant: str) -> list[dict[str, Any]]:
    """The files of a variant, in order of seeds."""
    return [json.loads(file.read_text()) for file in sorted((RESULTS / name).glob(f"{variant}-[0-9].json"))]


def rows(name: str) -> list[Row]:
    """Of a set: models, then baselines."""
    models = [Row(key, label, [one["metrics"] for one in read(name, key)]) for key, label in MODELS.items()]
    baselines = read(name, "plain")[0]["baselines"]
    return [row for row in models if row.values] + [Row(key, BASELINES[key], [baselines[key]]) for key in baselines]


def table(name: str, only: tuple[str, ...] | None = None) -> str:
    """One row each, the best mean of a metric in bold."""
    chosen = [row for row in rows(name) if only is None or row.name in only]
    lines = [f"| {SETS[name][0]} | NDCG@10 | Recall@10 | seeds |", "| --- | ---: | ---: | ---: |"]
    best = {metric: max(row.mean(metric) for row in chosen) for metric in METRICS}
    for row in chosen:
        cells = [
            f"**{row.cell(metric)}**" if row.mean(metric) == best[metric] else row.cell(metric) for metric in METRICS
        ]
        lines.append(f"| {row.label} | {' | '.join(cells)} | {len(row.values) if row.name in MODELS else ''} |")
    return "\n".join(lines)


def section(name: str) -> str:
    """A set on the page of results: its table, and how it was made."""
    title, folder, prepare = SETS[name]
    first = read(name, "plain")[0]
    about, (low, high) = first["dataset"], first["intervals"][METRICS[0]]
    settings = "; ".join(
        f"{BASELINES[key]}: {', '.join(f'{option} {value}' for option, value in chosen.items())}"
        for key, chosen in first["settings"].items()
        if chosen
    )
    commands = f"{prepare}\nkindling embed {folder} --encoder models/minilm\nkindling graph {folder}"
    return (
        f"### {title}\n\n{table(name)}\n\n"
        f"{first['queries']:,} queries; 95 % bootstrap interval over them of soft tokens, seed 0: "
        f"NDCG@10 {low:.4f} to {high:.4f}. Split `{about['split']}`, dataset `{about['fingerprint'][:16]}`.\n"
        f"Settings of baselines, chosen by validation: {settings}.\n\n"
        f"```\n{commands}\npython -m benchmarks.study {name}\n```"
    )


def readers() -> str:
    """Readers of texts and their ablations beside the baselines, on each set; intervals are over users."""
    sections = []
    for name, title in READ.items():
        files = {key: RESULTS / name / f"{key}.json" for key in READERS}
        contents = {key: json.loads(file.read_text()) for key, file in files.items() if file.is_file()}
        first = next(iter(contents.values()))
        about = first["dataset"]
        lines = [f"### {title}", "", f"Split `{about['split']}`, dataset `{about['fingerprint'][:16]}`.", ""]
        lines += [
            "| | Recall@20 * | Recall@40 * | NDCG@100 | NDCG@10 | Recall@10 |",
            "| --- |" + " ---: |" * 5,
        ]
        for key, content in contents.items():
            cells = [
                f"{content['metrics'][metric]:.4f} ({low:.4f}-{high:.4f})"
                for metric in OF_THE_PAPER
                for low, high in [content["intervals"][metric]]
            ]
            lines.append(f"| {READERS[key]} | {' | '.join(cells)} |")
        for key, values in first["baselines"].items():
            lines.append(f"| {BASELINES[key]} | {' | '.join(f'{values[metric]:.4f}' for metric in OF_THE_PAPER)} |")
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def replaced(page: str, text: str) -> str:
    """The page with what stands between the two marks replaced."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{text}\n{END}", page, flags=re.DOTALL)


def main() -> int:
    pages = {
        ROOT / "README.md": "\n\n".join(table(name, SHORT) for name in SETS),
        ROOT / "docs/results.md": "\n\n".join(map(section, SETS)),
        ROOT / "docs/graph_llm.md": readers(),
    }
    stale = [path for path, text in pages.items() if replaced(path.read_text(), text) != path.read_text()]
    if "--check" in sys.argv[1:]:
        print(
            "\n".join(f"{path} is not up to date: run python -m benchmarks.results" for path in stale) or "up to date"
        )
        return 1 if stale else 0
    for path, text in pages.items():
        path.write_text(replaced(path.read_text(), text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
