"""Raw columns -> checked columns: ids, milliseconds, ratings; what is wrong is found row by row."""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rec.data.raw.chunk import TEXTS, BadLines, Chunk, Raw, Role
from rec.errors import ConfigError

Unit = Literal["s", "ms"]
Flags = npt.NDArray[np.bool_]

PARTS: dict[str, int] = {"train": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1, "test": 2}
"""Names that a split column may hold, and the place of their part in a user's sequence."""
END = 4_102_444_800_000
"""The year 2100 in milliseconds: no log reaches so far."""
EARLY = 100_000_000_000
"""A time from here on counts milliseconds (since March 1973); below, seconds."""


class Values:
    """Checks chunk after chunk; the unit of time, where the format does not say, is that of the first time."""

    def __init__(self, bad: BadLines, unit: Unit | None, stated: bool):
        self.bad = bad
        self.unit: Unit | None = unit
        self.stated = stated
        """Whether the user has stated the unit: then early times are meant."""
        self.dated = False
        """Whether the first times were dates: then all must be."""

    def chunks(self, raws: Iterable[Raw]) -> Iterator[tuple[Chunk, float]]:
        """(checked rows, share of the log that is read after them)."""
        for raw in raws:
            if raw.rows:
                yield self.check(raw), raw.done

    def check(self, raw: Raw) -> Chunk:
        """Raises DatasetError at the first row that cannot be used, or leaves such rows out."""
        found: dict[str, Any] = {"time": None, "rating": None, "split": None}
        texts = {TEXTS[role]: column for role, column in raw.columns.items() if role in TEXTS}
        fine = np.ones(raw.rows, np.bool_)
        reasons: list[tuple[Flags, Callable[[int], str]]] = []
        for role, column in raw.columns.items():
            if role in TEXTS:
                continue
            reader = _READERS.get(role, _ids) if role != "time" else self._times
            found[role], good = reader(column)
            fine &= good
            reasons.append((good, partial(self._no_value, column, role)))
        if not fine.all():
            self._report(raw, fine, reasons)
            keep = pa.array(fine)
            for name, values in found.items():
                if values is not None:
                    found[name] = values[fine] if isinstance(values, np.ndarray) else values.filter(keep)
            texts = {name: column.filter(keep) for name, column in texts.items()}
        return Chunk(**found, texts=texts)

    def _no_value(self, column: pa.StringArray, role: Role, row: int) -> str:
        return f"{_shown(column[row])} is no {self._wanted(role)}"

    def _report(self, raw: Raw, fine: Flags, reasons: list[tuple[Flags, Callable[[int], str]]]) -> None:
        row = int(np.argmin(fine))
        reason = next(say for good, say in reasons if not good[row])
        self.bad.found(lambda: raw.where(row), reason(row), int((~fine).sum()))

    def _wanted(self, role: str) -> str:
        if role == "time":
            unit = {"s": "seconds", "ms": "milliseconds", None: "seconds or milliseconds"}[self.unit]
            since = "1970" if self.stated or self.unit != "ms" else "1973"
            return f"time in {unit} between {since} and 2100 (--time-unit states another unit)"
        if role == "split":
            return f"part of a split (use {', '.join(PARTS)}, or name another column with --split-column)"
        known = {"rating": "finite number as a rating"}
        return known.get(role, f"{role} id: it must not be empty nor hold tabs or line breaks")

    def _times(self, column: pa.Array) -> tuple[npt.NDArray[np.int64], Flags]:
        """Milliseconds, and which of them are believable."""
        if pa.types.is_temporal(column.type):
            whole = column.cast(pa.timestamp("ms"), safe=False)
            return _filled(whole.cast(pa.int64())), _valid(column) & _within(_filled(whole.cast(pa.int64())), 0)
        numbers, good = _numbers(column)
        if self.unit is None:
            self.dated = self.dated or _is_date(column[0])
            if self.dated:
                return _dates(column)
            self.unit = "ms" if abs(numbers[np.argmax(good)]) >= EARLY else "s"
        with np.errstate(over="ignore", invalid="ignore"):
            if np.issubdtype(numbers.dtype, np.floating):
                scaled = np.rint(np.where(good, numbers, 0) * (1000.0 if self.unit == "s" else 1.0))
                good = good & (np.abs(scaled) < 2.0**62)
                times = np.where(good, scaled, 0).astype(np.int64)
            else:
                good = good & (np.abs(numbers) < 1 << 50)
                times = np.where(good, numbers, 0) * (1000 if self.unit == "s" else 1)
        earliest = 0 if self.stated or self.unit == "s" else EARLY
        return times, good & _within(times, earliest)


def words(column: pa.Array) -> npt.NDArray[np.int32]:
    """Number of words, separated by white space, of every text; 0 where there is none."""
    counts = pc.count_substring_regex(column, pattern=r"\S+")
    return _filled(counts.cast(pa.int32()))


