"""Tiny logs on disk, and the verb that reads them, run inside the test process."""

import gzip
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from launch import prepare as verb
from rec.data.dataset import Dataset
from rec.data.options import Options
from rec.data.prepare import prepare

REAL = Path(os.environ.get("KINDLING_DATA", "../shared/data"))
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data at {REAL}; set KINDLING_DATA")

Rows = Sequence[Sequence[Any]]


def csv(folder: Path, rows: Rows, header: str = "user,item,rating,timestamp", name: str = "log.csv") -> Path:
    """Writes rows as CSV; an empty header leaves it out."""
    lines = ([header] if header else []) + [",".join(map(str, row)) for row in rows]
    return text(folder, "".join(f"{line}\n" for line in lines), name)


def text(folder: Path, content: str | bytes, name: str = "log.txt") -> Path:
    file = folder / name
    data = content.encode() if isinstance(content, str) else content
    file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return file


def json_lines(folder: Path, records: Sequence[dict[str, Any]], name: str = "log.jsonl", literal: bool = False) -> Path:
    return text(folder, "".join(f"{record if literal else json.dumps(record)}\n" for record in records), name)


def prepared(source: Path, out: str = "dataset", append: Path | None = None, **options: Any) -> Dataset:
    """The dataset that `prepare` makes of a source, beside it."""
    root = source.parent / out
    prepare(str(source), root, Options(**options), append)
    assert not root.with_name(out + ".tmp").exists()
    return Dataset.open(root)


def sequences(dataset: Dataset) -> dict[str, list[str]]:
    """External user id -> external item ids in stored order."""
    items = dataset.item_ids
    return {
        name: [items[row] for row in dataset.item_rows[dataset.offsets[user] : dataset.offsets[user + 1]]]
        for user, name in enumerate(dataset.user_ids)
        if user
    }


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`kindling prepare WORDS...` -> (exit code, standard output, standard error)."""

    def act(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kindling prepare", *map(str, words)])
        try:
            code = verb.main()
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return act
