"""What the README and the documents say can be typed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rec.config.load import load

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
VERBS = (
    "prepare",
    "synthesize",
    "embed",
    "graph",
    "plan",
    "train",
    "launch",
    "export",
    "evaluate",
    "recommend",
    "explain",
)


def commands() -> list[tuple[str, list[str]]]:
    """(page, words) of every `kindling VERB ...` or `-m launch.VERB ...` line in the pages' code blocks."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```(?:sh|bash)?\n(.*?)```", page.read_text(), flags=re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                match = re.search(r"(?:^\S*kindling |-m launch\.)(\w+) (.*)", line.partition("  #")[0])
                if match and match[1] in VERBS and "CONFIG" not in match[2] and "..." not in match[2]:
                    found.append((page.name, [match[1], *shlex.split(match[2].replace("…", ""))]))
    return found


@pytest.mark.parametrize(
    ("page", "words"), commands(), ids=lambda value: " ".join(value) if isinstance(value, list) else value
)
def test_a_command_that_is_shown_is_understood(page: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    verb, *rest = words
    module = importlib.import_module(f"launch.{verb}")
    monkeypatch.setattr(sys, "argv", [f"kindling {verb}", *rest])
    arguments = module.parser().parse_args() if hasattr(module, "parser") else module.arguments()
    if verb in ("train", "plan"):
        assert load(ROOT / arguments.config, arguments.overrides)


@pytest.mark.parametrize("file", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_that_is_shipped_is_valid(file: Path) -> None:
    if file.parent.name not in ("data", "accelerate", "prompts"):
        assert load(file).name
    assert yaml.safe_load(file.read_text())


def test_every_link_leads_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "slurm/README.md"]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_tables_of_results_are_those_of_the_measured_files() -> None:
    command = [sys.executable, "-m", "benchmarks.results", "--check"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout
