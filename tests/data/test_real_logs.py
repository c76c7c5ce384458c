"""The counts of real data sets, as published with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from rec.data.dataset import Dataset
from rec.data.options import Options
from rec.data.prepare import prepare
from tests.data.logs import REAL, needs_real

pytestmark = [pytest.mark.data, needs_real]
KINDLE_2018 = {"user_column": "ReviewerID", "item_column": "ProductID", "text_column": "Review", "min_words": 1}

LOGS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "ml-100k": ({}, (943, 1682, 100_000)),
    "amazon-beauty-5core/interactions.csv.gz": ({"format": "csv"}, (22_363, 12_101, 198_502)),
    "amazon-beauty-5core/sequences-s3rec-ids.txt": ({"format": "sequences"}, (22_363, 12_101, 198_502)),
    "amazon-musical-instruments-5core-2014/Musical_Instruments_5.json.gz": ({}, (1429, 900, 10_261)),
    "amazon-all-beauty-5core-2018/All_Beauty_5.json.gz": ({}, (991, 85, 5269)),
    "kindle-2023-matrix/interactions.csv.gz": ({"format": "csv"}, (2709, 4533, 109_522)),
    "kindle-2018-reviews/Kindle_Store_5.jsonl.gz": (KINDLE_2018, (2101, 137, 2501)),
    "dealrec-amazon-games/interactions.csv.gz": ({"format": "csv", "split_column": "split"}, (49_156, 17_332, 342_329)),
}


@pytest.mark.parametrize("log", LOGS)
def test_a_real_log_has_the_counts_it_is_known_for(tmp_path: Path, log: str) -> None:
    options, counts = LOGS[log]
    prepare(str(REAL / log), tmp_path / "d", Options(**options))
    dataset = Dataset.open(tmp_path / "d")
    assert (dataset.users, dataset.items, dataset.interactions) == counts


def test_repeated_reviews_of_all_beauty_are_found(tmp_path: Path) -> None:
    log = REAL / "amazon-all-beauty-5core-2018/All_Beauty_5.json.gz"
    manifest = prepare(str(log), tmp_path / "d", Options(duplicates="first"))
    assert manifest["interactions"] == 5269 - 1177
    assert prepare(str(log), tmp_path / "all", Options())["report"]["repeated_pairs"] == pytest.approx(
        1177 / 5269, abs=1e-5
    )


def test_the_given_split_of_games_is_kept(tmp_path: Path) -> None:
    games = REAL / "dealrec-amazon-games"
    options = Options(format="csv", split_column="split", items=games / "items.jsonl.gz")
    manifest = prepare(str(games / "interactions.csv.gz"), tmp_path / "d", options)
    assert manifest["split"]["interactions"] == {"train": 299_987, "valid": 22_609, "test": 19_733, "history": 0}
    assert manifest["report"]["described_items"] == 17_332


def test_every_user_of_movielens_has_tied_times_and_every_item_a_text(tmp_path: Path) -> None:
    report = prepare(str(REAL / "ml-100k"), tmp_path / "d", Options())["report"]
    assert report["tied_timestamps"] == pytest.approx(0.51, abs=0.01)
    assert (report["described_users"], report["described_items"]) == (943, 1682)


def test_attributes_by_number_are_read(tmp_path: Path) -> None:
    beauty = REAL / "amazon-beauty-5core"
    options = Options(format="sequences", items=beauty / "attributes-s3rec-ids.json")
    assert (
        prepare(str(beauty / "sequences-s3rec-ids.txt"), tmp_path / "d", options)["report"]["described_items"] == 12_101
    )
    items = REAL / "netflix-llm-attributes/items.json"
    (tmp_path / "log").write_text("".join(f"u {item}\n" for item in json.loads(items.read_text())))
    described = prepare(str(tmp_path / "log"), tmp_path / "n", Options(format="pairs", items=items))["report"]
    assert (described["funnel"][0]["items"], described["described_items"]) == (17_366, 17_365)  # one says nothing
