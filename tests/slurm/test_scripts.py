"""The batch scripts, without Slurm: what they start, and what they make of its end."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.slurm.fakes import Job, until

GOLDEN = REPOSITORY / "tests/golden"
SCRIPTS = sorted([*REPOSITORY.glob("slurm/*.sh"), *REPOSITORY.glob("tests/slurm/*.sh"), REPOSITORY / ".ci/run"])

WORKS = """
say() { printf '{"state": "%s", "step": %d, "steps": 90, "code": null, "time": %d}' "$@" $RANDOM >status.json; }
asked() {
    for _ in {1..400}; do [[ -f STOP ]] && return || sleep 0.05; done
    exit 1
}
say running 0
"""
WAITS = f"{WORKS} asked; say stopped 40"


def _asked_to_stop(job: Job, training: str) -> int:
    """The exit code of a job to which its time limit is announced as soon as the run is there."""
    (job.run / "status.json").unlink(missing_ok=True)
    process = job.start(training)
    until((job.run / "status.json").is_file)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    return process.returncode


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound(script: Path):
    linter = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    assert linter, "shellcheck is one of the dev extras"
    for command in (["bash", "-n", script], [linter, "-x", script]):
        ended = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("nodes", "given"),
    [
        ("one_node", {"SLURM_NTASKS": "2", "SLURM_CPUS_ON_NODE": "6", "KINDLING_STAGE": "/disk/of node"}),
        ("two_nodes", {"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8", "SLURM_CPUS_ON_NODE": "64"}),
    ],
)
def test_what_a_job_starts_is_as_written_down(tmp_path: Path, nodes: str, given: dict[str, str]):
    job = Job(tmp_path, given)
    assert job.result(f"{WORKS} say done 90", "train", "optim.lr=1e-3", "--strategy", "zero2")[0] == 0
    rendered = "".join(line.replace(" --", " \\\n  --") + "\n" for line in [*job.calls, *job.environment])
    assert rendered == (GOLDEN / f"slurm_{nodes}.txt").read_text()


@pytest.mark.parametrize(
    ("given", "processes"),
    [
        ({}, 1),
        ({"SLURM_NTASKS": "6", "SLURM_JOB_NUM_NODES": "2"}, 3),
        ({"SLURM_GPUS_PER_NODE": "h100:4"}, 4),
        ({"SLURM_GPUS_ON_NODE": "2", "SLURM_NTASKS": "16", "SLURM_GPUS_PER_TASK": "1"}, 2),
    ],
)
def test_a_node_runs_a_process_a_gpu_and_else_one_a_task(tmp_path: Path, given: dict[str, str], processes: int):
    job = Job(tmp_path, given)
    job.result(f"{WORKS} say done 90")
    assert f"--nproc-per-node {processes} " in job.calls[-1]
    assert not [line for line in job.environment if line.startswith("SLURM_")]  # the step does not count tasks


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_only_asks_the_run_to_stop_and_waits_for_it(tmp_path: Path, number: signal.Signals):
    job = Job(tmp_path)
    process = job.start(f"{WORKS} asked; sleep 1; say stopped 40; touch saved")
    until((job.run / "status.json").is_file)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert (job.run / "saved").is_file()
    assert not (job.run / "STOP").exists()


def test_a_run_that_takes_the_stop_file_away_while_it_starts_is_asked_again(tmp_path: Path):
    job = Job(tmp_path)
    process = job.start(f"{WORKS} asked; rm STOP; {WAITS}")
    until((job.run / "status.json").is_file)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    assert job.calls[-1] == "scontrol requeue 1234567"


def test_near_the_time_limit_the_job_is_queued_again_as_long_as_it_gets_further(tmp_path: Path):
    outcomes = []
    for restart, step in enumerate((40, 40, 70)):
        job = Job(tmp_path, {"SLURM_RESTART_COUNT": str(restart)})
        (job.run / "status.json").unlink(missing_ok=True)
        (tmp_path / "calls").unlink(missing_ok=True)
        process = job.start(WAITS.replace("stopped 40", f"stopped {step}"))
        until((job.run / "status.json").is_file)
        process.send_signal(signal.SIGUSR1)
        said = process.communicate(timeout=30)[1]
        outcomes.append((process.returncode, job.calls[-1].startswith("scontrol requeue"), "longer --time" in said))
    assert outcomes == [(0, True, False), (3, False, True), (0, True, False)]


@pytest.mark.parametrize("number", [signal.SIGTERM, None])
def test_a_run_that_was_stopped_for_another_reason_is_not_queued_again(tmp_path: Path, number: signal.Signals | None):
    """After SIGTERM Slurm queues the job again by itself, where it does; a person's STOP file means stop."""
    job = Job(tmp_path)
    process = job.start(WAITS)
    until((job.run / "status.json").is_file)
    (job.run / "STOP").touch() if number is None else process.send_signal(number)
    said = process.communicate(timeout=30)[1]
    assert (process.returncode, "saved at step 40" in said) == (3, True)
    assert not [call for call in job.calls if call.startswith("scontrol")]


def test_a_number_of_a_job_that_comes_again_brings_nothing_along(tmp_path: Path):
    job = Job(tmp_path)
    (job.run / "logs").mkdir()
    (job.run / "logs/requeued-1234567").write_text("80\n")
    assert _asked_to_stop(job, WAITS) == 0
    assert job.calls[-1] == "scontrol requeue 1234567"


