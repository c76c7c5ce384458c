"""What survives a torn save, a full disk and a flipped bit."""

import errno
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rec.errors import CheckpointError
from rec.train.checkpoint import MARKER, Checkpoints, damage, require_same


def _fill(folder: Path) -> None:
    save_file({"a": torch.arange(100.0)}, folder / "model.safetensors")
    (folder / "state.json").write_text('{"progress": {}}')


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Three whole ones: steps 10, 20 and 30."""
    made = Checkpoints(tmp_path / "checkpoints", keep=5)
    for step in (10, 20, 30):
        made.commit(step, _fill, best=False)
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


def test_a_save_that_was_killed_does_not_count(checkpoints: Checkpoints):
    torn = checkpoints.root / "step-00000040.tmp"
    torn.mkdir()
    _fill(torn)
    assert checkpoints.newest(pytest.fail) == checkpoints.root / "step-00000030"
    checkpoints.commit(40, _fill, best=False)
    assert not torn.exists()


@pytest.mark.parametrize("moment", ["rename", "fsync", "write_text"])
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
            checkpoints.commit(40, _fill, best=True)
    assert checkpoints.newest(pytest.fail) == checkpoints.root / "step-00000030"


def test_no_whole_checkpoint_among_damaged_ones_is_an_error_and_not_a_fresh_start(checkpoints: Checkpoints):
    for folder in checkpoints.root.glob("step-*"):
        _flip(folder)
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged; restore one, or remove the folder"):
        checkpoints.newest(lambda text: None)


def test_no_checkpoint_at_all_is_a_fresh_start(tmp_path: Path):
    assert Checkpoints(tmp_path / "nothing", keep=1).newest(pytest.fail) is None


def test_a_full_disk_is_one_sentence_and_leaves_the_older_ones(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
):
    def full(folder: Path) -> None:
        _fill(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointError, match=r"No space left on device; earlier checkpoints are intact: make room"):
        checkpoints.commit(40, full, best=True)
    assert sorted(path.name for path in checkpoints.root.iterdir()) == [f"step-{step:08d}" for step in (10, 20, 30)]
    assert all(damage(folder) is None for folder in checkpoints.root.iterdir())


def test_a_disk_that_fills_up_under_safetensors_is_told_the_same_way(checkpoints: Checkpoints):
    """Its errors are not those of the operating system: here a real one, a file that may not grow."""

    def large(folder: Path) -> None:
        save_file({"a": torch.zeros(200_000)}, folder / "model.safetensors")

    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(CheckpointError, match=r"cannot save .*step-00000040: .*; earlier checkpoints are intact"):
            checkpoints.commit(40, large, best=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert checkpoints.newest(pytest.fail) == checkpoints.root / "step-00000030"


def test_the_best_and_the_last_k_are_kept(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(1, 8):
        checkpoints.commit(step, _fill, best=step in (1, 3))
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000003", "step-00000006", "step-00000007"]
    assert checkpoints.best() == tmp_path / "step-00000003"


def test_committing_a_step_again_replaces_it(checkpoints: Checkpoints):
    folder = checkpoints.commit(30, lambda folder: (folder / "other").write_text("x") and None, best=False)
    assert sorted(path.name for path in folder.iterdir()) == [MARKER, "other"]
    assert damage(folder) is None


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_a_process_that_dies_while_it_replaces_the_only_checkpoint_loses_nothing(
    tmp_path: Path, renamed: int, monkeypatch: pytest.MonkeyPatch
):
    """After each of the renamings of a second commit of one step."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    folder = checkpoints.commit(30, _fill, best=True)
    left = [renamed]
    original = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if not left[0]:
            raise _Killed
        left[0] -= 1
        return original(self, target)

    with monkeypatch.context() as patch, suppress(_Killed):
        patch.setattr(Path, "rename", rename)
        checkpoints.commit(30, _fill, best=True)
    assert checkpoints.newest(pytest.fail) == folder
    assert checkpoints.commit(30, _fill, best=True) == folder
    assert [path.name for path in checkpoints.root.glob("step-*")] == ["step-00000030"]


class _Killed(BaseException):
    pass


def test_a_different_identity_is_refused_with_both_values(tmp_path: Path):
    require_same({"a": 1, "b": None}, {"a": 1, "b": None}, tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.dim is 64 but .* was trained with 32; give the old value back"):
        require_same({"model.dim": 32, "seed": 0}, {"model.dim": 64, "seed": 0}, tmp_path)
    with pytest.raises(CheckpointError, match=r"new is 3 but .* was trained with None"):
        require_same({}, {"new": 3}, tmp_path)
