"""`accelerate launch` with the files of this repository, and with a user's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.command import DONE, FAILED
from rec.config.load import dump
from rec.config.tree import Run
from rec.data.dataset import Dataset
from tests.dist.runs import a_random_run, assert_close, curve_of, execute_on

pytest.importorskip("deepspeed", reason="install kindling[deepspeed]")

ROOT = Path(__file__).parents[2]
FILES = sorted(path.stem for path in (ROOT / "configs" / "accelerate").glob("*.yaml") if path.stem != "fsdp2")
"""Those of configs/accelerate that not every suite launches. All but one are named after their strategy."""


@pytest.fixture(scope="module")
def alone(mixed: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = a_random_run(mixed, tmp_path_factory.mktemp("alone"), "qwen3")
    assert execute_on(run, 1) == DONE
    return run


def launched(mixed: Dataset, folder: Path, words: list[object], cwd: Path) -> tuple[Run, int, str]:
    """A run under `accelerate launch WORDS`, its exit code, and all that it said."""
    run = a_random_run(mixed, folder, "qwen3", 3)
    (folder / "run.yaml").write_text(dump(run))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    for name in ("MASTER_ADDR", "MASTER_PORT"):  # conftest sets them for the tests' own process
        environment.pop(name, None)
    start = [sys.executable, "-m", "accelerate.commands.launch", *words, "-m", "launch.train", folder / "run.yaml"]
    done = subprocess.run(
        [*map(str, start)], cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=300,
    )  # fmt: skip
    return run, done.returncode, done.stdout


def assert_trained(run: Run, alone: Run, code: int, said: str, strategy: str) -> None:
    assert code == DONE, said
    assert f"on 2 processes ({strategy})" in said
    assert said.count("\n") == len(curve_of(run)) + 6, said  # nothing that a user can do nothing about
    assert_close(curve_of(run), curve_of(alone), strategy)


def test_the_file_at_the_root_is_zero2_as_ds_config_json_says(mixed: Dataset, tmp_path: Path, alone: Run):
    words = ["--config_file", "accelerate_config.yaml", "--num_processes", 2]
    run, code, said = launched(mixed, tmp_path, words, ROOT)
    assert_trained(run, alone, code, said, "zero2")


def test_fsdp2_is_launched_without_a_gpu(mixed: Dataset, tmp_path: Path, alone: Run):
    words = ["--config_file", ROOT / "configs/accelerate/fsdp2.yaml", "--num_processes", 2]
    run, code, said = launched(mixed, tmp_path, words, tmp_path)
    assert_trained(run, alone, code, said, "fsdp2")


def test_fewer_processes_than_asked_for_is_an_error(mixed: Dataset, tmp_path: Path):
    _, code, said = launched(mixed, tmp_path, ["--cpu", "--num_processes", 2], tmp_path)
    assert code == FAILED  # Accelerate's own word for our 2
    assert "`accelerate launch` was asked for 2 processes but started one" in said
    assert "returned non-zero exit status 2" in said


@pytest.mark.launchers
@pytest.mark.parametrize("name", FILES)
def test_each_file_launches_its_strategy(mixed: Dataset, tmp_path: Path, alone: Run, name: str):
    words = ["--config_file", ROOT / f"configs/accelerate/{name}.yaml", "--num_processes", 2]
    run, code, said = launched(mixed, tmp_path, words, tmp_path)
    assert_trained(run, alone, code, said, {"cpu2": "ddp"}.get(name, name))


@pytest.mark.launchers
def test_a_users_own_files_in_another_folder_are_found_from_the_current_one(mixed: Dataset, tmp_path: Path, alone: Run):
    mine = tmp_path / "mine"
    mine.mkdir()
    zero = {"stage": 3, "reduce_bucket_size": "auto", "offload_optimizer": {"device": "cpu"}}
    (mine / "z3.json").write_text(json.dumps({"zero_optimization": zero, "train_batch_size": 12}))
    text = (ROOT / "accelerate_config.yaml").read_text().replace("ds_config.json", "mine/z3.json")
    (mine / "launch.yaml").write_text(text)
    words = ["--config_file", "mine/launch.yaml", "--num_processes", 2]
    run, code, said = launched(mixed, tmp_path, words, tmp_path)
    assert_trained(run, alone, code, said, "zero3")

    (mine / "z3.json").write_text(json.dumps({"zero_optimization": zero, "train_batch_size": 16}))
    (tmp_path / "again").mkdir()
    _, code, said = launched(mixed, tmp_path / "again", words, tmp_path)
    assert code == FAILED
    assert said.count("the DeepSpeed file says train_batch_size=16 but data.global_batch is 12") == 1