def test_a_run_that_does_not_stop_in_time_is_queued_again_if_it_got_further(tmp_path: Path):
    """Its last checkpoint counts; the requeue ends the run, and must not ask the next start to stop."""
    codes, requeues = [], []
    for restart in range(2):
        job = Job(tmp_path, {"SLURM_RESTART_COUNT": str(restart)})
        job.ends_in(20)
        (tmp_path / "calls").unlink(missing_ok=True)
        codes.append(_asked_to_stop(job, f"{WORKS} say running 50; asked; sleep 3"))
        requeues.append(job.calls.count("scontrol requeue 1234567"))
        assert not (job.run / "STOP").exists()
    assert (codes, requeues) == ([0, 1], [1, 0])


def test_a_run_has_its_time_to_stop_before_it_is_queued_again(tmp_path: Path):
    job = Job(tmp_path)
    job.ends_in(300)
    training = 'say running 50; asked; sleep 2; grep -s scontrol "$FAKES/calls" && exit 1; say stopped 60'
    assert _asked_to_stop(job, f"{WORKS} {training}") == 0
    assert (job.run / "logs/requeued-1234567").read_text() == "60"


@pytest.mark.parametrize("state", ["failed", "done"])
def test_a_run_that_ended_is_not_queued_again_while_its_launcher_lingers(tmp_path: Path, state: str):
    job = Job(tmp_path)
    job.ends_in(20)
    assert _asked_to_stop(job, f"{WORKS} asked; say {state} 50; sleep 2") == (state == "failed")
    assert not [call for call in job.calls if call.startswith("scontrol")]


@pytest.mark.parametrize(("left", "requeues", "code"), [(0, 1, 0), (100, 0, 3), (None, 0, 3)])
def test_after_the_announced_limit_the_limit_itself_is_no_new_reason_but_scancel_is(
    tmp_path: Path, left: int | None, requeues: int, code: int
):
    job = Job(tmp_path)
    job.ends_in(left)
    process = job.start(f"{WORKS} asked; touch seen; until [[ -f limit ]]; do sleep 0.05; done; say stopped 40")
    until((job.run / "status.json").is_file)
    process.send_signal(signal.SIGUSR1)
    until((job.run / "seen").is_file)
    process.send_signal(signal.SIGTERM)
    (job.run / "STOP").unlink()
    until((job.run / "STOP").is_file)
    (job.run / "limit").touch()
    process.communicate(timeout=30)
    assert (process.returncode, job.calls.count("scontrol requeue 1234567")) == (code, requeues)


def test_a_disk_on_which_nothing_can_be_written_ends_no_run(tmp_path: Path):
    job = Job(tmp_path)
    job.command("touch", "#!/usr/bin/env bash\necho no room >&2\nexit 1\n")
    assert _asked_to_stop(job, f"{WORKS} sleep 3; say done 90") == 0


@pytest.mark.parametrize(
    ("training", "code", "words"),
    [
        (f"{WORKS} say done 90", 0, ""),
        (f"{WORKS} say done 90; exit 1", 0, ""),  # what a launcher says does not count
        (f"{WORKS} say failed 30", 1, "failed at step 30"),
        (f"{WORKS} kill -9 $$", 1, "failed at step 0"),
        ("exit 2", 1, "did not start"),
        ("true", 1, "did not start"),
    ],
)
def test_the_status_of_the_run_decides_and_not_an_exit_code(tmp_path: Path, training: str, code: int, words: str):
    job = Job(tmp_path)
    ended, said = job.result(training)
    assert (ended, words in said) == (code, True), said
    assert not [call for call in job.calls if call.startswith("scontrol")]


def test_a_failure_near_the_time_limit_is_a_failure(tmp_path: Path):
    job = Job(tmp_path)
    process = job.start(f"{WORKS} asked; say failed 40; exit 1")
    until((job.run / "status.json").is_file)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=30)
    assert process.returncode == 1
    assert not [call for call in job.calls if call.startswith("scontrol")]


@pytest.mark.parametrize("state", ["done", "stopped"])
def test_what_an_earlier_start_said_does_not_count(tmp_path: Path, state: str):
    job = Job(tmp_path)
    assert job.result(f"{WORKS} say {state} 90")[0] in (0, 3)
    code, said = job.result("exit 1")
    assert (code, "did not start" in said) == (1, True)


def test_a_wrong_key_ends_the_job_before_anything_is_started(tmp_path: Path):
    job = Job(tmp_path)
    code, said = job.result("true", "train", "optim.rl=1")
    assert (code, job.calls) == (2, [])
    assert "did you mean" in said


def test_the_other_verbs_are_jobs_too(tmp_path: Path):
    job = Job(tmp_path, {"SLURM_GPUS_ON_NODE": "2"})
    assert job.result("true", "evaluate", str(job.run), "--split", "test") == (0, "")
    assert job.calls[-1].endswith(" -m launch.evaluate FOLDER/run --split test")
    assert job.result("true", "evaluate", str(tmp_path / "nothing"))[0] == 2
    for verb in ("prepare", "embed"):
        code, said = job.result("true", verb, "--help")
        assert (code, said) == (0, "")


def test_the_commands_of_the_readme_name_scripts_and_configurations_that_are_there():
    text = (REPOSITORY / "slurm/README.md").read_text()
    named = re.findall(r"(?:slurm/\w+\.sh|configs/\S+\.yaml)", text)
    assert {"slurm/train.sh", "slurm/prepare.sh", "slurm/embed.sh", "slurm/evaluate.sh"} <= set(named)
    assert all((REPOSITORY / name).is_file() for name in named)
