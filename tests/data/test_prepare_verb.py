"""The verb as a person uses it: recipes, the report, the help."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rec.data.dataset import Dataset
from rec.data.progress import Progress
from tests.data.logs import Run, csv, json_lines, run, text

__all__ = ["run"]
ROWS = [(f"u{row % 4}", f"i{row % 3}", row % 5 + 1, 1_400_000_000 + row // 2) for row in range(24)]


def test_the_report_is_printed_and_written(tmp_path: Path, run: Run) -> None:
    code, out, err = run(csv(tmp_path, ROWS), "--format", "csv", "--out", tmp_path / "d", "--json", tmp_path / "new" / "r.json",
                         "--min-rating", 2, "--duplicates", "last")  # fmt: skip
    assert (code, err) == (0, "")
    report = json.loads((tmp_path / "new" / "r.json").read_text())
    manifest = Dataset.open(tmp_path / "d").manifest
    assert report == manifest
    lines = out.splitlines()
    assert lines[0] == "log.csv as csv (user=user, item=item, time=timestamp, rating=rating)"
    assert [line.split()[0] for line in lines[1:5]] == ["step", "read", "min-rating", "duplicates"]
    assert lines[2].split()[1:] == ["24", "4", "3"]
    assert any(line.startswith("tied timestamps: ") for line in lines)
    assert f"fingerprint {manifest['fingerprint'][:16]}" in lines
    assert manifest["options"]["min_rating"] == 2
    assert str(tmp_path) not in (tmp_path / "d" / "dataset.json").read_text()


def test_a_recipe_holds_options_and_the_command_line_wins(tmp_path: Path, run: Run) -> None:
    recipe = text(tmp_path, "format: csv\nmin-rating: 3\nsince: 1970-01-02\nlast: 1\n", "recipe.yaml")
    code, _, _ = run(csv(tmp_path, ROWS), "--recipe", recipe, "--last", 2, "--out", tmp_path / "d")
    assert code == 0
    options = Dataset.open(tmp_path / "d").manifest["options"]
    assert (options["min_rating"], options["since"], options["last"]) == (3, "1970-01-02", 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("min-ratings: 3\n", "recipe.yaml has the unknown key 'min-ratings'; did you mean 'min-rating'?"),
        ("min-rating: many\n", "min_rating is 'many'; write a number"),
        ("on-bad-line: skipp\n", "on_bad_line is 'skipp'; choose one of error, skip"),
        ("format: [\n", "recipe.yaml line 2 is not YAML"),
        ("", "recipe.yaml holds no keys; write `key: value` lines"),
    ],
)
def test_a_recipe_that_is_wrong_is_refused(tmp_path: Path, run: Run, content: str, message: str) -> None:
    recipe = text(tmp_path, content, "recipe.yaml")
    code, _, err = run(csv(tmp_path, ROWS), "--recipe", recipe, "--out", tmp_path / "d")
    assert code == 2
    assert message in err


def test_the_kindle_recipe_works_on_the_file_as_published(tmp_path: Path, run: Run) -> None:
    generator = np.random.default_rng(0)
    records = []
    for user in range(60):
        for _ in range(int(generator.integers(1, 70))):
            year = int(generator.integers(2011, 2024))
            records.append({
                "rating": float(generator.integers(3, 6)), "text": "word " * int(generator.integers(3, 8)),
               
                "images": [], "asin": "x", "parent_asin": f"B{generator.integers(300)}", "user_id": f"A{user}",
                "timestamp": int(np.datetime64(f"{year}-06-01", "ms").astype(int)), "helpful_vote": 0,
                "verified_purchase": True,
            })  # fmt: skip
    source = json_lines(tmp_path, records, "Kindle_Store.jsonl.gz")
    recipe = Path(__file__).parents[2] / "configs/data/kindle.yaml"
    code, out, _ = run(source, "--recipe", recipe, "--out", tmp_path / "d", "--sample", 20)
    assert code == 0
    steps = [line.rsplit(None, 3)[0] for line in out.splitlines()[2:9]]
    assert steps == ["read", "min-rating 4", "since 2013-01-01", "min-words 5", "core-users 5", "last 50",
                     "sample 20 seed 42"]  # fmt: skip
    good = [r for r in records if r["rating"] >= 4 and r["timestamp"] >= 1356998400000 and len(r["text"].split()) >= 5]
    many = {user: sum(r["user_id"] == user for r in good) for user in {r["user_id"] for r in good}}
    dataset = Dataset.open(tmp_path / "d")
    assert dataset.users == 20
    lengths = dict(zip(dataset.user_ids, np.diff(dataset.offsets).tolist(), strict=True))
    assert all(lengths[user] == min(many[user], 50) >= 5 for user in dataset.user_ids[1:])


def test_help_needs_nothing_heavy() -> None:
    for verb in ("prepare", "synthesize"):
        code = f"import sys; sys.argv = ['kindling', '{verb}', '--help']\nfrom launch.__main__ import main\n"
        code += (
            "try: main()\nexcept SystemExit: print(sorted({'numpy', 'pyarrow', 'torch', 'yaml'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.endswith("[]\n")
        assert f"usage: kindling {verb}" in done.stdout


class Terminal:
    def __init__(self, terminal: bool):
        self.terminal, self.said = terminal, ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, said: str) -> None:
        self.said += said

    def flush(self) -> None:
        pass


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rec.data.progress.SECONDS", 0.0)
    for terminal, mark in ((True, "\r"), (False, "reading: 50%, 7 rows")):
        stream = Terminal(terminal)
        progress = Progress(stream)  # type: ignore[arg-type]
        progress.reading(0.5, 7)
        progress.stage("writing")
        progress.close()
        assert mark in stream.said
        assert ("\r" in stream.said) == terminal
