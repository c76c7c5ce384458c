"""Saving beside training, where something goes wrong with the folder, on one rank, or with a file."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from launch.command import DONE
from launch.train import execute
from rec.data.dataset import Dataset
from rec.errors import CheckpointError, ConfigError
from rec.models import saved
from rec.ranks import Ranks
from rec.train import keeper, pieces
from rec.train.checksum import Facts
from tests.dist.runs import a_random_run, curve_of, execute_on
from tests.ranks import run_ranks


def test_a_run_folder_that_machines_do_not_share_is_refused_at_the_start(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = a_random_run(mixed, Path("runs"), "gpt2", 3)

    def rank(ranks: Ranks) -> str:
        folder = tmp_path / str(ranks.rank)
        folder.mkdir()
        os.chdir(folder)
        with pytest.raises(ConfigError) as caught:
            execute(run)
        return str(caught.value)

    for told in run_ranks(rank, 2):
        assert "is not the same folder on every machine" in told
        assert "set out=" in told


def test_the_best_model_is_published_in_the_first_ranks_own_time(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nobody waits in an exchange for what only the first rank does, so a slow disk is no hung rank."""
    original = saved.publish

    def slow(*arguments: Any) -> None:
        time.sleep(4)
        original(*arguments)

    monkeypatch.setattr(keeper, "publish", slow)
    monkeypatch.setattr(keeper, "PATIENCE", 1)
    run = a_random_run(mixed, tmp_path, "gpt2", 3, steps=2, hang_after=3)
    assert execute_on(run, 2) == DONE


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError("none left")])
def test_a_part_that_one_rank_cannot_write_ends_all_ranks_alike(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    run = a_random_run(mixed, tmp_path, "gpt2", 3, save_every=2, hang_after=20)
    original = pieces.write

    def rank(ranks: Ranks) -> str:
        def write(path: Path, *arguments: Any) -> Facts:
            if ranks.rank == 1 and "00000004" in str(path):
                raise error
            return original(path, *arguments)

        monkeypatch.setattr(keeper, "write", write)
        begun = time.monotonic()
        with pytest.raises((CheckpointError, MemoryError)) as caught:
            execute(run)
        assert time.monotonic() - begun < 15
        return str(caught.value)

    for told in run_ranks(rank, 2):
        assert ("earlier checkpoints are intact: make room" if isinstance(error, OSError) else "none left") in told
    folders = sorted(path.name for path in (run.folder / "checkpoints").glob("step-*"))
    assert folders == ["step-00000002"]


def test_a_damaged_best_checkpoint_is_not_published(mixed: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    run = a_random_run(mixed, tmp_path, "gpt2")
    assert execute_on(run, 1) == DONE
    best = run.folder / "checkpoints" / (run.folder / "checkpoints/best").read_text().strip()
    assert best.name != "step-00000006", "the newest would be passed over as damaged"
    part = next(best.glob("rank-*"))
    content = bytearray(part.read_bytes())
    content[-9] ^= 1
    part.write_bytes(content)
    shutil.rmtree(run.folder / "model")
    curve = curve_of(run)
    assert execute_on(run, 1) == DONE
    assert f"{best} is damaged ({part.name} has another checksum) and is not published" in capfd.readouterr().err
    assert not (run.folder / "model").exists()
    assert curve_of(run) == curve
