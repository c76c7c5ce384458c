"""A node's own copy of a dataset: made once, whole, and never taken from under a reader."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from launch.command import DONE
from launch.train import execute
from rec.data import staging
from rec.data.dataset import Dataset
from rec.errors import DatasetError
from rec.ranks import Ranks
from tests.ranks import run_ranks
from tests.small import a_run, soft_token


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def source(mixed: Dataset, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mixed.root, tmp_path / "shared/mixed"))


def test_the_copy_is_the_dataset_and_is_made_once(source: Path, tmp_path: Path):
    copy = staging.stage(source, tmp_path / "node")
    assert _contents(copy) == _contents(source)
    made = (copy / "dataset.json").stat().st_mtime_ns
    assert staging.stage(source, tmp_path / "node") == copy
    assert (copy / "dataset.json").stat().st_mtime_ns == made


def test_all_processes_of_a_node_share_one_copy_that_one_of_them_makes(source: Path, tmp_path: Path):
    def stage(ranks: Ranks) -> tuple[Path, int, int]:
        made, make = [], staging._make
        staging._make = lambda *words: made.append(make(*words))
        ranks.gather(None)  # all at once
        copy = staging.stage(source, tmp_path / "node")
        return copy, Dataset.open(copy).interactions, sum(ranks.gather(len(made)))

    copies, interactions, made = zip(*run_ranks(stage, 4), strict=True)
    assert (len(set(copies)), set(interactions), set(made)) == (1, {Dataset.open(source).interactions}, {1})


def test_a_copy_from_which_a_file_was_cleaned_away_or_cut_is_made_again(source: Path, tmp_path: Path):
    copy = staging.stage(source, tmp_path / "node")
    (copy / "split.npy").unlink()
    assert _contents(staging.stage(source, tmp_path / "node")) == _contents(source)
    (copy / "sequences/items.npy").write_bytes(b"")
    assert _contents(staging.stage(source, tmp_path / "node")) == _contents(source)


def test_what_a_killed_process_left_behind_is_no_copy(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def die(ranks: Ranks) -> None:
        copies = iter([staging._copy])
        staging._copy = lambda a, b: next(copies, lambda *words: os.kill(os.getpid(), 9))(a, b)
        staging.stage(source, tmp_path / "node")

    with pytest.raises(AssertionError, match="died"):
        run_ranks(die, 1)
    assert _contents(staging.stage(source, tmp_path / "node")) == _contents(source)


def test_a_dataset_that_gets_a_new_feature_gets_a_new_copy_and_the_old_one_stays(source: Path, tmp_path: Path):
    old = staging.stage(source, tmp_path / "node")
    (source / "features").mkdir()
    np.save(source / "features/text.npy", np.zeros((31, 4), np.float32))
    new = staging.stage(source, tmp_path / "node")
    assert Dataset.open(new).feature("text").shape == (31, 4)
    assert (new != old, old.is_dir()) == (True, True)


def test_a_disk_that_returns_other_bytes_is_noticed(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(staging.hashlib, "file_digest", lambda file, name: hashlib.sha256(b"other"))
    with pytest.raises(DatasetError, match="is not what was read"):
        staging.stage(source, tmp_path / "node")
    monkeypatch.undo()
    assert _contents(staging.stage(source, tmp_path / "node")) == _contents(source)


def test_a_place_that_cannot_be_written_is_an_error_with_a_remedy(source: Path, tmp_path: Path):
    (tmp_path / "node").write_text("a file")
    with pytest.raises(DatasetError, match="leave out --stage"):
        staging.stage(source, tmp_path / "node")
    with pytest.raises(DatasetError, match="not a prepared dataset"):
        staging.stage(tmp_path / "nothing", tmp_path / "node")


def test_a_disk_without_locks_is_no_place_for_a_copy(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*words: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(staging.fcntl, "flock", refuse)
    with pytest.raises(DatasetError, match="Function not implemented; choose a disk of this node"):
        staging.stage(source, tmp_path / "node")


def test_a_run_reads_the_copy_and_its_records_name_the_dataset(source: Path, tmp_path: Path):
    run = a_run(Dataset.open(source), tmp_path / "runs", soft_token())
    opened = []
    plain = Dataset.open.__func__  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dataset, "open", classmethod(lambda kind, root: opened.append(root) or plain(kind, root)))
        assert execute(run, stage=tmp_path / "node") == DONE
    assert all((tmp_path / "node") in root.parents for root in opened)
    for record in run.folder.rglob("*.json"):
        assert "kindling-" not in json.dumps(json.loads(record.read_text()))
    assert str(source) in (run.folder / "run.yaml").read_text()
