"""What survives a torn save, a full disk and a flipped bit."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rec.errors import CheckpointError
from rec.train.checkpoint import MARKER, Checkpoints, damage, require_same
from rec.train.checksum import Facts, facts_of


def _fill(folder: Path) -> None:
    save_file({"a": torch.arange(100.0)}, folder / "model.safetensors")
    (folder / "state.json").write_text('{"progress": {}}')


def _save(checkpoints: Checkpoints, step: int, *, best: bool = False, fill: Callable[[Path], None] = _fill) -> Path:
    """One rank's whole save."""
    beside = checkpoints.begin(step)
    fill(beside)
    folder = checkpoints.commit(step, {path.name: facts_of(path) for path in beside.iterdir()}, best=best)
    checkpoints.prune()
    return folder


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Three whole ones: steps 10, 20 and 30."""
    made = Checkpoints(tmp_path / "checkpoints", keep=5, keep_every=0)
    for step in (10, 20, 30):
        _save(made, step)
    return made


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size - 7)


def _flip(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


DAMAGES = {
    f"no {MARKER}": lambda folder: (folder / MARKER).unlink(),
    f"{MARKER} is torn": lambda folder: (folder / MARKER).write_text('{"model.safeten'),
    "state.json is missing": lambda folder: (folder / "state.json").unlink(),
    "model.safetensors has 465 bytes instead of 472": _cut,
    "model.safetensors has another checksum": _flip,
}


@pytest.mark.parametrize("fault", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_passed_over(checkpoints: Checkpoints, fault: str):
    newest, told = checkpoints.root / "step-00000030", []
    DAMAGES[fault](newest)
    assert checkpoints.newest(told.append) == checkpoints.root / "step-00000020"
    assert told == [f"{newest} is damaged ({fault}) and is passed over"]
    assert not newest.exists()  # and takes no place among those kept


def test_going_on_before_damaged_ones_never_removes_the_last_whole_one(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=1, keep_every=0)
    _save(checkpoints, 30, best=True)
    for step in (40, 50):
        shutil.copytree(tmp_path / "step-00000030", tmp_path / f"step-{step:08d}")
        _flip(tmp_path / f"step-{step:08d}")
    assert checkpoints.newest(lambda text: None) == tmp_path / "step-00000030"
    _save(checkpoints, 35)
    assert checkpoints.newest(pytest.fail) == tmp_path / "step-00000035"
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [
        "step-00000030",
        "step-00000035",
    ]


def test_a_save_that_was_killed_does_not_count(checkpoints: Checkpoints):
    torn = checkpoints.root / "step-00000040.tmp"
    torn.mkdir()
    _fill(torn)
    assert checkpoints.newest(pytest.fail) == checkpoints.root / "step-00000030"
    _save(checkpoints, 40, best=False)
    assert not torn.exists()


@pytest.mark.parametrize("moment", ["rename", "replace", "fsync"])
def test_a_process_that_dies_anywhere_in_a_save_leaves_the_one_before(
    checkpoints: Checkpoints, moment: str, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        pass

    def die(*arguments: object, **options: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os if moment == "fsync" else Path, moment, die)
        with pytest.raises(Killed):
            _save(checkpoints, 40, best=True)
    assert checkpoints.newest(pytest.fail) == checkpoints.root / "step-00000030"


def test_no_whole_checkpoint_among_damaged_ones_is_an_error_and_not_a_fresh_start(checkpoints: Checkpoints):
    for folder in checkpoints.root.glob("step-*"):
        _flip(folder)
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged; restore one, or remove the folder"):
        checkpoints.newest(lambda text: None)


def test_no_checkpoint_at_all_is_a_fresh_start(tmp_path: Path):
    assert Checkpoints(tmp_path / "nothing", keep=1, keep_every=0).newest(pytest.fail) is None


def test_the_best_and_the_last_k_are_kept(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=2, keep_every=0)
    for step in range(1, 8):
        _save(checkpoints, step, best=step in (1, 3))
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000003", "step-00000006", "step-00000007"]
    assert checkpoints.best() == tmp_path / "step-00000003"


def test_every_nth_is_kept_for_ever_and_latest_names_the_newest(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=1, keep_every=3)
    for step in range(1, 9):
        _save(checkpoints, step)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [f"step-{step:08d}" for step in (3, 6, 8)]
    assert (tmp_path / "latest").read_text() == "step-00000008\n"


def test_a_part_that_is_not_to_be_seen_is_an_unshared_disk(checkpoints: Checkpoints):
    beside = checkpoints.begin(40)
    _fill(beside)
    files = {path.name: facts_of(path) for path in beside.iterdir()}
    with pytest.raises(CheckpointError, match=r"written by another rank but is not to be seen here; .* set out="):
        checkpoints.commit(40, {**files, "rank-00001-of-00002.safetensors": files["state.json"]}, best=False)
    assert checkpoints.newest(pytest.fail) == checkpoints.root / "step-00000030"


def test_committing_a_step_again_replaces_it(checkpoints: Checkpoints):
    folder = _save(checkpoints, 30, fill=lambda folder: (folder / "other").write_text("x") and None)
    assert sorted(path.name for path in folder.iterdir()) == [MARKER, "other"]
    assert damage(folder) is None


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_a_process_that_dies_while_it_replaces_the_only_checkpoint_loses_nothing(
    tmp_path: Path, renamed: int, monkeypatch: pytest.MonkeyPatch
):
    """After each of the renamings of a second commit of one step."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1, keep_every=0)
    folder = _save(checkpoints, 30, best=True)
    left = [renamed]
    original = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if not left[0]:
            raise _Killed
        left[0] -= 1
        return original(self, target)

    with monkeypatch.context() as patch, suppress(_Killed):
        patch.setattr(Path, "rename", rename)
        _save(checkpoints, 30, best=True)
    assert checkpoints.newest(pytest.fail) == folder
    assert _save(checkpoints, 30, best=True) == folder
    assert [path.name for path in checkpoints.root.glob("step-*")] == ["step-00000030"]


