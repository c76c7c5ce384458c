"""What the benchmarks share: things measured in turn, memory, lines of JSON, and the table made of them."""

import json

import numpy as np
import pytest

from benchmarks import page
from benchmarks.measure import in_turn, peak_memory, ratio, tell


def test_cases_take_turns_and_the_first_round_is_left_out() -> None:
    order: list[str] = []
    time = iter(range(100))
    cases = {"one": lambda: order.append("one"), "other": lambda: order.append("other")}
    seconds = in_turn(cases, 2, clock=lambda: float(next(time)))
    assert order == ["one", "other"] * 3
    assert seconds == {"one": [1.0, 1.0], "other": [1.0, 1.0]}


def test_a_ratio_is_of_neighbours_and_not_of_medians() -> None:
    assert ratio({"ours": [1.0, 20.0, 3.0], "theirs": [1.0, 10.0, 1.0]}, "ours", "theirs") == 2.0


def test_the_peak_of_memory_is_of_the_case_alone() -> None:
    held = np.ones(50 << 17)  # 50 MB that stay
    assert peak_memory(lambda: np.ones(100 << 17).sum()) == pytest.approx(100, abs=10)
    assert peak_memory(lambda: None) < 10
    assert held.all()


def test_a_comparison_says_whether_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    tell("head", "small", unit="s", ours=1.0, reference=4.0, against="naive", at_most=0.2)
    line = json.loads(capsys.readouterr().out)
    assert (line["ratio"], line["holds"], line["stable"]) == (0.25, False, False)
    assert {"versions", "machine"} <= line.keys()


def test_the_table_lies_between_its_marks_and_leaves_the_page_alone(
    tmp_path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tell("head", "small", unit="s", ours=1234.0, reference=4.0, against="naive", at_least=2)
    line = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(page, "LINES", tmp_path / "lines.json")
    page.PAGE.write_text(f"above\n{page.BEGIN}\nold\n{page.END}\nbelow\n")
    page.write({"head": [line]})
    text = page.PAGE.read_text()
    assert text.startswith("above\n")
    assert text.endswith("\nbelow\n")
    assert "old" not in text
    assert "| head | small | 1,234 s | 4 s | naive | **308** | ≥ 2 | yes |" in text
    assert json.loads(page.LINES.read_text()) == {"head": [line]}
