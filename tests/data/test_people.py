"""Files of people to recommend for."""

import re
from pathlib import Path

import pytest

from rec.data.people import Person, read_histories
from rec.errors import DatasetError


def test_histories_may_have_times_as_dates_seconds_or_milliseconds(tmp_path: Path):
    file = tmp_path / "people.jsonl"
    file.write_text(
        '{"user": "ann", "items": ["a", 7], "times": ["2013-01-01", 1356998400]}\n'
        '{"items": ["b"], "times": [1356998400000]}\n{"items": ["c", "d"]}\n'
    )
    assert read_histories(file) == [
        Person("ann", ["a", "7"], [1356998400000, 1356998400000]),
        Person(None, ["b"], [1356998400000]),
        Person(None, ["c", "d"], [0, 0]),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"items": ["a"], "times": [1, 2]}', "line 1 has not one of `times` for each of `items`; mend the line"),
        ('{"items": ["a"], "times": ["soon"]}', "line 1: 'soon' is no moment; write a date such as 2013-01-01"),
    ],
)
def test_times_that_are_none_are_refused(tmp_path: Path, line: str, message: str):
    file = tmp_path / "people.jsonl"
    file.write_text(line)
    with pytest.raises(DatasetError, match=re.escape(message)):
        read_histories(file)
