"""A job without Slurm: its commands write down how they were called, and a run obeys."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import REPOSITORY

RECORD = """#!/usr/bin/env bash
{ printf '%s' "${0##*/}"; printf '\\x1f%s' "$@"; printf '\\n'; } >>"$FAKES/calls"
"""
SRUN = f"""{RECORD}
while [[ $1 == --* ]]; do shift; done
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do SLURM_NODEID=$node SLURMD_NODENAME=node$node "$@"; done
"""
TORCHRUN = f"""{RECORD}
env | grep -E '^(OMP_NUM_THREADS|TORCH_|SLURM_NTASKS|SLURM_GPUS_PER_TASK)' | sort >"$FAKES/environment"
cd "$FAKES/run" && source "$FAKES/training.sh"
"""
# A requeue ends everything in the job, the script that asked for it too.
SCONTROL = f'{RECORD}\nkill -TERM "$PPID"\n'
SQUEUE = '#!/usr/bin/env bash\ncat "$FAKES/limit"\n'


@dataclass
class Job:
    """One batch job on a node of its own; what training does is a piece of bash, run in the folder of the run."""

    folder: Path
    given: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.run = self.folder / "run"
        self.run.mkdir(exist_ok=True)
        (self.folder / "config.yaml").write_text("dataset: data\nmodel: {kind: soft_token}\n")
        self.ends_in(None)
        for name, text in {"srun": SRUN, "torchrun": TORCHRUN, "scontrol": SCONTROL, "squeue": SQUEUE}.items():
            self.command(name, text)

    def command(self, name: str, text: str) -> None:
        """Puts a command before those of the machine."""
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def ends_in(self, seconds: int | None) -> None:
        """Sets the time limit of the job."""
        (self.folder / "limit").write_text("NONE\n" if seconds is None else f"{int(time.time()) + seconds}\n")

    @property
    def calls(self) -> list[str]:
        """What was called, in order; folders of the test and the name of this machine are replaced."""
        file = self.folder / "calls"
        text = file.read_text() if file.is_file() else ""
        text = text.replace(str(self.folder), "FOLDER").replace(f"{_hostname()}:", "HOST:")
        return [shlex.join(line.split("\x1f")) for line in text.split("\n") if line]

    @property
    def environment(self) -> list[str]:
        return (self.folder / "environment").read_text().splitlines()

    def start(self, training: str = "true", script: str = "train", *words: str) -> "subprocess.Popen[str]":
        """Starts slurm/SCRIPT.sh as Slurm would: from a copy, in the folder where it was submitted."""
        (self.folder / "training.sh").write_text(training)
        copy = self.folder / "slurm_script"
        copy.write_bytes((REPOSITORY / "slurm" / f"{script}.sh").read_bytes())
        if script == "train":
            words = (str(self.folder / "config.yaml"), f"out={self.folder}", "name=run", *words)
        return subprocess.Popen(
            ["bash", str(copy), *words], env=self._environment(), stderr=subprocess.PIPE, text=True, cwd="/"
        )

    def result(self, training: str = "true", script: str = "train", *words: str) -> tuple[int, str]:
        """The exit code of a whole job, and what it said to stderr."""
        process = self.start(training, script, *words)
        said = process.communicate(timeout=60)[1]
        return process.returncode, said

    def _environment(self) -> dict[str, str]:
        outside = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "OMP", "KINDLING"))}
        path = os.pathsep.join([str(self.folder), str(Path(sys.executable).parent), os.environ["PATH"]])
        own = {"FAKES": str(self.folder), "PATH": path, "VIRTUAL_ENV": "given", "PYTHONPATH": str(REPOSITORY)}
        slurm = {"SLURM_SUBMIT_DIR": str(REPOSITORY), "SLURM_JOB_ID": "1234567", "SLURM_JOB_NUM_NODES": "1"}
        return {**outside, **own, **slurm, **self.given}


def until(reached: Callable[[], bool], seconds: float = 30, every: float = 0.05) -> None:
    """Waits; AssertionError where it never comes."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every)


def _hostname() -> str:
    return subprocess.run(["hostname"], capture_output=True, text=True, check=True).stdout.strip()
