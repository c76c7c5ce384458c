"""The words of the configuration: none comes or goes unnoticed, and each is explained where it is declared."""

import ast
import dataclasses
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from rec.config import evaluation, graph_llm, ordinary, parts, tree
from rec.config.tree import Run

GOLDEN = Path(__file__).parent / "golden" / "config_keys.txt"


def _keys(kind: type, path: str = "") -> Iterator[str]:
    """Dotted keys; a member of a union appears under its own `kind`, a mapping's values under `*`."""
    for name, hint in typing.get_type_hints(kind).items():
        dotted = f"{path}.{name}" if path else name
        inner = [one for one in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(one)]
        if not inner:
            yield dotted
        for one in inner:
            fields = {item.name: item.default for item in dataclasses.fields(one)}
            label = f"({fields['kind']})" if "kind" in fields else ""
            mapping = ".*" if typing.get_origin(hint) not in (None, typing.Union) and not label else ""
            yield from _keys(one, f"{dotted}{label}{mapping}")


def test_no_key_comes_or_goes_unnoticed():
    """A key that goes breaks configurations that people have: write it down here, and in the changelog."""
    assert sorted(_keys(Run)) == GOLDEN.read_text(encoding="utf-8").split()


CLASSES = [
    node
    for module in (tree, evaluation, graph_llm, ordinary, parts)
    for node in ast.parse(inspect.getsource(module)).body
    if isinstance(node, ast.ClassDef)
]


@pytest.mark.parametrize("node", CLASSES, ids=lambda node: node.name)
def test_under_every_key_stands_a_sentence(node: ast.ClassDef):
    assert ast.get_docstring(node)
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            assert isinstance(text, str), f"{node.name}.{field.target.id}"
            assert text.strip().endswith("."), f"{node.name}.{field.target.id} has no sentence under it"


@pytest.mark.parametrize("node", CLASSES, ids=lambda node: node.name)
def test_the_tree_is_frozen_and_keyword_only(node: ast.ClassDef):
    settings = {word.arg: word.value.value for decorator in node.decorator_list for word in decorator.keywords}
    assert settings == {"frozen": True, "kw_only": True}


def test_every_number_can_be_written_as_it_is():
    """All defaults make a valid run: nobody has to set two keys to set one."""
    assert Run(name="n", dataset=Path("d"), model=tree.SoftToken()).folder == Path("runs/n")
