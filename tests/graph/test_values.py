"""Brands, categories, authors and genres: what two items share."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.data.dataset import Dataset
from rec.graph.attribute import Attribute
from rec.graph.build import build
from rec.graph.graph import Graph
from rec.graph.values import shared_values
from tests.data.logs import csv, prepared
from tests.eval.tiny import write

ITEMS = 40


def described(root: Path, **columns: list[str | None]) -> Dataset:
    """A dataset of 40 items, the first of which are described."""
    dataset = write(root, [[1, 2, 3, 4]], ITEMS)
    table = pq.read_table(root / "items.parquet")
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values + [None] * (ITEMS - len(values)), pa.string()))
    pq.write_table(table, root / "items.parquet")
    return dataset


def shared(root: Path, left: int, right: int, **columns: list[str | None]) -> dict[str, int]:
    graph = build(described(root, **columns))
    return {name: int(attribute.shared(left, right)) for name, attribute in graph.attributes.items()}


def test_a_brand_is_shared_whatever_its_capitals(tmp_path: Path):
    brands = ["OPI", "opi ", "Essie", None, ""]
    graph = build(described(tmp_path / "data", brand=brands))
    opi, essie = [1, 1, 1, 2, 4, 5], [2, 3, 4, 3, 5, 6]
    assert graph.attributes["brand"].shared(opi, essie).tolist() == [1, 0, 0, 0, 0, 0]
    assert graph.attributes["brand"].counts.tolist() == [2]  # what one item has joins nothing


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ("Beauty > Makeup > Nails", "Beauty > Makeup > Nails", 2),  # the path and its end
        ("Beauty > Makeup > Sets", "Beauty > Hair > Sets", 1),  # the end only
        ("Beauty > Makeup", "Beauty > Hair", 1),  # as far as both go
        ("Games > PC > Ships > a game of war", "Games > PC > Ships > 12 ships", 2),
        ("Games > PC, Games > Sets", "Games > PC", 2),
        ("Clothing, Shoes & Jewelry > Men", "Clothing, Shoes", 0),
        ("Care, Hair Care, Shampoo", "Care, Hair Care, Soap", 2),
    ],
)
def test_categories_are_paths_or_lists(one: str, other: str, count: int, tmp_path: Path):
    assert shared(tmp_path / "data", 1, 2, categories=[one, other]) == ({"category": count} if count else {})


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [("Comedy|Science Fiction", "Science Fiction", 1), ("Comedy, War", "War, Comedy", 2), ("Comedy War", "War", 1)],
)
def test_genres_are_lists(one: str, other: str, count: int, tmp_path: Path):
    for place, column in enumerate(("genre", "genres", "class")):
        assert shared(tmp_path / str(place), 1, 2, **{column: [one, other]}) == {"genre": count}


def test_blanks_part_genres_only_where_nothing_else_does(tmp_path: Path):
    assert shared(tmp_path / "data", 1, 2, genres=["Science Fiction", "Science|Art"]) == {}


def test_a_value_of_more_than_a_tenth_of_the_catalogue_says_nothing(tmp_path: Path):
    four, five = ["common"] * 4, ["common"] * 5
    assert shared(tmp_path / "four", 1, 2, brand=four) == {"brand": 1}
    assert shared(tmp_path / "five", 1, 2, brand=five) == {}
    graph = build(described(tmp_path / "more", genre=["war|a", "war|a", "war|b", "war|b", "war|b", "c"]))
    assert graph.attributes["genre"].counts.tolist() == [2, 3]
    assert graph.attributes["genre"].shared([1, 1, 3, 6], [2, 3, 5, 6]).tolist() == [1, 0, 1, 0]


def test_other_columns_are_no_attributes(tmp_path: Path):
    assert shared(tmp_path / "data", 1, 2, title=["a", "a"], price=["1", "1"], author=["Le Guin", "Le Guin"]) == {
        "author": 1
    }


def test_numbers_and_lists_of_a_prepared_log_are_values(tmp_path: Path):
    log = csv(tmp_path, [(f"u{user}", f"i{item}", 5, item) for user in range(2) for item in range(30)])
    entries = ["item,brand,categories", "i0,7,A > B", "i1,7,A > C", "i2,8,A > B"]
    (tmp_path / "items.csv").write_text("\n".join(entries) + "\n")
    graph = build(prepared(log, format="csv", items=tmp_path / "items.csv"))
    rows = [graph_row(graph, name) for name in ("i0", "i1", "i2")]
    assert graph.attributes["brand"].shared(rows[0], rows[1:]).tolist() == [1, 0]
    assert graph.attributes["category"].shared(rows[0], rows[1:]).tolist() == [0, 2]


def graph_row(graph: Graph, name: str) -> int:
    return Dataset.open(graph.folder.parent).item_ids.index(name)


def test_without_descriptions_there_are_no_attributes(tmp_path: Path):
    assert list(shared_values(write(tmp_path / "data", [[1, 2, 3]], 3))) == []


@given(st.lists(st.sets(st.integers(0, 6)), min_size=1, max_size=8))
def test_shared_values_are_the_intersection(held: list[set[int]]):
    codes = [np.array(sorted(of_item), np.int32) for of_item in held]
    offsets = np.concatenate([[0, 0], np.cumsum([len(of_item) for of_item in codes])])
    attribute = Attribute(offsets, np.concatenate(codes), np.ones(7, np.int32))
    rows = np.arange(len(held) + 1)
    sets = [set(), *held]
    assert attribute.shared(rows[:, None], rows).tolist() == [[len(one & two) for two in sets] for one in sets]
