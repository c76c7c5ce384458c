"""Attributes and texts come along from any of the usual files, aligned with the dataset's rows."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.errors import DatasetError
from tests.data.logs import csv, json_lines, prepared, text

ROWS = [("u", "b", 5, 1), ("u", "a", 4, 2), ("v", "c", 3, 3)]


def items(folder: Path, file: Path) -> dict[str, list[Any]]:
    """Columns of items.parquet; its rows are b, a, c."""
    dataset = prepared(csv(folder, ROWS, name="interactions.csv"), format="csv", items=file)
    return pq.read_table(dataset.root / "items.parquet").to_pydict()


@pytest.mark.parametrize("form", ["csv", "csv.gz", "tsv", "jsonl", "jsonl.gz", "json", "parquet", "literal", "map"])
def test_every_kind_of_file_gives_the_same_attributes(tmp_path: Path, form: str) -> None:
    records = [{"item": "a", "title": "Ay, Bee", "genre": "x"}, {"item": "b", "title": "Bi", "genre": "y"},
               {"item": "z", "title": "Zet", "genre": "x"}]  # fmt: skip
    name = f"items.{form}"
    if form in ("csv", "csv.gz"):
        file = text(tmp_path, 'item,title,genre\na,"Ay, Bee",x\nb,Bi,y\nz,Zet,x\n', name)
    elif form == "tsv":
        file = text(tmp_path, "item\ttitle\tgenre\na\tAy, Bee\tx\nb\tBi\ty\nz\tZet\tx\n", name)
    elif form == "json":
        file = text(tmp_path, json.dumps(records, indent=1), name)
    elif form == "map":
        whole = {record["item"]: {"title": record["title"], "genre": record["genre"]} for record in records}
        file = text(tmp_path, json.dumps(whole), "items.json")
    elif form == "parquet":
        file = tmp_path / name
        pq.write_table(pa.Table.from_pylist(records), file)
    else:
        file = json_lines(tmp_path, records, name, literal=form == "literal")
    found = items(tmp_path, file)
    assert found["item"] == ["b", "a", "c"]
    assert found["title"] == ["Bi", "Ay, Bee", None]
    assert found["genre"] == ["y", "x", None]
    assert found["text"] == ["Bi | y", "Ay, Bee | x", None]


def test_categories_are_derived_from_the_path_at_the_end_of_a_text(tmp_path: Path) -> None:
    lines = [
        '{"item": "a", "text": "Ay | Beauty > Hair > Shampoos"}',
        '{"item": "b", "text": "Bee > Cee"}',
        '{"item": "c", "text": "Cay | Beauty > Hair", "categories": "mine"}',
    ]
    found = items(tmp_path, text(tmp_path, "\n".join(lines), "items.jsonl"))
    assert sorted(found["categories"]) == ["Beauty > Hair > Shampoos", "Bee > Cee", "mine"]


def test_a_title_is_derived_from_the_text_before_its_first_bar(tmp_path: Path) -> None:
    found = items(tmp_path, json_lines(tmp_path, [{"item": "a", "text": "Polish | Beauty > Nails"}], "items.jsonl"))
    assert found["title"] == [None, "Polish", None]
    assert found["text"] == [None, "Polish | Beauty > Nails", None]


def test_nested_values_become_readable_and_pictures_stay_away(tmp_path: Path) -> None:
    record = {"parent_asin": "a", "asin": "other", "title": "Ay", "categories": [["Books", "Crime"], ["New"]],
              "description": ["one", "two"], "details": {"b": 1, "a": "x"}, "images": [{"large": "http"}],
              "price": 9.5, "rating_number": 3, "store": None, "features": []}  # fmt: skip
    found = items(tmp_path, json_lines(tmp_path, [record], "meta.jsonl"))
    assert found["text"][1] == "Ay | Books > Crime, New | one, two"
    assert found["details"][1] == '{"a": "x", "b": 1}'
    assert found["price"] == [None, 9.5, None]
    assert found["rating_number"] == [None, 3, None]
    assert "images" not in found


def test_a_table_from_ids_to_lists_is_read_as_one_attribute(tmp_path: Path) -> None:
    file = text(tmp_path, json.dumps({"a": ["Jim", "USA"], "b": [3, 4], "q": []}), "items.json")
    assert items(tmp_path, file)["attributes"] == ["3, 4", "Jim, USA", None]


def test_the_first_column_is_the_id_where_none_is_called_so(tmp_path: Path) -> None:
    assert items(tmp_path, text(tmp_path, "sku,item_name\na,Ay\n", "items.csv"))["item_name"] == [None, "Ay", None]


def test_the_first_of_two_entries_counts(tmp_path: Path) -> None:
    assert items(tmp_path, text(tmp_path, "item,title\na,Ay\na,Bee\n", "items.csv"))["title"] == [None, "Ay", None]


def test_users_have_attributes_too_and_the_report_counts_both(tmp_path: Path) -> None:
    users = text(tmp_path, "user,age\nv,30\n", "users.csv")
    dataset = prepared(csv(tmp_path, ROWS), format="csv", users=users)
    assert pq.read_table(dataset.root / "users.parquet")["age"].to_pylist() == [None, "30"]
    report = dataset.manifest["report"]
    assert (report["described_users"], report["described_items"]) == (1, 0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("items.csv", b"item,title\nx,Ay\n", r"items.csv describes none of the 3 items; check that its first column"),
     ("items.csv", b"item,title\na\n", r"items.csv line 2: not 2 fields separated by commas"),
     ("items.csv", b"item,title\na,\xe9\n", r"items.csv is not UTF-8 text; convert it"),
     ("items.csv", b"", r"items.csv is empty"),
     ("items.jsonl", b'{"item": "a"}\n{"item": \n', r"items.jsonl line 2 is no JSON object; correct it or remove it"),
     ("items.jsonl", b'{"item": "a"}\n{"item": "\xe9"}\n', r"items.jsonl line 2 is not UTF-8 text"),
     ("items.json", b'{"item": \n', r"items.json is not JSON"),
     ("items.parquet", b"PAR1", r"items.parquet is not a whole Parquet file")],
)  # fmt: skip
def test_attributes_that_cannot_be_read_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        items(tmp_path, text(tmp_path, content, name))
    assert not (tmp_path / "dataset").exists()
