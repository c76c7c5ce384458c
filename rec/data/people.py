"""People to recommend for: of a file, or of a dataset."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

from rec.data.dataset import Dataset
from rec.data.raw.values import milliseconds
from rec.errors import ConfigError, DatasetError


class Person(NamedTuple):
    user: str | None
    """External id, if there is one."""
    items: list[str]
    """External ids, oldest first."""
    times: list[int]
    """Milliseconds since 1970, one for each item; 0 where none is known."""


class Known(Sequence[Person]):
    """Users with all that a dataset knows of them, read when they are asked for: their histories are never together."""

    def __init__(self, folder: Path, users: list[str] | None, remedy: str = "give people from outside with --history"):
        """`users` are external ids, None is everybody; DatasetError with the remedy where the dataset lacks one."""
        self.dataset = Dataset.open(folder)
        if users is None:
            self.rows: Sequence[int] = range(1, self.dataset.users + 1)
            return
        rows = {user: row for row, user in enumerate(self.dataset.user_ids) if row}
        strangers = [user for user in users if user not in rows]
        if strangers and len(users) == 1:
            raise DatasetError(f"{folder} has no user '{strangers[0]}'; {remedy}")
        if strangers:
            raise DatasetError(
                f"{len(strangers)} of {len(users)} users are not in {folder}, the first is '{strangers[0]}'; {remedy}"
            )
        self.rows = [rows[user] for user in users]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Person: ...

    @overload
    def __getitem__(self, place: slice) -> list[Person]: ...

    def __getitem__(self, place: int | slice) -> Person | list[Person]:
        if isinstance(place, slice):
            return [self._person(row) for row in self.rows[place]]
        return self._person(self.rows[place])

    def _person(self, row: int) -> Person:
        dataset, ids = self.dataset, self.dataset.item_ids
        mine = slice(dataset.offsets[row], dataset.offsets[row + 1])
        items = [ids[item] for item in dataset.item_rows[mine]]
        times = dataset.times[mine].tolist() if dataset.has_times else [0] * len(items)
        return Person(dataset.user_ids[row], items, times)


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
