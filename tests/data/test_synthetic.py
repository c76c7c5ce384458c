"""A synthetic log is what it says, the same for the same seed, and worth learning from."""

import sys
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as arrow_csv
import pytest

from launch import synthesize
from rec.data import synthetic
from tests.data.logs import prepared, sequences

Log = dict[str, list[Any]]


def log(folder: Path, seed: int = 0, **sizes: int) -> Log:
    folder.mkdir(exist_ok=True)
    synthetic.write(folder / f"{seed}.csv", **{"users": 400, "items": 300, "interactions": 8000, **sizes}, seed=seed)
    return arrow_csv.read_csv(folder / f"{seed}.csv").to_pydict()


def test_it_has_the_sizes_asked_for_and_long_tails(tmp_path: Path) -> None:
    made = log(tmp_path)
    assert list(made) == ["user", "item", "rating", "timestamp"]
    assert (len(made["user"]), len(set(made["user"]))) == (8000, 400)
    assert len(set(made["item"])) <= 300
    lengths, counts = (sorted(Counter(made[side]).values()) for side in ("user", "item"))
    assert lengths[0] == 5
    assert lengths[-1] > 4 * lengths[len(lengths) // 2]
    assert counts[-1] > 3 * counts[len(counts) // 2]
    assert set(made["rating"]) <= {1, 2, 3, 4, 5}
    assert len(set(zip(made["user"], made["item"], strict=True))) > 0.75 * 8000


def test_equal_seeds_give_equal_files_and_others_do_not(tmp_path: Path) -> None:
    assert log(tmp_path / "a") == log(tmp_path / "b")
    assert log(tmp_path / "a", seed=1) != log(tmp_path / "b", seed=2)


def test_times_rise_along_each_user(tmp_path: Path) -> None:
    log(tmp_path)
    dataset = prepared(tmp_path / "0.csv", format="csv")
    assert dataset.manifest["report"]["tied_timestamps"] < 0.01
    assert dataset.interactions == 8000


def test_long_users_stay_a_few_years_at_most(tmp_path: Path) -> None:
    made = log(tmp_path, users=20, interactions=20_000)
    assert min(made["timestamp"]) > 1_390_000_000
    assert max(made["timestamp"]) < 1_390_000_000 + 10 * 365 * 86_400


def test_transitions_foretell_the_next_item_much_better_than_popularity(tmp_path: Path) -> None:
    log(tmp_path, users=1500, interactions=30_000)
    walks = list(sequences(prepared(tmp_path / "0.csv", format="csv")).values())
    popular = Counter(item for walk in walks for item in walk[:-1])
    after: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for walk in walks:
        for one, two in pairwise(walk[:-1]):
            after[one][two] += 1
    best = {item for item, _ in popular.most_common(10)}
    by_popularity = np.mean([walk[-1] in best for walk in walks])
    by_transition = np.mean([walk[-1] in {item for item, _ in after[walk[-2]].most_common(10)} for walk in walks])
    assert by_transition > 0.4
    assert by_transition > 3 * by_popularity


def call(monkeypatch: pytest.MonkeyPatch, *words: Any) -> int:
    monkeypatch.setattr(sys, "argv", ["kindling synthesize", *map(str, words)])
    return synthesize.main()


def test_the_verb_writes_a_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--users", 10, "--items", 40, "--interactions", 100, "--seed", 4, "--out", tmp_path / "new" / "log.csv"]
    assert call(monkeypatch, *words) == 0
    assert len((tmp_path / "new" / "log.csv").read_text().splitlines()) == 101
    assert call(monkeypatch, *words) == 2
    assert "log.csv exists; choose another file or remove it" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["log.csv"]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((0, 40, 100), "--users is 0"), ((5, 3, 100), "--items is 3"), ((50, 40, 30), "less than one for each of 50")],
)
def test_sizes_that_make_no_log_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sizes: tuple[int, ...],
    message: str,
) -> None:  # fmt: skip
    words = [word for pair in zip(("--users", "--items", "--interactions"), sizes, strict=True) for word in pair]
    assert call(monkeypatch, *words, "--out", tmp_path / "log.csv") == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
