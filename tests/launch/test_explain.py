"""`kindling explain`: the file it writes, and the sentences with which it refuses."""

import json
import re
import sys
from pathlib import Path

import pytest

from launch import explain
from rec.config.tree import PaperRelations, Sasrec
from rec.data.dataset import Dataset
from tests.explain.trained import corpus, person, trained
from tests.small import soft_token


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verb")
    dataset = corpus(folder / "data")
    trained(dataset, folder / "paper", soft_token(relations=PaperRelations()))
    trained(dataset, folder / "sasrec", Sasrec())
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["kindling explain", *map(str, arguments)])
    return explain.main()


def test_the_verb_writes_a_page_of_the_users_history(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "u4.html"
    assert call(monkeypatch, folder / "paper/run", "--user", "u4", "--out", file, "--k", 3) == 0
    assert capsys.readouterr().err == f"{file}: the last 8 of 11 items of user u4\n"
    matched = re.search(r'<script type="application/json" id="data">(.*)</script>', file.read_text())
    assert matched
    found = json.loads(matched[1])
    assert [token["id"] for token in found["tokens"]] == ["u4", *person(Dataset.open(folder / "data"), 4).items[-8:]]
    assert [relation["name"] for relation in found["relations"]] == ["hops"]
    assert len(found["listed"]["with"]) == len(found["listed"]["without"]) == 3


@pytest.mark.parametrize(
    ("run", "user", "said"),
    [
        ("paper/run", "nobody", r"kindling explain: .*data has no user 'nobody'; its users\.parquet has all of them\n"),
        ("sasrec/run", "u4", r"is a model of kind sasrec, which cannot be explained; give a run of kind soft_token\n"),
        ("none/run", "u4", r"none/run holds no trained model; give the folder of a run that has been trained\n"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence_and_exit_code_2(
    run: str, user: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "refused.html"
    assert call(monkeypatch, folder / run, "--user", user, "--out", file) == 2
    err = capsys.readouterr().err
    assert re.search(said, err)
    assert err.count("\n") == 1
    assert not file.exists()


def test_a_layer_that_the_backbone_does_not_have_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, folder / "paper/run", "--user", "u4", "--out", folder / "refused.html", "--layer", 3) == 2
    assert capsys.readouterr().err == (
        "kindling explain: --layer is 3, but the backbone has 2 layers; choose from 1 to 2\n"
    )
