"""`kindling recommend`: whole files of people on any number of ranks, and files that are there whole or not at all."""

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import rec.recommend
from launch import recommend
from rec.config.tree import LightGcn, LightGcnPart
from rec.data import recommendations
from rec.data.dataset import Dataset
from rec.data.people import Known, Person
from rec.data.recommendations import Recommendations, Row
from rec.errors import ConfigError, DatasetError
from rec.ranks import Ranks
from rec.recommend import TrainedModel
from tests.explain.trained import corpus, trained
from tests.ranks import run_ranks
from tests.small import soft_token

ROWS = [Row("ann", 1, "i3", 0.5, "Three, or more"), Row(None, 1, "i4", -0.25, "Vier Ärger")]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return corpus(tmp_path / "data")


@pytest.fixture
def model(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainedModel:
    """A model of which three people are asked at once: there are ten."""
    monkeypatch.setattr("rec.recommend.BLOCK", 3)
    return trained(dataset, tmp_path / "runs", soft_token("gpt2", gnn=LightGcnPart()))


def call(*words: object, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """Exit code, output, and what is said beside it."""
    monkeypatch.setattr(sys, "argv", ["kindling recommend", *map(str, words)])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = recommend.main()
    return code, out.getvalue(), err.getvalue()


def known(dataset: Dataset) -> list[Person]:
    return list(Known(dataset.root, None))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_any_number_of_ranks_writes_the_same_file_byte_for_byte(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
):
    monkeypatch.setattr(recommendations, "GROUP", 20)
    folder = model.saved.folder.parent
    files = {}
    for world in (1, 2, 3, 5):  # with five, one has nobody
        out = tmp_path / f"{world}{suffix}"
        words = (folder, "--all", "--k", 4, "--out", out)
        done = run_ranks(lambda _, words=words: call(*words, monkeypatch=monkeypatch), world)
        assert [code for code, _, _ in done] == [0] * world
        assert [said for _, _, said in done] == [f"10 people, 40 recommendations: {out}\n"] + [""] * (world - 1)
        files[world] = out.read_bytes()
        assert not out.with_name(f"{out.name}.tmp").exists()
    assert len(set(files.values())) == 1


def test_a_file_for_all_has_what_the_model_recommends_to_each(
    model: TrainedModel, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = [tmp_path / f"all{suffix}" for suffix in (".csv", ".parquet", ".jsonl")]
    for out in files:
        assert call(model.saved.folder, "--all", "--k", 3, "--out", out, monkeypatch=monkeypatch)[0] == 0
    people = known(dataset)
    assert [person.user for person in people] == dataset.user_ids[1:]
    expected = []
    for person in people:  # alone: the same items; scores as near as another width of the batch lets them be
        (found,) = model.recommend([person.items], 3, users=[person.user], times=[person.times])
        expected += [(person.user, rank, item.item, pytest.approx(item.score, rel=1e-5), item.title)
                     for rank, item in enumerate(found, 1)]  # fmt: skip
    lines = list(csv.DictReader(files[0].read_text().splitlines()))
    as_csv = [(row["user"], int(row["rank"]), row["item"], float(row["score"]), row["title"]) for row in lines]
    as_jsonl = [tuple(json.loads(line).values()) for line in files[2].read_text().splitlines()]
    assert as_csv == expected
    assert as_csv == as_jsonl == [tuple(row.values()) for row in pq.read_table(files[1]).to_pylist()]


def test_the_users_of_a_file_and_people_from_outside_are_dealt_to_the_ranks_too(
    model: TrainedModel, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "users").write_text("user\nu7\nu2\nu9\nu1\n")
    lines = [{"user": f"p{place}", "items": ["i3", f"nothing{place % 5}", "i5"]} for place in range(8)]
    (tmp_path / "people.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for source in (("--users", tmp_path / "users"), ("--history", tmp_path / "people.jsonl")):
        words = (model.saved.folder, *source, "--k", 2)
        alone, *others = [
            run_ranks(lambda _, words=words: call(*words, monkeypatch=monkeypatch), world) for world in (1, 2, 3)
        ]
        assert all(found == alone + [(0, "", "")] * (len(found) - 1) for found in others)
    (_, out, err) = alone[0]
    assert out.startswith("p0\n    1  ")
    assert err == "left out, unknown to the model: items nothing0, nothing1, nothing2, nothing3, nothing4\n"


def test_people_are_asked_for_a_block_at_a_time(model: TrainedModel, dataset: Dataset):
    class Watched(Sequence):
        """Says who was asked for."""

        def __init__(self, people: list[Person]) -> None:
            self.people, self.asked = people, list[slice]()

        def __len__(self) -> int:
            return len(self.people)

        def __getitem__(self, place):
            self.asked.append(place)
            return self.people[place]

    people = Watched(known(dataset))
    blocks = model.for_all(people, 2, Ranks())
    assert next(blocks).users == ["u1", "u2", "u3"]
    assert people.asked == [slice(0, 3)]
    assert [block.users for block in blocks] == [["u4", "u5", "u6"], ["u7", "u8", "u9"], ["u10"]]
    assert len(people.asked) == 4


def test_all_blocks_share_what_hangs_on_weights_alone(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model, calls = trained(dataset, tmp_path / "runs", LightGcn(dim=8)), []
    original = type(model.model).means
    monkeypatch.setattr(type(model.model), "means", lambda *given: calls.append(given) or original(*given))
    monkeypatch.setattr(rec.recommend, "BLOCK", 2)
    assert len(list(model.for_all(known(dataset), 2, Ranks()))) == 5
    model.recommend([["i1"]])
    assert len(calls) == 1


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, suffix: str):
    file = tmp_path / "new" / f"out{suffix}"

    def fail(die: bool) -> None:
        with Recommendations(file) as out:
            out.write(ROWS)
            if die:
                os._exit(9)  # as a kill does: nothing is tidied up
            raise KeyboardInterrupt

    for content in (None, b"of before"):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(KeyboardInterrupt):
            fail(die=False)
        assert [path.name for path in file.parent.iterdir()] == ([file.name] if content else [])
        child = os.fork()
        if not child:
            fail(die=True)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert (file.read_bytes() if file.exists() else None) == content
        file.with_name(f"{file.name}.tmp").unlink()
    with Recommendations(file) as out:
        out.write(ROWS)
        out.write([])
    if suffix == ".parquet":
        assert [tuple(row.values()) for row in pq.read_table(file).to_pylist()] == [tuple(row) for row in ROWS]
    assert file.read_bytes() != b"of before"


def test_a_model_that_is_not_finite_is_an_error_and_no_empty_list(model: TrainedModel):
    with torch.no_grad():
        model.model.tables.item.weight[5] = torch.nan
    with pytest.raises(FloatingPointError, match="scores of user '-' are not finite"):
        model.recommend([["i1"]])
    with pytest.raises(FloatingPointError, match="scores of user 'u1' are not finite"):
        model.recommend([["i1"]], users=["u1"])


@pytest.mark.parametrize(("name", "said"), [("folder.csv", "Is a directory"), ("file/a.csv", "Not a directory|exists")])
def test_a_place_that_no_file_can_have_is_told_at_the_start(tmp_path: Path, name: str, said: str):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=rf"cannot write .*{name}: .*({said})"):
        Recommendations(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"folder.csv", "file"}


def test_an_error_in_the_midst_ends_all_ranks_and_leaves_no_file(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out.csv"

    def full(self: Recommendations, rows: list[Row]) -> None:
        raise DatasetError(f"cannot write {self.file}: No space left on device; choose another place")

    monkeypatch.setattr(Recommendations, "write", full)
    done = run_ranks(lambda _: call(model.saved.folder, "--all", "--out", out, monkeypatch=monkeypatch), 2)
    said = f"kindling recommend: cannot write {out}: No space left on device; choose another place\n"
    assert done == [(2, "", said), (2, "", "")]
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere", "--all", "--out", "a.txt"), "cannot tell the format of a.txt; end its name in .csv, .parquet"),
        (("nowhere", "--all", "--out", "a.csv"), "nowhere holds no trained model"),
        (("--all", "--k", 0), "k is 0; ask for at least one item"),
        (("--users", "users"), "1 of 2 users are not in"),
        (("--all", "--k", 10_000), "items, ask for so many at most"),
    ],
)
def test_what_cannot_be_is_told_once_whatever_the_ranks(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...], said: str
):
    monkeypatch.chdir(tmp_path)
    Path("users").write_text("u1\nstranger\n")
    words = words if words[0] == "nowhere" else (model.saved.folder, *words)
    (first, out, err), other = run_ranks(lambda _: call(*words, monkeypatch=monkeypatch), 2)
    assert (first, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert other == (2, "", "")
    assert not Path("a.csv").exists()


def test_the_model_refuses_k_for_all(model: TrainedModel, dataset: Dataset):
    with pytest.raises(ConfigError, match="k is 0"):
        next(model.for_all(known(dataset), 0, Ranks()))