def milliseconds(text: str) -> int:
    """A moment given by a person: a date (UTC), or a number of seconds or milliseconds since 1970."""
    try:
        number = float(text)
    except ValueError:
        try:
            return _moment(text)
        except ValueError:
            raise ConfigError(f"'{text}' is no moment; write a date such as 2013-01-01, or a timestamp") from None
    if not 0 <= number < END:
        raise ConfigError(f"'{text}' is no moment between 1970 and 2100; write a date such as 2013-01-01")
    return round(number if number >= EARLY else number * 1000)


def _moment(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _ids(column: pa.Array) -> tuple[pa.DictionaryArray, Flags]:
    """Distinct texts in order of first appearance with the rows' places among them, and which rows have one."""
    column = column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
    if pa.types.is_nested(column.type):
        return pa.array([""] * len(column)).dictionary_encode(), np.zeros(len(column), np.bool_)
    encoded = column.dictionary_encode()
    texts, good = _texts(encoded.dictionary)
    codes = _filled(encoded.indices)
    flags = good[codes] & _valid(column) if len(good) else _valid(column)
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), texts), flags


def _texts(values: pa.Array) -> tuple[pa.StringArray, Flags]:
    """Values as texts; those that are none, are empty, or hold tabs or line breaks are flagged."""
    try:
        texts = values.cast(pa.string())
    except pa.ArrowInvalid:
        texts = pa.array([_decoded(value) for value in values.to_pylist()], pa.string())
    except pa.ArrowNotImplementedError:
        return pa.array([""] * len(values), pa.string()), np.zeros(len(values), np.bool_)
    odd = pc.match_substring_regex(texts, pattern=r"^\s*$|[\t\r\n]")
    return texts, ~_filled(odd.cast(pa.int8())).astype(np.bool_)


def _decoded(value: Any) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        return ""


def _ratings(column: pa.Array) -> tuple[npt.NDArray[np.float32], Flags]:
    numbers, good = _numbers(column)
    good = good & (np.abs(numbers) < 3e38)  # what float32 can hold
    return np.where(good, numbers, 0).astype(np.float32), good


def _numbers(column: pa.Array) -> tuple[npt.NDArray[Any], Flags]:
    """int64 where all are whole, else float64; what is no finite number is flagged."""
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if pa.types.is_integer(column.type):
        return _filled(column.cast(pa.int64(), safe=False)), _valid(column)
    for kind in (pa.int64(), pa.float64()):
        try:
            text = column if pa.types.is_floating(column.type) else column.cast(pa.string())
            numbers = _filled(text.cast(kind))
            return numbers, _valid(column) & np.isfinite(numbers)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            continue
    floats = np.array([_number(value) for value in column.to_pylist()], np.float64)
    return np.nan_to_num(floats, nan=0, posinf=0, neginf=0), np.isfinite(floats)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _dates(column: pa.Array) -> tuple[npt.NDArray[np.int64], Flags]:
    """Texts such as 2019-09-25 14:12:09, in UTC where they name no zone."""
    try:
        times = _filled(column.cast(pa.string()).cast(pa.timestamp("ms")).cast(pa.int64()))
        return times, _valid(column) & _within(times, 0)
    except pa.ArrowInvalid:  # zones, or something that is no date: one by one
        times, good = np.zeros(len(column), np.int64), np.zeros(len(column), np.bool_)
    for row, value in enumerate(column.to_pylist()):
        try:
            times[row] = _moment(_decoded(value))
            good[row] = True
        except ValueError:
            continue
    return times, good & _within(times, 0)


def _is_date(value: pa.Scalar) -> bool:
    text = _decoded(value.as_py())
    try:
        return _moment(text) is not None and not np.isfinite(_number(text))
    except ValueError:
        return False


def _within(times: npt.NDArray[np.int64], earliest: int) -> Flags:
    return (times >= earliest) & (times < END)


def _valid(column: pa.Array) -> Flags:
    return column.is_valid().to_numpy(zero_copy_only=False)


def _filled(column: pa.Array) -> npt.NDArray[Any]:
    return (column.fill_null(0) if column.null_count else column).to_numpy(zero_copy_only=False)


def _shown(value: pa.Scalar) -> str:
    plain = value.as_py()
    text = plain.decode(errors="replace") if isinstance(plain, bytes) else plain
    return repr(text[:60] if isinstance(text, str) else text)


def _parts(column: pa.Array) -> tuple[pa.DictionaryArray, Flags]:
    names, good = _ids(column)
    known = np.array([name in PARTS for name in names.dictionary.to_pylist()], np.bool_)
    return names, good & known[names.indices.to_numpy()] if len(known) else good


_READERS: dict[str, Callable[[pa.Array], tuple[Any, Flags]]] = {"rating": _ratings, "split": _parts}
