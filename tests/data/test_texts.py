"""Texts of interactions: every review stays with its interaction, whatever was filtered, sorted, drawn or added."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rec.data import ordered, spool, texts
from rec.data.dataset import Dataset
from rec.data.texts import Texts
from tests.data.logs import Run, json_lines, prepared, run

__all__ = ["run"]


def rows(users: int = 9, many: int = 7) -> list[dict[str, object]]:
    """Reviews that say whose they are, out of order, some of them missing or of several bytes a letter."""
    return [
        {"user": f"u{user}", "item": f"i{(user * 3 + place) % 11}", "rating": 1 + (user + place) % 5,
         "timestamp": 1_500_000_000 + (place * 7919 + user) % 100,
         "said": None if (user + place) % 6 == 0 else f"ü{user} über i{(user * 3 + place) % 11}" * (1 + place)}
        for place in range(many)
        for user in range(users)
    ]  # fmt: skip


def said(dataset: Dataset, name: str = "review") -> dict[tuple[str, str], str]:
    """(user, item) -> text, by stored position."""
    kept, users, items = Texts(dataset.root / "texts", name), dataset.user_ids, dataset.item_ids
    owner = np.repeat(np.arange(dataset.users + 1), np.diff(dataset.offsets))
    return {
        (users[user], items[item]): kept[place]
        for place, (user, item) in enumerate(zip(owner, dataset.item_rows, strict=True))
    }


def of(records: list[dict[str, object]]) -> dict[tuple[str, str], str]:
    return {(str(row["user"]), str(row["item"])): str(row["said"] or "") for row in records}


OPTIONS = {"format": "jsonl", "text_column": "said", "keep_text": True}


@pytest.mark.parametrize("split", ["leave-one-out", "random"])
@pytest.mark.parametrize("pieces", [1 << 20, 5])
def test_every_review_stays_with_its_interaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, pieces: int
) -> None:
    for module, name in ((ordered, "RANGE_ROWS"), (texts, "ROWS"), (spool, "BLOCK_ROWS")):
        monkeypatch.setattr(module, name, pieces)
    monkeypatch.setattr(ordered.sort, "__defaults__", (pieces,))
    log = json_lines(tmp_path, rows())
    dataset = prepared(log, split=split, min_rating=2, core_items=3, **OPTIONS)
    kept = of([row for row in rows() if int(str(row["rating"])) >= 2])
    found = said(dataset)
    assert len(found) == dataset.interactions > 30
    assert found == {pair: kept[pair] for pair in found}
    assert dataset.texts == ("review",)


def test_reasons_are_kept_beside_reviews(tmp_path: Path) -> None:
    records = [{**row, "why": f"since {row['item']}"} for row in rows(3, 4)]
    dataset = prepared(json_lines(tmp_path, records), reason_column="why", **OPTIONS)
    assert said(dataset) == of(records)
    assert all(text == f"since {item}" for (_, item), text in said(dataset, "reason").items())
    only = prepared(json_lines(tmp_path, records), "only", format="jsonl", reason_column="why")
    assert only.texts == ("reason",)


def test_the_fingerprint_covers_texts_and_without_asking_none_are_kept(tmp_path: Path) -> None:
    first = prepared(json_lines(tmp_path, rows()), **OPTIONS)
    changed = rows()
    changed[5]["said"] = "else"
    second = prepared(json_lines(tmp_path, changed), "second", **OPTIONS)
    assert first.fingerprint != second.fingerprint
    plain = prepared(json_lines(tmp_path, rows()), "plain", format="jsonl", text_column="said")
    same = prepared(json_lines(tmp_path, changed), "same", format="jsonl")
    assert plain.fingerprint == same.fingerprint
    assert (plain.texts, (plain.root / "texts").exists()) == ((), False)


def test_a_log_in_which_nobody_said_anything_is_no_special_case(tmp_path: Path) -> None:
    dataset = prepared(json_lines(tmp_path, [{**row, "said": None} for row in rows(2, 3)]), **OPTIONS)
    assert set(said(dataset).values()) == {""}


def test_a_continued_dataset_has_the_texts_of_both_logs(tmp_path: Path) -> None:
    whole = prepared(json_lines(tmp_path, rows()), "whole", split="random", **OPTIONS)
    early = prepared(json_lines(tmp_path, rows()[:40], "early.jsonl"), "early", split="random", **OPTIONS)
    late = json_lines(tmp_path, rows()[40:], "late.jsonl")
    both = prepared(late, "both", append=early.root, format="jsonl", text_column="said")
    assert said(both) == said(whole)
    assert np.array_equal(both.item_rows, whole.item_rows)  # the draw of a random split depends on no order of logs
    assert np.array_equal(both.bounds, whole.bounds)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, {"keep_text": True, "text_column": "said"}, "keeps no texts, this log would review; continue it with"),
        ({"keep_text": True, "text_column": "said"}, {}, "--keep-text needs the review's text; name its column"),
        ({"reason_column": "said"}, {}, "keeps reason, this log would none; continue it with the same texts"),
    ],
)  # fmt: skip
def test_texts_of_half_a_dataset_are_refused(tmp_path: Path, before: dict, after: dict, message: str) -> None:
    log = json_lines(tmp_path, rows())
    first = prepared(log, "first", format="jsonl", **before)
    with pytest.raises(Exception, match=message):
        prepared(log, "second", append=first.root, format="jsonl", **after)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None, "bcü"]),
        pa.array([b"a", None, "bcü".encode()]),
        pa.array(["a", None, "bcü"]).dictionary_encode(),
        pa.array(["x", "a", None, "bcü", "y"])[1:4],
        pa.chunked_array([["a", None, "bcü"]]).combine_chunks(),
    ],
)
def test_texts_of_any_arrow_type_are_packed(column: pa.Array) -> None:
    data, sizes = texts.packed(column)
    assert (data.tobytes(), sizes.tolist()) == ("abcü".encode(), [1, 0, 4])


def test_numbers_are_texts_too() -> None:
    data, sizes = texts.packed(pa.array([7, None, 12]))
    assert (data.tobytes(), sizes.tolist()) == (b"712", [1, 0, 2])


def test_the_verb_keeps_texts_when_asked(tmp_path: Path, run: Run) -> None:
    log = json_lines(tmp_path, rows())
    words = ("--format", "jsonl", "--text-column", "said", "--keep-text", "--out")
    code, _, _ = run(log, *words, tmp_path / "made")
    assert code == 0
    assert said(Dataset.open(tmp_path / "made")) == of(rows())
    code, _, err = run(log, "--format", "jsonl", "--keep-text", "--out", tmp_path / "other")
    assert (code, "--keep-text needs the review's text; name its column with --text-column" in err) == (2, True)
