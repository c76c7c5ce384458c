"""A run under a real Slurm on this machine: asked to stop, requeued, and requeued during a save, it loses nothing.

`make slurm` installs Slurm and runs this.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rec.data.dataset import Dataset
from tests.conftest import REPOSITORY
from tests.slurm.fakes import until

pytestmark = pytest.mark.slurm

STEPS = 90
# Word vectors that nothing reads cost no time in a step, and make a save long enough to be met.
SHAPE = "config: {n_embd: 128, n_layer: 4, n_head: 4, n_positions: 64, vocab_size: 50_000}"
CONFIG = f"""
model: {{kind: soft_token, dim: 64, dropout: 0.1, user_dropout: 0.3, backbone: {{architecture: gpt2, {SHAPE}}}}}
data: {{global_batch: 32, micro_batch: 16, max_items: 32}}
train: {{steps: {STEPS}, save_every: 5, log_every: 1, trackers: []}}
eval: {{every: 30}}
"""


@dataclass
class Slurm:
    """A Slurm of one node, and the environment in which its clients find it."""

    environment: dict[str, str]

    def call(self, *words: str) -> str:
        ended = subprocess.run(words, env=self.environment, cwd=REPOSITORY, capture_output=True, text=True)
        assert ended.returncode == 0, f"{words}: {ended.stdout}{ended.stderr}"
        return ended.stdout.strip()

    def train(self, config: Path, name: str) -> "Job":
        out = config.parent
        options = ("--parsable", "--ntasks-per-node=2", f"--output={out / name}.out")
        number = self.call("sbatch", *options, "slurm/train.sh", str(config), f"name={name}", f"out={out}")
        return Job(self, number, out / name)


@dataclass
class Job:
    """A training job and the folder of its run."""

    slurm: Slurm
    number: str
    run: Path

    def about(self, key: str) -> str:
        words = self.slurm.call("scontrol", "show", "--oneliner", "job", self.number).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{key}="))

    @property
    def output(self) -> str:
        return self.run.with_suffix(".out").read_text()

    @property
    def status(self) -> dict[str, Any]:
        file = self.run / "status.json"
        return json.loads(file.read_text()) if file.is_file() else {"state": "none", "step": 0}

    def measured(self) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl without time and speed."""
        file = self.run / "metrics.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
        kept = ("step", "train/", "valid/")
        return [{key: value for key, value in line.items() if key.startswith(kept)} for line in lines]

    def until_step(self, step: int) -> None:
        def reached() -> bool:
            assert self.about("JobState") in ("PENDING", "RUNNING", "CONFIGURING"), self.output
            file = self.run / "metrics.jsonl"
            return self.status["state"] == "running" and file.is_file() and f'"step": {step},' in file.read_text()

        until(reached, 90, every=0.2)

    def until_it_saves(self) -> None:
        until(lambda: bool(list((self.run / "checkpoints").glob("*.tmp"))), 60, every=0.001)

    def goes_on(self, restarts: int) -> None:
        """Waits for the job to be queued once more, and does not wait for the two minutes that Slurm lets pass."""
        until(lambda: (self.about("JobState"), self.about("Restarts")) == ("PENDING", str(restarts)), 60, every=0.2)
        assert self.status["state"] == "stopped", self.output
        self.slurm.call("scontrol", "update", f"JobId={self.number}", "StartTime=now")

    def until_completed(self) -> None:
        until(lambda: self.about("JobState") not in ("PENDING", "RUNNING", "COMPLETING"), 120, every=0.5)
        assert (self.about("JobState"), self.status["state"]) == ("COMPLETED", "done"), self.output


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if os.geteuid() != 0:
        pytest.skip("munge and slurmd are started by root only")
    if not shutil.which("slurmctld", path="/usr/sbin"):
        pytest.skip("no Slurm here: tests/slurm/install.sh installs it")
    folder = tmp_path_factory.mktemp("slurm")
    start = str(REPOSITORY / "tests/slurm/start.sh")
    try:
        subprocess.run([start, str(folder)], check=True, timeout=60)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        own = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path, "PYTHONPATH": str(REPOSITORY)}
        threads = {"OMP_NUM_THREADS": "1", "VIRTUAL_ENV": str(Path(sys.executable).parents[1])}
        yield Slurm({**os.environ, **own, **threads})
    finally:
        subprocess.run([start, "--stop", str(folder)], check=True, timeout=60)


def _weights(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the published model and of the last checkpoint: parameters and moments."""
    files = [*(run / "model").glob("*.safetensors"), *(run / f"checkpoints/step-{STEPS:08d}").glob("*.safetensors")]
    assert len(files) > 1
    return {f"{file.name} {name}": value for file in files for name, value in load_file(file).items()}


def test_a_job_that_is_stopped_and_requeued_ends_as_if_nothing_had_happened(
    slurm: Slurm, rings: Dataset, tmp_path: Path
):
    config = tmp_path / "config.yaml"
    config.write_text(f"dataset: {rings.root}\n{CONFIG}")
    calm = slurm.train(config, "calm")
    calm.until_completed()

    moved = slurm.train(config, "moved")
    moved.until_step(8)
    slurm.call("scancel", "--batch", "--signal=USR1", moved.number)  # what Slurm sends near the time limit
    moved.goes_on(restarts=1)
    moved.until_step(moved.status["step"] + 8)
    slurm.call("scontrol", "requeue", moved.number)
    moved.goes_on(restarts=2)
    moved.until_step(moved.status["step"] + 1)
    moved.until_it_saves()
    slurm.call("scontrol", "requeue", moved.number)
    moved.goes_on(restarts=3)
    assert moved.status["step"] < STEPS, "the run was too fast for this test"
    moved.until_completed()

    assert moved.about("Restarts") == "3"
    assert moved.output.count("going on from step") == 3
    assert [line["step"] for line in moved.measured() if "train/loss" in line] == list(range(1, STEPS + 1))
    assert moved.measured() == calm.measured()
    expected, weights = _weights(calm.run), _weights(moved.run)
    assert weights.keys() == expected.keys()
    assert not [name for name, value in weights.items() if not torch.equal(value, expected[name])]
    assert list((moved.run / "logs").glob("*/*/attempt_0/1/stderr.log"))  # a log a rank
