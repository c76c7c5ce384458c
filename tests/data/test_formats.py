"""Each known format, from the smallest file that has its peculiarities."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.data.dataset import Dataset
from rec.errors import ConfigError, DatasetError
from tests.data.logs import csv, json_lines, prepared, sequences, text

SECOND = 1_400_000_000
REVIEWS = [
    {"reviewerID": "U2", "asin": "B", "overall": 4.0, "unixReviewTime": SECOND + 9, "reviewText": "fine"},
    {"reviewerID": "U1", "asin": "A", "overall": 5.0, "unixReviewTime": SECOND, "reviewText": 'it\'s "good" value'},
    {"reviewerID": "U1", "asin": "C", "overall": 1.0, "unixReviewTime": SECOND - 5, "summary": "no text here"},
]
REVIEWS_2023 = [
    {"user_id": "U2", "parent_asin": "B", "asin": "x", "rating": 4.0, "timestamp": (SECOND + 9) * 1000, "text": "fine"},
    {"user_id": "U1", "parent_asin": "A", "asin": "y", "rating": 5.0, "timestamp": SECOND * 1000, "text": "good value"},
    {"user_id": "U1", "parent_asin": "C", "asin": "z", "rating": 1, "timestamp": (SECOND - 5) * 1000, "text": ""},
]
ROWS = [("U2", "B", 4.0, SECOND + 9), ("U1", "A", 5.0, SECOND), ("U1", "C", 1.0, SECOND - 5)]


def is_the_log(dataset: Dataset, times: bool = True) -> bool:
    assert sequences(dataset) == {"U2": ["B"], "U1": ["C", "A"]}
    assert dataset.ratings.tolist() == [4, 1, 5]
    assert dataset.times.tolist() == [(SECOND + 9) * 1000, (SECOND - 5) * 1000, SECOND * 1000]
    return dataset.has_times


@pytest.mark.parametrize("name", ["reviews.json", "reviews.json.gz"])
@pytest.mark.parametrize("literal", [False, True])
def test_amazon_reviews_of_2014_and_2018_are_recognised_as_json_and_as_python_literals(
    tmp_path: Path, name: str, literal: bool
) -> None:
    dataset = prepared(json_lines(tmp_path, REVIEWS, name, literal))
    assert is_the_log(dataset)
    assert dataset.manifest["format"] == "amazon-2018"


def test_amazon_reviews_of_2023_are_in_milliseconds_and_by_parent(tmp_path: Path) -> None:
    dataset = prepared(json_lines(tmp_path, REVIEWS_2023, "Kindle_Store.jsonl.gz"))
    assert is_the_log(dataset)
    assert dataset.manifest["format"] == "amazon-2023"


@pytest.mark.parametrize("history", ["", ",history"])
def test_the_csv_of_amazon_2023_is_recognised_with_and_without_history(tmp_path: Path, history: str) -> None:
    rows = [(user, item, rating, time * 1000, *(["P Q"] if history else [])) for user, item, rating, time in ROWS]
    dataset = prepared(csv(tmp_path, rows, "user_id,parent_asin,rating,timestamp" + history))
    assert is_the_log(dataset)
    assert dataset.manifest["format"] == "amazon-2023"


def test_the_two_orders_of_amazon_ratings_are_told_apart_by_name_only(tmp_path: Path) -> None:
    first = csv(tmp_path, ROWS, "", "a.csv")
    second = csv(tmp_path, [(item, user, rating, time) for user, item, rating, time in ROWS], "", "b.csv")
    with pytest.raises(DatasetError, match=r"not evident; name it with --format: .*amazon-ratings-2014.*2018"):
        prepared(first)
    assert is_the_log(prepared(first, "a", format="amazon-ratings-2014"))
    assert is_the_log(prepared(second, "b", format="amazon-ratings-2018"))


@pytest.mark.parametrize(
    ("name", "separator", "header"),
    [("u.data", "\t", ""), ("ratings.dat", "::", ""), ("ratings.csv", ",", "userId,movieId,rating,timestamp\n")],
)
def test_movielens_is_recognised_in_its_three_shapes(tmp_path: Path, name: str, separator: str, header: str) -> None:
    content = header + "".join(separator.join(map(str, row)) + "\n" for row in ROWS)
    dataset = prepared(text(tmp_path, content, name))
    assert is_the_log(dataset)
    assert dataset.manifest["format"] == "movielens"
    assert is_the_log(prepared(text(tmp_path, content, name), "named", format="movielens"))


def test_a_double_colon_that_falls_between_two_reads_is_still_one_separator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = text(tmp_path, "".join(f"{user}::i::3::{SECOND}\n" for user in range(2000)), "ratings.dat")
    for size in (1021, 1024, 1027):
        monkeypatch.setattr("rec.data.raw.delimited.BLOCK", size)
        assert prepared(file, f"{size}").users == 2000


def test_recbole_is_recognised_as_file_and_as_folder_and_brings_its_attributes(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    lines = "".join(f"{user}\t{item}\t{rating}\t{float(time)}\n" for user, item, rating, time in ROWS)
    text(folder, "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + lines, "tiny.inter")
    text(folder, 'item_id:token\tmovie_title:token_seq\tyear:float\nA\tThe "A\t1999\nB\tBee\t\n', "tiny.item")
    text(folder, "user_id:token\tage:token\nU1\t24\n", "tiny.user")
    dataset = prepared(folder)
    assert is_the_log(dataset)
    items = pq.read_table(dataset.root / "items.parquet").to_pylist()
    assert [item["movie_title"] for item in items] == ["Bee", 'The "A', None]
    assert [item["title"] for item in items] == ["Bee", 'The "A', None]
    assert pq.read_table(dataset.root / "users.parquet")["age"].to_pylist() == [None, "24"]
    assert prepared(folder / "tiny.inter", "again").fingerprint == dataset.fingerprint


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_user_and_its_items_on_a_line_keep_their_order(tmp_path: Path, ending: str) -> None:
    dataset = prepared(text(tmp_path, ending.join(["7 3 1 2", "", "8 1"])), format="sequences")
    assert sequences(dataset) == {"7": ["3", "1", "2"], "8": ["1"]}
    assert not dataset.has_times
    assert dataset.times.tolist() == [0, 1, 2, 3]


def test_a_user_and_an_item_on_a_line_keep_their_order(tmp_path: Path) -> None:
    dataset = prepared(text(tmp_path, "7 3\n8\t1\n7 1\n", "pairs.txt.gz"), format="pairs")
    assert sequences(dataset) == {"7": ["3", "1"], "8": ["1"]}


def table() -> dict[str, list[Any]]:
    users, items, ratings, times = (list(column) for column in zip(*ROWS, strict=True))
    return {"who": users, "what": items, "stars": ratings, "when": times}


COLUMNS = {"user_column": "who", "item_column": "what", "rating_column": "stars", "time_column": "when"}


@pytest.mark.parametrize("name", ["log.csv", "log.tsv", "log.jsonl", "log.parquet", "log.csv.gz", "log.jsonl.gz"])
def test_any_table_is_read_by_the_names_of_its_columns(tmp_path: Path, name: str) -> None:
    columns = table() | {"other": ["a,\tb", 'c "d"', ""]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if "jsonl" in name:
        file = json_lines(tmp_path, rows, name)
    elif "parquet" in name:
        file = tmp_path / name
        pq.write_table(pa.table(columns), file)
    else:
        separator = "\t" if "tsv" in name else ","
        quoted = [['"' + str(value).replace('"', '""') + '"' for value in row.values()] for row in rows]
        file = text(tmp_path, "\n".join(separator.join(row) for row in [list(columns), *quoted]), name)
    assert is_the_log(prepared(file, **COLUMNS))


def test_a_folder_of_parquet_files_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    whole = pa.table(table())
    pq.write_table(whole.slice(0, 2), folder / "part-0.parquet")
    pq.write_table(whole.slice(2), folder / "part-1.parquet")
    assert is_the_log(prepared(folder, format="parquet", **COLUMNS))


@pytest.mark.parametrize(
    "kind", [pa.timestamp("us"), pa.timestamp("s", tz="UTC"), pa.int32(), pa.float64(), pa.string()], ids=str
)
def test_times_may_be_moments_numbers_or_texts_of_numbers(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array(table()["when"])
    times = values.cast(pa.timestamp("s")).cast(kind) if pa.types.is_timestamp(kind) else values.cast(kind)
    pq.write_table(pa.table(table() | {"when": times}), tmp_path / "log.parquet")
    assert is_the_log(prepared(tmp_path / "log.parquet", **COLUMNS))


def test_times_may_be_written_as_dates(tmp_path: Path) -> None:
    rows = [
        ("u", "b", 1, "2014-05-13 16:53:25"),
        ("u", "a", 1, "2014-05-13"),
        ("u", "c", 1, "2014-05-13T18:53:20+02:00"),
    ]
    dataset = prepared(csv(tmp_path, rows), format="csv")
    assert sequences(dataset) == {"u": ["a", "c", "b"]}
    assert dataset.times.tolist() == [1399939200000, SECOND * 1000, (SECOND + 5) * 1000]


@pytest.mark.parametrize(("factor", "unit"), [(1, None), (1000, None), (1, "s"), (1000, "ms")])
def test_the_unit_of_times_is_seen_from_their_size_or_stated(tmp_path: Path, factor: int, unit: str | None) -> None:
    rows = [(user, item, rating, time * factor) for user, item, rating, time in ROWS]
    assert is_the_log(prepared(csv(tmp_path, rows), format="csv", time_unit=unit))


def test_small_milliseconds_must_be_stated(tmp_path: Path) -> None:
    file = csv(tmp_path, [("u", "a", 1, 12), ("u", "b", 1, 11)])
    assert prepared(file, format="csv", time_unit="ms").times.tolist() == [11, 12]
    assert prepared(file, "seconds", format="csv").times.tolist() == [11_000, 12_000]


def test_a_quoted_line_break_in_another_column_does_not_end_a_row(tmp_path: Path) -> None:
    file = text(tmp_path, 'user,item,review\nu,a,"one\ntwo, three"\nu,b,"four"\n', "log.csv")
    assert sequences(prepared(file, format="csv")) == {"u": ["a", "b"]}
    assert sequences(prepared(file, "words", format="csv", text_column="review", min_words=2)) == {"u": ["a"]}


def test_a_quoted_line_break_may_fall_between_two_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(f"u{index}", "i", '"' + "line\n" * (index % 7) + '"') for index in range(500)]
    monkeypatch.setattr("rec.data.raw.delimited.BLOCK", 600)
    assert prepared(csv(tmp_path, rows, "user,item,review"), format="csv").users == 500


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    file = text(tmp_path, "\ufeffuser,item\nu,a\n", "log.csv")
    assert sequences(prepared(file, format="csv")) == {"u": ["a"]}


def test_ids_are_texts_and_keep_their_zeros(tmp_path: Path) -> None:
    file = csv(tmp_path, [("007", "01.0", 1, 5), ("7", "1.0", 1, 6)])
    assert sequences(prepared(file, format="csv")) == {"007": ["01.0"], "7": ["1.0"]}


def test_json_ids_that_are_numbers_and_lines_of_different_kinds_are_read(tmp_path: Path) -> None:
    records = [{"user": 1, "item": 2}, {"user": "x", "item": 3, "more": {"deep": []}}]
    assert sequences(prepared(json_lines(tmp_path, records), format="jsonl")) == {"1": ["2"], "x": ["3"]}


def test_a_hugging_face_data_set_is_read_from_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "hub"
    folder.mkdir()
    whole = pa.table(table())
    pq.write_table(whole.slice(0, 2), folder / "train.parquet")
    pq.write_table(whole.slice(2), folder / "test.parquet")
    assert is_the_log(prepared(folder, format="huggingface", **COLUMNS))
    given = prepared(folder, "given", format="huggingface", split="given", **COLUMNS)
    assert given.manifest["split"]["interactions"] == {"train": 2, "valid": 0, "test": 1, "history": 0}
    assert sequences(given)["U1"] == ["A", "C"]


def test_a_saved_hugging_face_data_set_is_read(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict(table()).save_to_disk(str(tmp_path / "saved"))
    assert is_the_log(prepared(tmp_path / "saved", format="huggingface", **COLUMNS))


def test_columns_cannot_be_named_for_plain_lines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--time-column does not go with --format pairs"):
        prepared(text(tmp_path, "1 2\n"), format="pairs", time_column="time")


def test_long_logs_are_read_in_pieces_that_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    pairs = generator.integers([40, 50], size=(3000, 2)).tolist()
    rows = [(f"u{user}", f"i{item}", 3, SECOND + index) for index, (user, item) in enumerate(pairs)]
    records = [dict(zip(("user", "item", "rating", "timestamp"), row, strict=True)) for row in rows]
    files = {"csv": csv(tmp_path, rows), "jsonl": json_lines(tmp_path, records)}
    whole = {name: prepared(file, f"{name}-whole", format=name).fingerprint for name, file in files.items()}
    for module in ("delimited", "files"):
        monkeypatch.setattr(f"rec.data.raw.{module}.BLOCK", 4096)
    pieces = {name: prepared(file, f"{name}-pieces", format=name).fingerprint for name, file in files.items()}
    assert whole == pieces
    assert len(set(whole.values())) == 1
