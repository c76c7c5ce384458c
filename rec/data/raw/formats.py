"""The known formats by name: which reader, which columns, which unit of time; and telling them apart by evidence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rec.data.raw.chunk import Role
from rec.data.raw.delimited import Dialect, header_of
from rec.data.raw.files import Source, first_line
from rec.data.raw.json_lines import keys_of
from rec.data.raw.values import Unit
from rec.errors import DatasetError

Names = tuple[str, ...]
Family = Literal["delimited", "json", "sequences", "pairs", "parquet", "huggingface"]

COMMON: Mapping[Role, Names] = {
    "user": ("user", "user_id"),
    "item": ("item", "item_id"),
    "time": ("timestamp", "time", "datetime"),
    "rating": ("rating",),
}
"""Names that are looked for where none is given; user and item must be there."""
AMAZON: Mapping[Role, Names] = {
    "user": ("reviewerID",), "item": ("asin",), "time": ("unixReviewTime",), "rating": ("overall",),
    "text": ("reviewText",),
}  # fmt: skip
AMAZON_2023: Mapping[Role, Names] = {
    "user": ("user_id",), "item": ("parent_asin",), "time": ("timestamp",), "rating": ("rating",), "text": ("text",),
}  # fmt: skip
MOVIELENS: Mapping[Role, Names] = {
    "user": ("userId",), "item": ("movieId",), "time": ("timestamp",), "rating": ("rating",)
}  # fmt: skip


@dataclass(frozen=True)
class Format:
    family: Family
    columns: Mapping[Role, Names]
    """Role -> the names it may have; the first that is there counts."""
    dialect: Dialect = field(default_factory=Dialect)
    unit: Unit | None = None
    """Unit of its times; None where only the first of them tells."""
    strict: bool = False
    """Whether time and rating must be there, too."""


def _unnamed(*names: str) -> Dialect:
    return Dialect(",", names=names)


FORMATS: dict[str, Format] = {
    "amazon-2014": Format("json", AMAZON, unit="s", strict=True),
    "amazon-2018": Format("json", AMAZON, unit="s", strict=True),
    "amazon-2023": Format("json", AMAZON_2023, unit="ms", strict=True),
    "amazon-ratings-2014": Format(
        "delimited", COMMON, _unnamed("user", "item", "rating", "timestamp"), unit="s", strict=True
    ),
    "amazon-ratings-2018": Format(
        "delimited", COMMON, _unnamed("item", "user", "rating", "timestamp"), unit="s", strict=True
    ),
    "movielens": Format("delimited", MOVIELENS, unit="s", strict=True),
    "recbole": Format("delimited", COMMON, Dialect("\t", quotes=False)),
    "sequences": Format("sequences", COMMON),
    "pairs": Format("pairs", COMMON),
    "csv": Format("delimited", COMMON),
    "tsv": Format("delimited", COMMON, Dialect("\t")),
    "jsonl": Format("json", COMMON),
    "parquet": Format("parquet", COMMON),
    "huggingface": Format("huggingface", COMMON),
}

SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
"""Generic formats that a file name stands for, once the columns are named."""


def fitted(name: str, file: Path) -> Format:
    """The format as this file has it: two of them come in several shapes."""
    known = FORMATS[name]
    if name == "amazon-2023" and not keys_of(file):
        return Format("delimited", {**AMAZON_2023, "text": ()}, unit="ms", strict=True)
    if name == "movielens":
        unnamed = ("userId", "movieId", "rating", "timestamp")
        first = first_line(file)
        if "::" in first or "\t" in first:
            return Format("delimited", MOVIELENS, Dialect("::" if "::" in first else "\t", unnamed), "s", strict=True)
    return known


def main_file(source: Path, name: str | None) -> Path:
    """The file of a source that holds the interactions: a folder of atomic or MovieLens files has one."""
    if not source.is_dir() or name in ("parquet", "huggingface"):
        return source
    endings = {"recbole": ["*.inter"], "movielens": ["u.data", "ratings.dat", "ratings.csv"]}
    patterns = endings.get(name or "", [pattern for group in endings.values() for pattern in group])
    found = sorted(file for pattern in patterns for file in source.glob(pattern))
    if len(found) != 1:
        what = "several logs" if found else "no log"
        raise DatasetError(f"the folder {source} holds {what} ({', '.join(patterns)}); name the file itself")
    return found[0]


def inferred(file: Path, columns_named: bool) -> str:
    """The format that the file gives itself away as, or a DatasetError that lists the formats."""
    name = file.name.removesuffix(".gz")
    if file.is_file():
        if name in ("u.data", "ratings.dat"):
            return "movielens"
        with Source(file) as source:
            start = source.read(1 << 12)
        if start.lstrip()[:1] == b"{":
            return _by_keys(keys_of(file)) or _by_suffix(name, columns_named) or _unknown(file)
        if b"\n" in start and b"\0" not in start:
            header = set(header_of(file, Dialect("\t" if b"\t" in start.split(b"\n")[0] else ",")))
            if header >= {"user_id:token", "item_id:token"}:
                return "recbole"
            if header >= {"user_id", "parent_asin", "rating", "timestamp"}:
                return "amazon-2023"
            if header >= {"userId", "movieId", "rating", "timestamp"}:
                return "movielens"
    elif not file.exists():
        raise DatasetError(f"{file} does not exist; give a log, or --format huggingface and the name of a data set")
    return _by_suffix(name, columns_named) or _unknown(file)


def _by_keys(keys: Mapping[str, object]) -> str:
    if keys.keys() >= {"reviewerID", "asin", "overall", "unixReviewTime"}:
        return "amazon-2014" if "helpful" in keys else "amazon-2018"  # 2018 has `vote` instead
    return "amazon-2023" if keys.keys() >= {"user_id", "parent_asin", "rating", "timestamp"} else ""


def _by_suffix(name: str, columns_named: bool) -> str:
    return SUFFIXES.get(Path(name).suffix, "") if columns_named else ""


def _unknown(file: Path) -> str:
    raise DatasetError(f"the format of {file} is not evident; name it with --format: {', '.join(FORMATS)}")
