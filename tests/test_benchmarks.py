"""The benchmarks that `make bench-quick` leaves out run; the page of reliability is what was measured."""

import json
import subprocess
import sys

import pytest

from benchmarks.reliability_page import JSON, PAGE, render
from tests.conftest import REPOSITORY

SIZES = ["--users", "300", "--items", "200", "--interactions", "3000", "--repeats", "1"]


def test_the_page_of_reliability_is_what_was_measured() -> None:
    assert PAGE.read_text() == render(json.loads(JSON.read_text())), "run python -m benchmarks.reliability --render"


def test_nothing_was_lost_in_what_was_measured() -> None:
    found = json.loads(JSON.read_text())
    assert found["kills"]["lost"] == found["matrix"]["lost"] == 0
    assert sum(len(row["kills"]) for row in found["kills"]["rows"]) >= 100


def test_the_benchmark_of_resuming_runs_small() -> None:
    command = [sys.executable, "-m", "benchmarks.resume", *SIZES]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert json.loads(done.stdout)["benchmark"] == "resume", done.stderr


@pytest.mark.slow
def test_the_benchmark_of_training_runs_small():
    sizes = {"width": 16, "layers": 1, "heads": 2, "users": 400, "items": 100, "negatives": 8, "steps": 2, "warm": 1}
    words = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    command = [sys.executable, "-m", "benchmarks.training", *words, "--repeats", "1", "--peers", "trainer"]
    done = subprocess.run([*command, "--logs", "full"], cwd=REPOSITORY, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["row"] for line in found] == ["training", "share of the products"], done.stderr
    assert all(0 < line["ratio"] < 100 for line in found)


SMALL = {
    "checkpoint": (["checkpoint"] * 4, SIZES),
    "loader": (["loader"] * 5, [*SIZES, "--steps", "3", "--batch", "32"]),
    "prepare": (["preparing"] * 3, [*SIZES, "--repeats", "2"]),
}


@pytest.mark.parametrize("name", SMALL)
def test_the_benchmarks_that_compare_run_small(name: str) -> None:
    rows, sizes = SMALL[name]
    command = [sys.executable, "-m", f"benchmarks.{name}", *sizes]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["row"] for line in found] == rows, done.stderr
    assert all(line["holds"] for line in found if line["stable"]), found
