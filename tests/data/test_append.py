"""A later log continues a dataset: old rows stay, and nothing else differs from preparing both at once."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.data import store
from rec.data.dataset import Dataset
from rec.errors import ConfigError, DatasetError
from tests.data.logs import csv, prepared, sequences, text

ROW = st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcdef"), st.integers(1, 5), st.integers(0, 20))
LOG = st.lists(ROW, min_size=1, max_size=25)
OLD = [("u", "a", 5, 10), ("v", "b", 4, 20), ("u", "b", 3, 30)]
NEW = [("w", "c", 1, 5), ("u", "c", 2, 15), ("v", "a", 2, 25)]


def both(folder: Path, old: list[Any], new: list[Any], header: str = "user,item,rating,timestamp", **options: Any
         ) -> tuple[Dataset, Dataset, Dataset]:  # fmt: skip
    """The old dataset, the one continued from it, and the one prepared from both logs at once."""
    first = prepared(csv(folder, old, header, "old.csv"), "old", format="csv", **options)
    carried = {name: value for name, value in options.items() if name == "split_column"}
    second = prepared(csv(folder, new, header, "new.csv"), "new", append=first.root, format="csv", **carried)
    whole = prepared(csv(folder, [*old, *new], header, "both.csv"), "both", format="csv", **options)
    return first, second, whole


@settings(max_examples=25, deadline=None)
@given(old=LOG, new=LOG, split=st.sampled_from(["leave-one-out", "ratio", "time", "held-out"]),
       duplicates=st.sampled_from(["all", "last"]))  # fmt: skip
def test_continuing_equals_preparing_both_logs_at_once(
    old: list[Any], new: list[Any], split: str, duplicates: str
) -> None:
    _, continued, whole = both(Path(tempfile.mkdtemp()), old, new, split=split, duplicates=duplicates, seed=3)
    assert continued.fingerprint == whole.fingerprint


def test_a_given_split_is_continued_too(tmp_path: Path) -> None:
    old = [("u", "a", 1, 30, "train"), ("u", "b", 1, 10, "test")]
    new = [("u", "c", 1, 20, "train"), ("v", "a", 1, 1, "val")]
    header = "user,item,rating,timestamp,part"
    _, continued, whole = both(tmp_path, old, new, header, split_column="part")
    assert continued.fingerprint == whole.fingerprint


def test_logs_without_times_are_continued_in_the_order_given(tmp_path: Path) -> None:
    rows = [row[:2] for row in OLD], [row[:2] for row in NEW]
    _, continued, whole = both(tmp_path, *rows, "user,item")
    assert continued.fingerprint == whole.fingerprint
    assert sequences(continued)["u"] == ["a", "b", "c"]


def test_old_rows_stay_and_the_old_dataset_is_untouched(tmp_path: Path) -> None:
    old, new, _ = both(tmp_path, OLD, NEW)
    before = (old.root / "dataset.json").read_bytes()
    assert old.user_ids == new.user_ids[: len(old.user_ids)] == ["", "u", "v"]
    assert old.item_ids == new.item_ids[: len(old.item_ids)] == ["", "a", "b"]
    assert new.user_ids[3:] == ["w"]
    assert new.manifest["appended_to"] == old.fingerprint
    assert [entry["step"] for entry in new.manifest["report"]["funnel"]] == ["existing", "read"]
    assert (old.root / "dataset.json").read_bytes() == before
    assert sequences(Dataset.open(old.root)) == {"u": ["a", "b"], "v": ["b"]}


def test_users_and_items_without_interactions_keep_their_rows(tmp_path: Path) -> None:
    store.write(
        tmp_path / "old", user_ids=["nobody", "u"], item_ids=["a", "unused", "b"], offsets=np.array([0, 0, 0, 2]),
        items=np.array([1, 3]), times=np.array([5, 6]), ratings=np.ones(2), split="leave_one_out",
        bounds=np.array([[0] * 5, [0] * 5, [2] * 5]),
    )  # fmt: skip
    new = prepared(csv(tmp_path, NEW), "new", append=tmp_path / "old", format="csv")
    assert new.user_ids == ["", "nobody", "u", "w", "v"]
    assert new.item_ids == ["", "a", "unused", "b", "c"]
    assert sequences(new)["nobody"] == []


def test_filters_act_on_the_new_rows_alone(tmp_path: Path) -> None:
    old = prepared(csv(tmp_path, OLD), "old", format="csv")
    new = prepared(csv(tmp_path, NEW, name="new.csv"), "new", append=old.root, format="csv", min_rating=2)
    assert sequences(new) == {"u": ["a", "c", "b"], "v": ["b", "a"]}
    assert 3.0 in new.ratings.tolist()


def test_attributes_come_along_and_new_ones_are_laid_over_them(tmp_path: Path) -> None:
    items = text(tmp_path, "item,title,year\na,Ay,1990\nb,Be,1991\n", "items.csv")
    more = text(tmp_path, "item,title,colour\nc,Ce,red\na,Ah,blue\n", "more.csv")
    old = prepared(csv(tmp_path, OLD), "old", format="csv", items=items)
    new = prepared(csv(tmp_path, NEW, name="new.csv"), "new", append=old.root, format="csv", items=more)
    table = pq.read_table(new.root / "items.parquet").to_pydict()
    assert table["title"] == ["Ah", "Be", "Ce"]
    assert table["year"] == ["1990", "1991", None]
    assert table["colour"] == ["blue", None, "red"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"core_users": 2}, "--core-users does not go with --append: it could remove"), ({"last": 2}, "--last does not"),
     ({"split": "ratio"}, "--split does not go with --append: the dataset's own is kept"),
     ({"duplicates": "first"}, "--duplicates does not go")],
)  # fmt: skip
def test_what_could_remove_or_reorder_old_rows_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    old = prepared(csv(tmp_path, OLD), "old", format="csv")
    with pytest.raises(ConfigError, match=message):
        prepared(csv(tmp_path, NEW), "new", append=old.root, format="csv", **options)
    assert not (tmp_path / "new").exists()


def test_a_log_without_times_cannot_continue_one_that_has_them(tmp_path: Path) -> None:
    old = prepared(csv(tmp_path, OLD), "old", format="csv")
    with pytest.raises(ConfigError, match=r"has times and .* has none; name them with --time-column"):
        prepared(text(tmp_path, "u a\n"), "new", append=old.root, format="pairs")


def test_only_a_prepared_dataset_can_be_continued(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a prepared dataset"):
        prepared(csv(tmp_path, NEW), "new", append=tmp_path / "nothing", format="csv")
