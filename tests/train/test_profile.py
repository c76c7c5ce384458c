"""The page that says where the time of a step goes."""

import gzip
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.autograd import DeviceType

from launch.command import DONE, WRONG_INPUT
from launch.train import arguments, execute
from rec.config.tree import Eval, Run
from rec.data.dataset import Dataset
from rec.train.profile import PARTS, WARM, Profiler, page
from tests.train.runs import lines, make_run, train


def event(
    key: str, total: float, own: float, count: int = 1, kernels: float = 0.0, where: DeviceType = DeviceType.CPU
) -> SimpleNamespace:
    """As of `key_averages`, in microseconds."""
    return SimpleNamespace(
        key=key,
        count=count,
        cpu_time_total=total,
        self_cpu_time_total=own,
        self_device_time_total=kernels,
        device_type=where,
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


def test_what_a_gpu_has_of_the_same_names_is_not_counted_again(tmp_path: Path):
    """The profiler lists our words and each kernel a second time, as they lay on the device."""
    events = [
        event("ProfilerStep*", 20_000, 500, 2),
        event("kindling: forward", 6_000, 100, 4),
        event("kindling: update", 2_000, 100, 2),
        event("aten::mm", 9_000, 900, 20, kernels=9_000),
        event("aten::mul", 3_000, 300, 8, kernels=3_000),
        event("ProfilerStep*", 0, 0, 2, kernels=19_000, where=DeviceType.CUDA),
        event("kindling: forward", 0, 0, 4, kernels=5_000, where=DeviceType.CUDA),
        event("kindling: update", 0, 0, 2, kernels=5_000, where=DeviceType.CUDA),
        event("sm90_xmma_kernel", 0, 0, 20, kernels=9_000, where=DeviceType.CUDA),
    ]
    profiler = Profiler(tmp_path, 2, 0)
    profiler._write(SimpleNamespace(key_averages=lambda: events, export_chrome_trace=lambda _: None))
    text = (tmp_path / "page.md").read_text()
    assert text.startswith(f"# Steps {WARM + 1} to {WARM + 2}:")
    assert "10.0 ms a step" in text
    assert "| forward | 3.0 | 30.0% | 2 |" in text
    assert "are 75% of the 6.0 ms that operations take on the GPU" in text
    assert "xmma" not in text


@pytest.mark.parametrize("steps", [WARM - 1, WARM, WARM + 1, WARM + 3])
def test_a_run_that_ends_before_it_is_profiled_counts_the_steps_there_were(
    mixed: Dataset, tmp_path: Path, steps: int, capsys: pytest.CaptureFixture[str]
):
    run = make_run(mixed, tmp_path, train=train(steps=steps), eval=Eval())
    assert execute(run, profile=10) == DONE
    said = capsys.readouterr().err
    if steps <= WARM:
        assert not (run.folder / "profile").exists()
        assert f"not profiled: there were no steps after the first {WARM}" in said
        return
    text = (run.folder / "profile/page.md").read_text()
    assert text.startswith(f"# Steps {WARM + 1} to {steps}:")
    assert re.search(r"^\| update \| .* \| 1 \|$", text, re.MULTILINE)
    assert f"{run.folder}/profile/page.md" in said


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
