"""Every command of docs/data.md is understood."""

import shlex
from pathlib import Path

import pytest

from launch import graph, prepare, synthesize
from rec.data.raw.formats import FORMATS

PAGE = Path(__file__).parents[2] / "docs/data.md"
COMMANDS = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("kindling ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_documented_command_is_understood(line: str) -> None:
    _, verb, *words = shlex.split(line)
    {"prepare": prepare, "synthesize": synthesize, "graph": graph}[verb].parser().parse_args(words)


def test_the_page_names_every_format_and_every_option() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in FORMATS if f"`{name}`" not in page] == []
    options = [name for group in prepare.GROUPS.values() for name in group]
    assert [name for name in options if f"--{name}" not in page] == []
