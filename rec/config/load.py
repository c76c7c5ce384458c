"""YAML differences and dotted overrides -> Run, or a ConfigError that names the nearest key."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rec.config.tree import Run
from rec.errors import ConfigError

T = typing.TypeVar("T")


def load(path: Path, overrides: Sequence[str] = ()) -> Run:
    """Reads a run: defaults, overlaid by the file, overlaid by `key.path=value` words. The last word wins.

    The run's name is the file's name where neither says another; `dataset` is relative to the working folder. A group
    of free keys, such as `model.prompts`, may be the name of another YAML file, whose keys become part of the run.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "tiny.yaml"
    >>> _ = file.write_text("dataset: data/tiny\\nmodel: {kind: soft_token, dim: 32}\\noptim: {lr: 1e-2}")
    >>> run = load(file, ["optim.lr=3e-4"])
    >>> run.name, run.model.dim, run.optim.lr, run.optim.clip
    ('tiny', 32, 0.0003, 1.0)
    """
    values = read_values(path)
    for word in overrides:
        _override(values, word)
    values.setdefault("name", path.stem)
    return from_values(values)


def read_values(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, as they stand there."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {path}: {error.strerror}; give the path of a YAML file"
        ) from None
    values = _parse(text, where=str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no keys; write `key: value` lines")
    return values


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of any kind from plain values, or ConfigError for an unknown key or a value of another type."""
    return typing.cast(T, _build(kind, values, ""))


def from_values(values: Mapping[str, Any]) -> Run:
    """The run that nested plain values describe."""
    return build(Run, values)


def to_values(node: Any) -> Any:
    """The inverse of `from_values`: nested plain values, every key resolved."""
    if dataclasses.is_dataclass(node):
        return {item.name: to_values(getattr(node, item.name)) for item in dataclasses.fields(node)}
    if isinstance(node, Mapping):
        return {key: to_values(value) for key, value in node.items()}
    if isinstance(node, tuple):
        return [to_values(value) for value in node]
    return str(node) if isinstance(node, Path) else node


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested plain values by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            flat[key] = value
    return flat


def dump(run: Run) -> str:
    """The resolved run as YAML; `load` reads it back to an equal object."""
    return str(yaml.safe_dump(to_values(run), sort_keys=False, allow_unicode=True))


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, instead of silently taking the second."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"'{key.value}' is given twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise ConfigError(f"{where} line {line} is not YAML: {getattr(error, 'problem', error)}") from None


def _override(values: dict[str, Any], word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{word}' is not an override; write key.path=value, for example optim.lr=3e-4")
    *path, last = key.split(".")
    for part in path:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"'{key}' goes below '{part}', which is a value and not a group of keys")
        values = inner
    values[last] = _parse(text, where=f"the value of '{key}'")


def _build(kind: type, values: Any, path: str) -> Any:
    """A dataclass from plain values, checked key by key."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} is a group of keys, not the value {values!r}")
    hints = typing.get_type_hints(kind)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.5)
            remedy = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(hints)}"
            raise ConfigError(f"unknown key '{_dotted(path, key)}'; {remedy}")
    built = {key: _convert(hints[key], value, _dotted(path, key)) for key, value in values.items()}
    for item in dataclasses.fields(kind):
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and item.name not in built:
            raise ConfigError(
                f"'{_dotted(path, item.name)}' is missing; add it to the file or give {_dotted(path, item.name)}=value"
            )
    return kind(**built)


def _dotted(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _convert(kind: Any, value: Any, path: str) -> Any:
    """A plain value as the type of its field; YAML's `3e-4` (a string to YAML 1.1) counts as a number."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        members = [argument for argument in arguments if argument is not type(None)]
        if all(dataclasses.is_dataclass(member) for member in members):
            return _build(_by_kind(members, value, path), value, path)
        for member in members:
            try:
                return _convert(member, value, path)
            except ConfigError:
                continue
        raise _mismatch(path, value, " or ".join(_noun(member) for member in members))
    if dataclasses.is_dataclass(kind):
        if any(item.name == "kind" for item in dataclasses.fields(kind)):
            kind = _by_kind([kind], value, path)
        return _build(typing.cast(type, kind), value, path)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{path} is {value!r}; choose one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise _mismatch(path, value, "a list")
        kinds = [arguments[0]] * len(value) if arguments[-1] is ... else list(arguments)
        if len(kinds) != len(value):
            raise _mismatch(path, value, f"a list of {len(kinds)}")
        return tuple(
            _convert(one, part, f"{path}[{index}]") for index, (one, part) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is not None and issubclass(origin, Mapping):
        if isinstance(value, str) and value.endswith((".yaml", ".yml")):
            value = read_values(Path(value))
        if not isinstance(value, Mapping):
            raise _mismatch(path, value, "a group of keys, or the name of a YAML file that holds them")
        return {str(key): _member(arguments[1], part, _dotted(path, key)) for key, part in value.items()}
    return _scalar(kind, value, path)


def _member(kind: Any, value: Any, path: str) -> Any:
    """A value under a key that the user chose: what its own checks say, which cannot know the key, is told with it."""
    try:
        return _convert(kind, value, path)
    except ConfigError as error:
        raise error if path in str(error) else ConfigError(f"{path}: {error}") from None


def _scalar(kind: type, value: Any, path: str) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, str | int) and not isinstance(value, bool):
        try:
            value = float(value)
        except ValueError:
            raise _mismatch(path, value, _noun(kind)) from None
    if kind is int and isinstance(value, float | str):
        try:
            value = int(float(value)) if float(value).is_integer() else value  # 1e3 is a whole number, too
        except ValueError:
            raise _mismatch(path, value, _noun(kind)) from None
    if kind is float and isinstance(value, float) and not math.isfinite(value):
        raise _mismatch(path, value, "a finite number")
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise _mismatch(path, value, _noun(kind))
    return value


def _by_kind(members: Sequence[Any], value: Any, path: str) -> type:
    """The member of a union whose `kind` the value names."""
    kinds = {typing.get_args(typing.get_type_hints(member)["kind"])[0]: member for member in members}
    named = value.get("kind") if isinstance(value, Mapping) else None
    if named not in kinds:
        raise ConfigError(f"{path}.kind is {named!r}; choose one of {', '.join(kinds)}")
    return typing.cast(type, kinds[named])


def _noun(kind: Any) -> str:
    nouns = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", Path: "a path"}
    return nouns.get(kind, str(kind))


def _mismatch(path: str, value: Any, noun: str) -> ConfigError:
    return ConfigError(f"{path} is {value!r}; write {noun}")
