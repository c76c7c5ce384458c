"""The page that says where the time of a step goes."""

import gzip
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from launch.command import DONE, WRONG_INPUT
from launch.train import arguments, execute
from rec.config.tree import Run
from rec.data.dataset import Dataset
from rec.train.profile import PARTS, WARM, page
from tests.train.runs import lines, make_run


def event(key: str, total: float, own: float, count: int = 1) -> SimpleNamespace:
    """As of `key_averages`, in microseconds."""
    return SimpleNamespace(
        key=key, count=count, cpu_time_total=total, self_cpu_time_total=own, self_device_time_total=0.0
    )


def test_the_page_divides_a_step_into_its_parts_and_its_operations():
    events = [
        event("ProfilerStep*", 20_000, 500, 2),
        event("kindling: forward", 6_000, 100, 4),
        event("kindling: backward", 10_000, 100, 4),
        event("aten::mm", 9_000, 9_000, 20),
        event("aten::mul", 3_000, 3_000, 8),
    ]
    text = page("# Title", 2, events)
    assert "10.0 ms a step" in text
    assert "| forward | 3.0 | 30.0% | 2 |" in text
    assert "| backward | 5.0 | 50.0% | 2 |" in text
    assert "| everything else | 2.0 | 20.0% | 1 |" in text
    assert "products, attention's included, are 75% of the 6.0 ms" in text
    assert text.index("aten::mm") < text.index("aten::mul")


def test_a_profiled_run_has_a_page_and_a_trace_and_the_curve_of_any_other(whole: Run, mixed: Dataset, tmp_path: Path):
    run = make_run(mixed, tmp_path)
    assert execute(run, profile=4) == DONE
    text = (run.folder / "profile/page.md").read_text()
    assert text.startswith(f"# Steps {WARM + 1} to {WARM + 4}:")
    shares = {
        name: float(share) for name, share in re.findall(r"^\| ([^|]+) \| [\d.,]+ \| ([\d.]+)%", text, re.MULTILINE)
    }
    named = [shares[name] for name in (*PARTS, "everything else") if name in shares]
    assert {"waiting for data", "forward", "backward", "update", "evaluation", "saving"} <= shares.keys()
    assert abs(sum(named) - 100) < 1
    with gzip.open(run.folder / "profile/trace.json.gz", "rt") as file:
        assert {one.get("name") for one in json.load(file)["traceEvents"]} >= {"kindling: forward", "aten::mm"}
    losses = [[line["train/loss"] for line in lines(one) if "train/loss" in line] for one in (run, whole)]
    assert losses[0] == losses[1]


def test_nothing_is_profiled_unless_asked(whole: Run):
    assert not (whole.folder / "profile").exists()


@pytest.mark.parametrize(
    ("words", "steps"), [((), 0), (("--profile",), 10), (("--profile", "3"), 3), (("--profile=3", "seed=1"), 3)]
)
def test_it_is_asked_for_where_a_run_is_started(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], steps: int):
    monkeypatch.setattr(sys, "argv", ["kindling train", "run.yaml", *words])
    assert arguments().profile == steps


@pytest.mark.parametrize("word", ["0", "-1", "2.5", "seed=1"])
def test_what_is_no_number_of_steps_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
):
    monkeypatch.setattr(sys, "argv", ["kindling train", "run.yaml", f"--profile={word}"])
    with pytest.raises(SystemExit) as ended:
        arguments()
    assert ended.value.code == WRONG_INPUT
    assert f"argument --profile: {word} is no number of steps; give 1 or more, or put --profile last" in (
        " ".join(capsys.readouterr().err.split())
    )
