"""Renders docs/results.md, the table of the README and that of docs/graph_llm.md out of docs/results/*.json.

Those files are what `kindling evaluate RUN --split test --json FILE` wrote: no number is typed by hand.

    python benchmarks/results.py            writes both pages
    python benchmarks/results.py --check    exits with 1 if they are not up to date
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- results: made by benchmarks/results.py -->", "<!-- end of results -->"
METRICS = ("ndcg@10[full]", "recall@10[full]")
NAMES = {
    "popularity": "popularity",
    "recent_popularity": "recent popularity",
    "item_knn": "item-kNN",
    "rules": "sequential rules",
}
CONFIGS = {
    "ml-100k-gpt2": "configs/movielens/gpt2.yaml",
    "ml-100k-qwen3": "configs/movielens/qwen3.yaml",
    "beauty": "configs/amazon/beauty.yaml",
}
SETS = {
    "ml-100k": (
        "MovieLens-100K, leave-one-out",
        {"ml-100k-gpt2": "soft tokens, GPT-2 64 x 2", "ml-100k-qwen3": "soft tokens, Qwen3 64 x 2"},
        "make data/ml-100k.prepared",
    ),
    "beauty": (
        "Amazon Beauty 5-core (2014), leave-one-out",
        {"beauty": "soft tokens, Qwen3 64 x 1"},
        "kindling prepare interactions.csv.gz --user-column user --item-column item --items items.jsonl.gz "
        "--out data/beauty",
    ),
}
"""Data set -> its title, its result files with what to call them, and how it is prepared."""
OF_THE_PAPER = ("recall_capped@20[full]", "recall_capped@40[full]", "ndcg@100[full]", *METRICS)
READERS = {
    "small-predictive": "graph_llm",
    "no-pretraining": "no pre-training",
    "small-content": "no fine-tuning",
}
"""Result files of a set in docs/graph_llm.md, and what to call them."""
READ = {
    "beauty-8": "Amazon Beauty (2014), 8-core of its 5-core, random 80/10/10",
}
"""Data sets there; a result file is named after its set and its run."""


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "docs/results" / f"{name}.json").read_text())
    return content


def table() -> str:
    """Models and baselines of all sets, one row each, the best NDCG of a set in bold."""
    lines = ["| data, split | model | NDCG@10 | Recall@10 |", "| --- | --- | ---: | ---: |"]
    for title, models, _ in SETS.values():
        contents = {label: read(name) for name, label in models.items()}
        rows = [(label, content["metrics"], content["intervals"]) for label, content in contents.items()]
        rows += [(NAMES[name], values, None) for name, values in next(iter(contents.values()))["baselines"].items()]
        top = max(values[METRICS[0]] for _, values, _ in rows)
        for label, values, intervals in sorted(rows, key=lambda row: -row[1][METRICS[0]]):
            cells = [cell(values[metric], intervals and intervals[metric]) for metric in METRICS]
            if values[METRICS[0]] == top:
                cells[0] = f"**{cells[0]}**"
            lines.append(f"| {title} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def readers() -> str:
    """Readers of texts and their ablations beside the baselines, on each set."""
    lines = []
    for data, title in READ.items():
        contents = {name: read(f"{data}-{name}") for name in READERS}
        about = next(iter(contents.values()))["dataset"]
        lines += [f"### {title}", "", f"Split `{about['split']}`, dataset `{about['fingerprint'][:16]}`.", ""]
        lines += ["| | Recall@20 | Recall@40 | NDCG@100 | NDCG@10 | recall@10 |", "| --- |" + " ---: |" * 5]
        for name, content in contents.items():
            cells = [cell(content["metrics"][metric], content["intervals"][metric]) for metric in OF_THE_PAPER]
            lines.append(f"| {READERS[name]} | {' | '.join(cells)} |")
        for name, values in next(iter(contents.values()))["baselines"].items():
            lines.append(f"| {NAMES[name]} | {' | '.join(cell(values[metric], None) for metric in OF_THE_PAPER)} |")
        lines.append("")
    return "\n".join(lines)


def cell(value: float, interval: list[float] | None) -> str:
    return f"{value:.4f}" + (f" ({interval[0]:.4f}-{interval[1]:.4f})" if interval else "")


def commands() -> str:
    """How each row was made, and on what."""
    lines = []
    for title, models, prepare in SETS.values():
        contents = {name: read(name) for name in models}
        about = next(iter(contents.values()))["dataset"]
        lines += [f"### {title}", "", f"Split `{about['split']}`, dataset `{about['fingerprint'][:16]}`.", "", "```"]
        lines.append(prepare)
        for name in contents:
            lines.append(f"kindling train {CONFIGS[name]}")
            lines.append(f"kindling evaluate runs/{name} --split test --json docs/results/{name}.json")
        lines += ["```", ""]
        for name, settings in next(iter(contents.values()))["settings"].items():
            if settings:
                lines.append(f"- {NAMES[name]}: " + ", ".join(f"{key} {value}" for key, value in settings.items()))
        lines.append("")
    return "\n".join(lines)


def replaced(page: str, text: str) -> str:
    """The page with what stands between the two marks replaced."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{text}\n{END}", page, flags=re.DOTALL)


def main() -> int:
    pages = {ROOT / "README.md": table(), ROOT / "docs/results.md": f"{table()}\n\n{commands()}"}
    pages[ROOT / "docs/graph_llm.md"] = readers()
    stale = [path for path, text in pages.items() if replaced(path.read_text(), text) != path.read_text()]
    if "--check" in sys.argv[1:]:
        print("\n".join(f"{path} is not up to date: run benchmarks/results.py" for path in stale) or "up to date")
        return 1 if stale else 0
    for path, text in pages.items():
        path.write_text(replaced(path.read_text(), text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
