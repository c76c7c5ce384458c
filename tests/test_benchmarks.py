"""The benchmarks run, and the page of reliability is what was measured."""

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


def test_the_benchmark_of_the_graph_runs_small() -> None:
    command = [sys.executable, "-m", "benchmarks.graph", *SIZES[:-2]]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert {"graph", "reference", "edges"} <= json.loads(done.stdout).keys(), done.stderr


def test_the_benchmark_of_attention_runs_small() -> None:
    sizes = ["--users", "100", "--windows", "4", "--widths", "32", "--layers", "1", "--repeats", "1"]
    command = [sys.executable, "-m", "benchmarks.attention", *sizes]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert {"ratio", "lookup"} <= json.loads(done.stdout).keys(), done.stderr


def test_the_benchmark_of_resuming_runs_small() -> None:
    command = [sys.executable, "-m", "benchmarks.resume", *SIZES]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert json.loads(done.stdout)["benchmark"] == "resume", done.stderr


SMALL = {
    "checkpoint": (["checkpoint"] * 4, SIZES),
    "loader": (["loader"] * 5, [*SIZES, "--steps", "3", "--batch", "32"]),
    "prepare": (["preparing"] * 3, SIZES),
    "ranking": (["full ranking"] * 4, ["--items", "3000", "--users", "300", "--repeats", "1"]),
}
NEEDS = {"prepare": "polars", "ranking": "faiss"}


@pytest.mark.parametrize("name", SMALL)
def test_the_benchmarks_that_compare_run_small(name: str) -> None:
    pytest.importorskip(NEEDS.get(name, "torch"))
    rows, sizes = SMALL[name]
    command = [sys.executable, "-m", f"benchmarks.{name}", *sizes]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["row"] for line in found] == rows, done.stderr
    assert all(line["holds"] for line in found if line["stable"]), found
