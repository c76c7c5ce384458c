"""Imports go down only, each dependency has one door, and files stay short enough to be read."""

import ast
import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for room in ("launch", "rec") for path in (REPOSITORY / room).rglob("*.py"))

GROUND = ("rec.config", "rec.ranks", "rec.report", "rec.errors", "rec.files", "rec.hub")
MAY_IMPORT = {
    "rec.errors": (),
    "rec.config": ("rec.errors",),
    "rec.rendezvous": ("rec.errors",),
    "rec.ranks": ("rec.errors", "rec.rendezvous"),
    "rec.report": ("rec.errors", "rec.files"),
    "rec.files": (),
    "rec.hub": ("rec.errors",),
    "rec.data": GROUND,
    "rec.graph": (*GROUND, "rec.data"),
    "rec.nn": GROUND,
    "rec.text": (*GROUND, "rec.data", "rec.graph"),
    "rec.models": ("rec.config", "rec.errors", "rec.files", "rec.data", "rec.graph", "rec.nn", "rec.text"),
    "rec.eval": (*GROUND, "rec.data", "rec.nn", "rec.models"),
    "rec.train": (*GROUND, "rec.data", "rec.graph", "rec.nn", "rec.models", "rec.eval"),
    "rec.recommend": (*GROUND, "rec.data", "rec.graph", "rec.nn", "rec.models", "rec.eval"),
    "rec.explain": (*GROUND, "rec.data", "rec.nn", "rec.models", "rec.recommend"),
    "rec": ("rec.models", "rec.recommend"),
    "launch": ("rec",),
}
"""Floor -> the floors below it. A model cannot ask which rank it is on; a block of `rec.nn` knows no dataset."""

DOORS = {
    "accelerate": ("rec/train/trackers.py",),
    "deepspeed": ("rec/train/strategies/zero.py",),
    "torch.distributed": ("rec/ranks.py", "rec/train/strategies/fsdp.py", "launch/launch.py"),
    "mpi4py": ("rec/rendezvous.py",),
    "cut_cross_entropy": ("rec/nn/fused.py",),
    "psutil": ("launch/strategy.py",),
    "transformers": ("rec/nn/attention.py", "rec/nn/backbone.py", "rec/text/*"),
    "huggingface_hub": ("rec/hub.py", "rec/nn/backbone.py"),
    "datasets": ("rec/data/raw*",),
    "yaml": ("rec/config/load.py",),
    "safetensors": ("rec/train/pieces.py", "rec/models/saved.py"),
    "xxhash": ("rec/train/checksum.py",),
    "tqdm": ("rec/report.py", "rec/data/progress.py", "launch/*"),
}
"""Package -> the only files that may import it."""

LONGEST = 240
LONGER = {"rec/config/tree.py": 291, "rec/data/raw/values.py": 245}
"""Lines of a file. The longer ones are named: every knob stands on one page; a ceiling may come down, never up."""


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def _imports(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports, at the top or inside a function; `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)} line {node.lineno}: imports are absolute here"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _floor(module: str) -> str:
    """The floor that a module stands on: the longest that it begins with."""
    return max((floor for floor in MAY_IMPORT if f"{module}.".startswith(f"{floor}.")), key=len)


def _module(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_imports_go_down_only(path: Path):
    own = _floor(_module(path))
    below = (own, *MAY_IMPORT[own])
    for imported in _imports(path):
        if imported.split(".")[0] in ("rec", "launch"):
            floor = _floor(imported)
            assert floor in below or own == "launch", f"{_name(path)} ({own}) imports {imported} ({floor})"


@pytest.mark.parametrize("package", DOORS)
def test_each_package_has_its_doors(package: str):
    through = {_name(path) for path in SOURCES for name in _imports(path) if f"{name}.".startswith(f"{package}.")}
    strangers = [file for file in through if not any(fnmatch(file, door) for door in DOORS[package])]
    assert not strangers, f"{package} is imported by {strangers}; its doors are {DOORS[package]}"


def test_every_package_that_is_imported_has_doors_or_is_of_the_house():
    """A new dependency is a decision: it gets a line in DOORS, or here."""
    house = {"rec", "launch", "torch", "numpy", "pyarrow", "scipy", "tensorboard", "gguf"}
    imported = {name.split(".")[0] for path in SOURCES for name in _imports(path)}
    assert imported - house - set(sys.stdlib_module_names) <= {door.split(".")[0] for door in DOORS}


def test_the_environment_is_read_by_those_who_ask_for_the_launcher():
    reads = re.compile(r"\bos\.(environ|getenv|putenv)|from os import .*environ")
    readers = {_name(path) for path in SOURCES if reads.search(path.read_text(encoding="utf-8"))}
    assert all(file in ("rec/rendezvous.py", "rec/ranks.py") or file.startswith("launch/") for file in readers), readers


def test_data_is_numpy_and_becomes_tensors_in_batches_and_views_only():
    tensors = {_name(path) for path in SOURCES if any(name.split(".")[0] == "torch" for name in _imports(path))}
    assert {file for file in tensors if file.startswith("rec/data/")} == {"rec/data/batch.py", "rec/data/views.py"}
    assert not {file for file in tensors if file.startswith(("rec/config/", "rec/graph/"))}


def test_help_needs_nothing_heavy():
    """A verb imports torch only after its arguments are parsed: at the top of launch modules stands nothing of it."""
    for path in SOURCES:
        if _name(path).startswith("launch/"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                module = str(node.module) if isinstance(node, ast.ImportFrom) else ""
                heavy = ("torch", "transformers", "accelerate", "rec.models", "rec.nn", "rec.train", "rec.eval")
                assert not [name for name in (*names, module) if name.startswith(heavy)], _name(path)


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_files_are_short_and_finished(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGER.get(_name(path), LONGEST)
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", text)
    assert re.search(r'^"""', text) or not text, "a file begins by saying what it is"


def test_ceilings_of_long_files_are_needed():
    for file, lines in LONGER.items():
        assert LONGEST < len((REPOSITORY / file).read_text().splitlines()) <= lines
