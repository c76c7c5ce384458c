"""`kindling evaluate` on a saved model: the table, the JSON, the count of readings, and refusals."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from launch import evaluate
from rec.config.tree import Backbone, Run, SoftToken
from rec.data.dataset import Dataset
from rec.models import build, saved
from tests.eval import tiny
from tests.small import graph_for, writing


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    random = np.random.default_rng(0)
    rows = [random.integers(1, 21, random.integers(3, 12)).tolist() for _ in range(30)]
    return tiny.write(tmp_path / "data", rows, items=20)


@pytest.fixture
def run_folder(tmp_path: Path, dataset: Dataset) -> Path:
    small = Backbone(architecture="gpt2", config={"n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": 8})
    run = Run(name="tiny", dataset=dataset.root, model=SoftToken(backbone=small, dim=8), out=tmp_path / "runs")
    model = build(run.model, users=dataset.users, items=dataset.items)
    run.folder.mkdir(parents=True)
    saved.publish(run.folder / "model", run, model, writing(model), dataset, {"step": 7})
    return run.folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["kindling evaluate", *map(str, arguments)])
    return evaluate.main()


def test_the_verb_writes_what_it_shows(
    run_folder: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run_folder / "results" / "test.json"
    assert call(monkeypatch, run_folder, "--split", "test", "--json", file) == 0
    assert "first reading of the test split" in capsys.readouterr().out
    content = json.loads(file.read_text())
    assert content["dataset"]["fingerprint"] == dataset.fingerprint
    assert list(content["baselines"]) == ["popularity", "recent_popularity", "item_knn", "rules"]
    assert content["readings"] == 1

    assert call(monkeypatch, run_folder / "model", "--split", "test", "--no-baselines", "--metrics", "hit@5") == 0
    shown = capsys.readouterr().out
    assert "reading 2 of the test split" in shown
    assert "rules" not in shown
    lines = [json.loads(line) for line in (run_folder / "evaluations/test.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [7, 7]
    assert lines[0]["model"] == lines[1]["model"] == evaluate.digest(run_folder / "model/model.safetensors")
    assert lines[1]["metrics"].keys() == {"hit@5[full]"}


def test_a_sampled_protocol_is_named_with_every_number(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, run_folder, "--protocol", "upstream5", "--no-baselines") == 0
    header = capsys.readouterr().out.splitlines()[1].split()
    assert header
    assert all(name.endswith("[upstream5]") for name in header)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--metrics", "ndgc@10"), "did you mean 'ndcg@10'"), (("--protocol", "unifrom100"), "did you mean 'uniform100'")],
)
def test_a_typo_is_exit_code_2(
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    assert call(monkeypatch, run_folder, *arguments) == 2
    assert said in capsys.readouterr().err
    assert not (run_folder / "evaluations").exists()


def test_another_dataset_in_the_folder_is_refused(
    run_folder: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset.root.rename(dataset.root.with_name("old"))
    other = tiny.write(dataset.root, [[1, 2, 3]], items=20)
    assert call(monkeypatch, run_folder) == 2
    said = capsys.readouterr().err
    assert dataset.fingerprint[:12] in said
    assert other.fingerprint[:12] in said


def test_what_training_does_not_know_may_be_changed(
    run_folder: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--no-baselines", "--metrics", "ndcg@10"]
    following = "model.following={kind: following, weight: 100}"
    assert call(monkeypatch, run_folder, following, *words) == 2
    assert "has no graph; make it with" in capsys.readouterr().err
    graph_for(dataset)
    for changes in ([], [following], ["eval.filter_seen=false"]):
        assert call(monkeypatch, run_folder, *words, "--split", "valid", *changes) == 0
    lines = [json.loads(line) for line in (run_folder / "evaluations/valid.jsonl").read_text().splitlines()]
    assert [line["changes"] for line in lines] == [[], [following], ["eval.filter_seen=false"]]
    assert len({line["metrics"]["ndcg@10[full]"] for line in lines}) == 3


def test_an_evaluation_of_its_own_is_of_everybody(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, run_folder, "eval.users=3") == 2
    assert "eval.users is for training: `kindling evaluate` ranks every user of the split" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        "model.dim=9",
        "seed=4",
        "data.max_items=3",
        "model.kind=sasrec",
        "model.followin=null",
        "model={}",
        "evl.block=3",
    ],
)
def test_what_is_trained_may_not_be_changed(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    assert call(monkeypatch, run_folder, change) == 2
    assert capsys.readouterr().err == (
        f"kindling evaluate: tiny is trained, and '{change}' cannot be changed any more, only eval.* and "
        "model.following; train a run of its own for it\n"
    )
