"""Files of people to recommend for, and of what was recommended."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from rec.data.raw.values import milliseconds
from rec.errors import ConfigError, DatasetError


class Person(NamedTuple):
    user: str | None
    """External id, if there is one."""
    items: list[str]
    """External ids, oldest first."""
    times: list[int]
    """Milliseconds since 1970, one for each item; 0 where none is known."""


def read_users(file: Path) -> list[str]:
    """External user ids, one a line; a first line `user` or `user_id` is a header."""
    lines = [line.strip() for line in _text(file).splitlines() if line.strip()]
    users = lines[1:] if lines and lines[0] in ("user", "user_id") else lines
    if not users:
        raise DatasetError(f"{file} names no users; write one external id a line")
    return users


def read_histories(file: Path) -> list[Person]:
    """Raw histories: JSON lines {"user": ..., "items": [...]} in *.jsonl, else `user item item ...` a line.

    In JSON lines `user` may be absent: a person with no name; and `times` may stand beside `items`, as dates, seconds
    or milliseconds.
    """
    people: list[Person] = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip():
            continue
        if file.suffix != ".jsonl":
            user, *items = line.split()
            if not items and "," in user:
                raise DatasetError(
                    f"{file} line {number} has commas, no blanks; write `user item item ...`, or JSON lines (*.jsonl)"
                )
            people.append(Person(user, items, [0] * len(items)))
            continue
        values = _json(line)
        if not isinstance(values, dict) or not isinstance(values.get("items"), list):
            raise DatasetError(f'{file} line {number} is not {{"user": ..., "items": [...]}}; mend the line')
        items, times = values["items"], values.get("times", [])
        if "times" in values and (not isinstance(times, list) or len(times) != len(items)):
            raise DatasetError(f"{file} line {number} has not one of `times` for each of `items`; mend the line")
        try:
            moments = [milliseconds(str(time)) for time in times] or [0] * len(items)
        except ConfigError as error:
            raise DatasetError(f"{file} line {number}: {error}") from None
        name = None if values.get("user") is None else str(values["user"])
        people.append(Person(name, [str(item) for item in items], moments))
    if not people:
        raise DatasetError(f"{file} holds no histories; write one person a line")
    return people


def write_recommendations(rows: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Writes {user, rank, item, score, title} rows as *.csv, *.parquet or *.jsonl."""
    rows = list(rows)
    beside = file.with_name(file.name + ".tmp")
    columns = ["user", "rank", "item", "score", "title"]
    try:
        match file.suffix:
            case ".csv":
                with beside.open("w", newline="", encoding="utf-8") as out:
                    writer = csv.DictWriter(out, columns)
                    writer.writeheader()
                    writer.writerows(rows)
            case ".parquet":
                pq.write_table(pa.table({name: [row[name] for row in rows] for name in columns}), beside)
            case ".jsonl":
                beside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
            case _:
                raise DatasetError(f"cannot tell the format of {file}; end its name in .csv, .parquet or .jsonl")
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise DatasetError(f"cannot write {file}: {error.strerror}; choose another place") from None
    beside.replace(file)


def _json(line: str) -> Any:
    """What the line holds; None if it is not JSON."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"cannot read {file}: {error.strerror}; give the path of a text file") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file} is not UTF-8 (byte {error.start}); convert it") from None