class _Killed(BaseException):
    pass


def test_a_different_identity_is_refused_with_both_values(tmp_path: Path):
    require_same({"a": 1, "b": None}, {"a": 1, "b": None}, tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.dim is 64 but was 32; seed is 1 but was 0; give"):
        require_same({"model.dim": 32, "seed": 0}, {"model.dim": 64, "seed": 1}, tmp_path)
    with pytest.raises(CheckpointError, match=r"new is 3 but was not set"):
        require_same({}, {"new": 3}, tmp_path)


def test_what_a_killed_save_has_left_goes_with_the_next_commit(checkpoints: Checkpoints):
    _fill(checkpoints.begin(33))
    _save(checkpoints, 40)
    assert not list(checkpoints.root.glob("*.tmp"))


def test_what_the_disk_does_not_let_go_of_is_removed_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoints = Checkpoints(tmp_path, keep=1, keep_every=0)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *a, **k: None)  # as a network disk does while somebody reads a file
        for step in (1, 2):
            _save(checkpoints, step)
        assert (tmp_path / "step-00000001.gone").is_dir()
    _save(checkpoints, 3)
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000003"]


def test_only_older_ones_damaged_is_no_way_back_but_no_error(checkpoints: Checkpoints):
    for step in (10, 20):
        _flip(checkpoints.root / f"step-{step:08d}")
    assert checkpoints.newest(lambda text: None, before=30) is None
    assert checkpoints.newest(pytest.fail) == checkpoints.root / "step-00000030"


def test_a_stray_part_is_damage(checkpoints: Checkpoints):
    newest = checkpoints.root / "step-00000030"
    shutil.copy(newest / "model.safetensors", newest / "rank-00007-of-00008.safetensors")
    assert damage(newest) == "rank-00007-of-00008.safetensors is not part of it"


def test_each_rank_looks_at_its_share_of_the_files(checkpoints: Checkpoints):
    newest = checkpoints.root / "step-00000030"
    _flip(newest)
    faults = [damage(newest, rank, 2) for rank in range(2)]
    assert sorted(map(str, faults)) == ["None", "model.safetensors has another checksum"]


def test_steps_beyond_eight_digits_are_in_order(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=5, keep_every=0)
    for step in (99_999_999, 100_000_000):
        _save(checkpoints, step)
    assert checkpoints.newest(pytest.fail) == tmp_path / "step-100000000"


def test_a_checkpoint_of_before_is_read_by_the_checksums_it_has(checkpoints: Checkpoints):
    folder = checkpoints.folder(30)
    files = {path.name: Facts.of(path, "sha256") for path in folder.iterdir() if path.name != MARKER}
    digest = hashlib.sha256((folder / "state.json").read_bytes()).hexdigest()
    assert files["state.json"].written() == {"size": 16, "sha256": digest}
    (folder / MARKER).write_text(json.dumps({name: facts.written() for name, facts in files.items()}, indent=1))
    assert damage(folder) is None
    _flip(folder)
    assert damage(folder) == "model.safetensors has another checksum"
