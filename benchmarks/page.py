"""docs/benchmarks.json -> the table at the top of docs/benchmarks.md."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINES, PAGE = ROOT / "docs/benchmarks.json", ROOT / "docs/benchmarks.md"
BEGIN, END = "<!-- measured: python -m benchmarks -->", "<!-- /measured -->"


def write(lines: dict[str, list[dict[str, Any]]]) -> None:
    """Keeps the lines of all benchmarks, by name, and puts their table into the page."""
    LINES.write_text(json.dumps(lines, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(lines)}\n\n{END}{rest.partition(END)[2]}")


def table(lines: dict[str, list[dict[str, Any]]]) -> str:
    """One row for each line."""
    head = [
        "| what | case | ours | reference | | ratio | to reach | |",
        "| --- | --- | ---: | ---: | --- | ---: | --- | --- |",
    ]
    return "\n".join([*head, *(row(line) for found in lines.values() for line in found)])


def row(line: dict[str, Any]) -> str:
    wanted = [f"{sign} {line[name]:g}" for name, sign in (("at_most", "≤"), ("at_least", "≥")) if name in line]
    cells = (
        line["row"],
        line["case"],
        f"{number(line['ours'])} {line['unit']}",
        f"{number(line['reference'])} {line['unit']}",
        line["against"],
        f"**{number(line['ratio'])}**",
        " and ".join(wanted),
        ("yes" if line["holds"] else "no") if wanted else "",
    )
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
