"""`kindling graph` inside the test process."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launch import graph as verb
from rec.data.dataset import Dataset
from rec.errors import DatasetError
from rec.graph.graph import Graph
from tests.eval.tiny import write
from tests.graph.logs import ITEMS


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write(tmp_path / "data", [[1, 2, 3, 4, 5], [2, 3, 1, 4], [5]], ITEMS)


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["kindling graph", *map(str, words)])
    return verb.main()


def test_it_says_what_it_made(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert call(monkeypatch, dataset.root, "--top", 2) == 0
    said = capsys.readouterr().out
    assert "6 edges of 3 users and 12 items" in said
    assert "without any edge: 0 users, 8 items" in said
    assert "together: 6 pairs, 0.5 an item" in said
    assert "following: 3 pairs" in said
    assert Graph.open(dataset.root / "graph", dataset.fingerprint).together.item_IK.shape == (ITEMS + 1, 2)


def test_the_same_graph_is_not_made_again_and_another_is(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    file = dataset.root / "graph/graph.json"
    assert call(monkeypatch, dataset.root) == 0
    first, made = Graph.open(file.parent), file.stat().st_mtime_ns
    assert "there already" not in capsys.readouterr().err
    assert call(monkeypatch, dataset.root) == 0
    assert "is there already" in capsys.readouterr().err
    assert file.stat().st_mtime_ns == made
    assert call(monkeypatch, dataset.root, "--top", 1) == 0
    assert Graph.open(file.parent).manifest["options"]["top"] == 1
    assert Graph.open(file.parent).fingerprint != first.fingerprint


def test_what_is_wrong_is_said_in_one_sentence(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    for words, says in [
        ((tmp_path / "nowhere",), "is not a prepared dataset; make it with `kindling prepare"),
        ((dataset.root, "--top", 0), "--top is 0; choose 1 or more neighbours"),
        ((dataset.root, "--top", ITEMS + 1), f"--top is 13, but {dataset.root} has only 12 items; choose 12 neigh"),
    ]:
        assert call(monkeypatch, *words) == 2
        assert says in capsys.readouterr().err
    assert not (dataset.root / "graph").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda graph: (graph / "graph.json").write_text("{"),
        lambda graph: (graph / "graph.json").write_text("{}"),
        lambda graph: (graph / "graph.json").write_text("[]"),
        lambda graph: (graph / "user_items.npy").unlink(),
        lambda graph: (graph / "user_items.npy").write_bytes(b""),
        lambda graph: (graph / "together/item.npy").write_bytes((graph / "together/item.npy").read_bytes()[:200]),
        lambda graph: shutil.rmtree(graph / "following"),
    ],
)
def test_a_damaged_graph_is_told_with_the_remedy_which_works(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], object]
):
    assert call(monkeypatch, dataset.root) == 0
    damage(dataset.root / "graph")
    with pytest.raises(DatasetError, match=r"graph is damaged \(.*\); make it with `kindling graph .*` again"):
        Graph.open(dataset.root / "graph", dataset.fingerprint)
    assert call(monkeypatch, dataset.root) == 0
    assert Graph.open(dataset.root / "graph", dataset.fingerprint).users == 3
