"""A source and its format -> checked chunks."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rec.data.options import Options
from rec.data.raw import columnar, delimited, json_lines, plain_lines
from rec.data.raw.chunk import ROLES, BadLines, Chunk, Raw, Role, missing_column
from rec.data.raw.formats import FORMATS, Format, fitted, inferred, main_file
from rec.data.raw.values import Values
from rec.errors import ConfigError, DatasetError


@dataclass(frozen=True)
class Log:
    """A log that is open for one pass."""

    file: Path
    format: str
    columns: Mapping[Role, str]
    """Role -> name of its column in the log; empty for plain lines."""
    has_split: bool
    raws: Callable[[], Iterator[Raw]] = field(repr=False)
    values: Values = field(repr=False)

    @property
    def beside(self) -> dict[str, Path]:
        """The files of attributes that belong to the log: `.user` and `.item` beside RecBole's `.inter`."""
        files = {kind: self.file.with_suffix(f".{kind}") for kind in ("user", "item")}
        return {kind: file for kind, file in files.items() if self.format == "recbole" and file.is_file()}

    @property
    def bad(self) -> BadLines:
        return self.values.bad

    def chunks(self) -> Iterator[tuple[Chunk, float]]:
        """(checked rows, share of the log that is read after them)."""
        return self.values.chunks(self.raws())


def open_log(source: str, options: Options) -> Log:
    """Finds format and columns, and raises before anything is written if they do not fit the source."""
    bad = BadLines(skip=options.on_bad_line == "skip")
    if options.format is not None and options.format not in FORMATS:
        near = difflib.get_close_matches(options.format, FORMATS, n=1, cutoff=0.5)
        remedy = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(FORMATS)}"
        raise ConfigError(f"'{options.format}' is no format; {remedy}")
    if options.format == "huggingface":
        return _open_huggingface(source, options, bad)
    path = Path(source)
    if not path.exists():
        raise DatasetError(f"{path} does not exist; give a log, or --format huggingface and the name of a data set")
    named = options.user_column is not None and options.item_column is not None
    file = main_file(path, options.format)
    name = options.format or inferred(file, named)
    known = fitted(name, file)
    values = Values(bad, options.time_unit or known.unit, stated=options.time_unit is not None)
    if known.family in ("sequences", "pairs"):
        _refuse_columns(options, name)
        return Log(file, name, {}, False, lambda: plain_lines.read(file, known.family == "pairs", bad), values)
    header = _header(file, known)
    columns = _columns(file, known, options, header)
    raws: Callable[[], Iterator[Raw]]
    if known.family == "json":
        raws = lambda: json_lines.read(file, columns, bad)  # noqa: E731
    elif known.family == "parquet":
        raws = lambda: columnar.read(file, columns)  # noqa: E731
    else:
        raws = lambda: delimited.read(file, known.dialect, header, columns, bad)  # noqa: E731
    return Log(file, name, _bare(columns), "split" in columns, raws, values)


def _open_huggingface(source: str, options: Options, bad: BadLines) -> Log:
    from rec.data.raw import huggingface

    found: dict[str, Any] = huggingface.load(source)
    known = Format("huggingface", fitted("huggingface", Path(source)).columns)
    columns = _columns(Path(source), known, options, huggingface.columns_of(found))
    values = Values(bad, options.time_unit, stated=options.time_unit is not None)
    by_name = options.split == "given" and "split" not in columns and len(found) > 1
    has_split = "split" in columns or by_name
    return Log(
        Path(source),
        "huggingface",
        columns,
        has_split,
        lambda: huggingface.read(source, found, columns, by_name),
        values,
    )


def _header(file: Path, known: Format) -> list[str]:
    if known.family == "json":
        keys = list(json_lines.keys_of(file))
        if not keys:
            raise DatasetError(
                f"{file} line 1 is neither a JSON object nor a Python dictionary; choose another --format"
            )
        return keys
    return columnar.columns_of(file) if known.family == "parquet" else delimited.header_of(file, known.dialect)


def _columns(file: Path, known: Format, options: Options, header: list[str]) -> dict[Role, str]:
    """Role -> column: as the user names it, else as the format does; RecBole's `name:type` answers to `name`."""
    typed = {name.partition(":")[0] if ":" in name else name: name for name in header}
    columns: dict[Role, str] = {}
    for role in ROLES:
        given = getattr(options, f"{role}_column")
        wanted = [given] if given else list(known.columns.get(role, ()))
        present = [name for name in wanted if name in header or name in typed]
        needed = given or role in ("user", "item") or (known.strict and role in ("time", "rating"))
        # a key that the first record lacks may stand in the next one
        if not present and known.family == "json" and role == "text" and wanted:
            present = wanted
        if present:
            columns[role] = present[0] if present[0] in header else typed.get(present[0], present[0])
        elif needed:
            raise missing_column(file, role, wanted, header)
    if options.split not in (None, "given"):
        columns.pop("split", None)
    asking = "--min-words" if options.min_words is not None else "--keep-text"
    if options.min_words is None and not options.keep_text:
        columns.pop("text", None)
    elif "text" not in columns:
        raise ConfigError(f"{asking} needs the review's text; name its column with --text-column")
    return columns


def _bare(columns: Mapping[Role, str]) -> dict[Role, str]:
    return {role: name.partition(":")[0] for role, name in columns.items()}


def _refuse_columns(options: Options, name: str) -> None:
    for role in ROLES:
        if getattr(options, f"{role}_column"):
            raise ConfigError(f"--{role}-column does not go with --format {name}, whose lines have no named columns")
