"""What a user can get wrong ends in one sentence with the place and the remedy, exit code 2, and nothing on disk."""

import errno
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rec.data import spool
from tests.data.logs import Run, csv, json_lines, prepared, run, sequences, text

__all__ = ["run"]
GOOD = [("u", "a", 5, 1_400_000_000), ("u", "b", 4, 1_400_000_001), ("v", "a", 3, 1_400_000_002)]


def broken(row: tuple[object, ...]) -> Callable[[Path], Path]:
    """A log whose third row, on line 4, is the given one."""
    return lambda folder: csv(folder, [*GOOD[:2], row, GOOD[2]])


def reviews(**change: object) -> Callable[[Path], Path]:
    records = [{"user": user, "item": item, "rating": rating, "timestamp": time} for user, item, rating, time in GOOD]
    records[1] |= change
    return lambda folder: json_lines(folder, records)


def squeezed(folder: Path, cut: int | None, flip: bool = False) -> Path:
    data = bytearray(gzip.compress(b"user,item\n" + b"".join(b"u%d,i%d\n" % (row, row * 7) for row in range(9999))))
    if flip:
        data[len(data) // 2] ^= 255
    file = folder / "log.csv.gz"
    file.write_bytes(bytes(data[:cut]))
    return file


def parquet(folder: Path, keep: int | None, **columns: list[object]) -> Path:
    file = folder / "log.parquet"
    pq.write_table(pa.table(columns), file)
    file.write_bytes(file.read_bytes()[:keep])
    return file


CASES: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "a missing column": (lambda at: csv(at, GOOD, "who,item,rating,timestamp"), "csv",
                         "log.csv line 1 has no column 'user' or 'user_id' for the user (there: who, item, rating, "
                         "timestamp); name one of them with --user-column"),
    "too few fields": (broken(("u", "c")), "csv", "log.csv line 4: not 4 fields separated by commas; correct it"),
    "too many fields": (broken(("u", "c", 1, 5, 6)), "csv", "log.csv line 4: not 4 fields"),
    "an unparsable rating": (broken(("u", "c", "good", 5)), "csv",
                             "log.csv line 4: 'good' is no finite number as a rating; correct it, or leave such lines "
                             "out with --on-bad-line skip"),
    "a rating that is no number": (broken(("u", "c", "nan", 5)), "csv", "log.csv line 4: 'nan' is no finite number"),
    "an infinite rating": (broken(("u", "c", "inf", 5)), "csv", "log.csv line 4: 'inf' is no finite number"),
    "no rating": (broken(("u", "c", "", 5)), "csv", "log.csv line 4: '' is no finite number"),
    "a negative time": (broken(("u", "c", 1, -1)), "csv", "log.csv line 4: '-1' is no time in seconds between 1970"),
    "milliseconds among seconds": (broken(("u", "c", 1, 1_400_000_000_000)), "csv",
                                   "log.csv line 4: '1400000000000' is no time in seconds between 1970 and 2100 "
                                   "(--time-unit states another unit)"),
    "seconds among milliseconds": (lambda at: csv(at, [("u", "a", 1, 14 * 10**11), ("u", "b", 1, 14 * 10**8)]),
                                   "csv", "line 3: '1400000000' is no time in milliseconds between 1973 and 2100"),
    "an enormous time": (broken(("u", "c", 1, 10**30)), "csv", "log.csv line 4: '1" + "0" * 30 + "' is no time"),
    "a date among numbers": (broken(("u", "c", 1, "2014-01-01")), "csv", "log.csv line 4: '2014-01-01' is no time"),
    "a number among dates": (lambda at: csv(at, [("u", "a", 1, "2014-01-01"), ("u", "b", 1, 7)]), "csv",
                             "log.csv line 3: '7' is no time in seconds or milliseconds between 1970 and 2100"),
    "a time that is a word": (broken(("u", "c", 1, "noon")), "csv", "log.csv line 4: 'noon' is no time in seconds"),
    "an empty user id": (broken(("", "c", 1, 5)), "csv",
                         "log.csv line 4: '' is no user id: it must not be empty nor hold tabs or line breaks"),
    "an item id with a tab": (broken(("u", "c\td", 1, 5)), "csv", r"log.csv line 4: 'c\td' is no item id"),
    "an item id with a line break": (broken(("u", '"c\nd"', 1, 5)), "csv", r"log.csv line 4: 'c\nd' is no item id"),
    "bytes that are no text": (lambda at: text(at, b"user,item\nu,a\nu,caf\xe9\n", "log.csv"), "csv",
                               "log.csv line 3: 'caf\ufffd' is no item id"),
    "a header that is no text": (lambda at: text(at, "user,item\nu,a\n".encode("utf-16"), "log.csv"), "csv",
                                 "log.csv line 1 is not UTF-8 text; convert it, for example with `iconv -t utf-8`"),
    "an empty file": (lambda at: text(at, "", "log.csv"), "csv",
                      "log.csv is empty; give a log with at least one interaction"),
    "an empty gzip": (lambda at: text(at, "", "log.csv.gz"), "csv", "log.csv.gz"),
    "a header and no rows": (lambda at: csv(at, []), "csv", "log.csv holds no interaction; give a log with"),
    "a truncated gzip": (lambda at: squeezed(at, -20), "csv", "log.csv.gz is a truncated gzip file; fetch or pack it"),
    "a gzip cut in its head": (lambda at: squeezed(at, 5), "csv", "log.csv.gz is a truncated gzip file"),
    "a damaged gzip": (lambda at: squeezed(at, None, flip=True), "csv", "log.csv.gz is a damaged gzip file"),
    "no such file": (lambda at: at / "log.csv", "csv", "log.csv does not exist; give a log, or --format huggingface"),
    "a folder without a log": (lambda at: at, "recbole", "holds no log (*.inter); name the file itself"),
    "a line that is no record": (lambda at: text(at, '{"user": "u", "item": "i"}\n{"user": \n', "log.jsonl"), "jsonl",
                                 "log.jsonl line 2: neither a JSON object nor a Python dictionary; correct it"),
    "a record cut short": (lambda at: text(at, '{"user": "u", "item": "i"}\n\n{"user": "u", "it', "log.jsonl"), "jsonl",
                           "log.jsonl line 3: neither a JSON object"),
    "a list instead of a record": (lambda at: text(at, '{"user": "u", "item": "i"}\n[1]\n', "log.jsonl"), "jsonl",
                                   "log.jsonl line 2: neither a JSON object"),
    "a first line that is no record": (lambda at: text(at, "hello\n", "log.jsonl"), "jsonl",
                                       "log.jsonl line 1 is neither a JSON object nor a Python dictionary; choose"),
    "a record without an item": (reviews(item=None), "jsonl", "log.jsonl line 2: None is no item id"),
    "a record with a list for an id": (reviews(user=["u"]), "jsonl", "log.jsonl line 2: None is no user id"),
    "a record with a text for a rating": (reviews(rating="five"), "jsonl", "log.jsonl line 2: 'five' is no finite"),
    "a record without a time": (reviews(timestamp=None), "jsonl", "log.jsonl line 2: None is no time in seconds"),
    "a record that is no UTF-8": (lambda at: text(at, b'{"user": "u", "item": "i"}\n{"user": "\xe9", "item": "i"}\n',
                                                  "log.jsonl"), "jsonl", "log.jsonl line 2 is not UTF-8 text"),
    "a user without items": (lambda at: text(at, "1 2 3\n4\n"), "sequences",
                             "log.txt line 2: not a user and at least one item"),
    "three fields for a pair": (lambda at: text(at, "1 2\n\n1 2 3\n"), "pairs", "log.txt line 3: not a user and one"),
    "lines that are no UTF-8": (lambda at: text(at, b"1 2\n1 \xe9\n"), "pairs", "log.txt line 2 is not UTF-8 text"),
    "half a Parquet file": (lambda at: parquet(at, 200, user=["u"], item=["i"]), "parquet",
                            "log.parquet is not a whole Parquet file"),
    "a hole in a Parquet column": (lambda at: parquet(at, None, user=["u", None], item=["i", "j"]), "parquet",
                                   "log.parquet row 2: None is no user id"),
    "a hole in a column of times": (lambda at: parquet(at, None, user=["u", "u"], item=["i", "j"], time=[5, None]),
                                    "parquet", "log.parquet row 2: None is no time"),
    "a hole in a column of ratings": (lambda at: parquet(at, None, user=[1, 1], item=[2, 3], rating=[5.5, None]),
                                      "parquet", "log.parquet row 2: None is no finite number"),
    "two records on a line": (lambda at: text(at, '{"user": 1, "item": 2} {"user": 1, "item": 3}\n', "log.jsonl"),
                              "jsonl", "log.jsonl line 1 is neither a JSON object"),
    "two records on a later line": (lambda at: text(at, 2 * '{"user": 1, "item": 1}\n' + 2 * '{"user": 1, "item": 1}',
                                                    "log.jsonl"), "jsonl", "log.jsonl line 3: neither a JSON object"),
    "a list for an id": (lambda at: parquet(at, None, user=[["u"]], item=["j"]), "parquet", "log.parquet row 1: ['u']"),
    "no such data set": (lambda at: at / "nowhere" / "here", "huggingface", "cannot be loaded"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_log_that_cannot_be_used_is_refused_in_one_sentence(
    tmp_path: Path, run: Run, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    make, form, message = CASES[case]
    source = make(tmp_path)
    code, out, err = run(source, "--out", tmp_path / "dataset", "--format", form)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert "wrote" not in out
    assert not (tmp_path / "dataset").exists()
    assert not (tmp_path / "dataset.tmp").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--min-rating", 9], "no interaction is left after 'min-rating 9' of 3; relax that filter"),
        (["--core-users", 9], "no interaction is left after 'core-users 9' of 3; relax that filter"),
        (["--since", "2030-01-01"], "no interaction is left after 'since 2030-01-01' of 3"),
        (["--since", "yesterday"], "'yesterday' is no moment; write a date such as 2013-01-01, or a timestamp"),
        (["--min-words", 3], "--min-words needs the review's text; name its column with --text-column"),
        (["--core-items", 0], "--core-items is 0; choose 1 or more, or leave it out"),
        (["--split", "given"], "--split given needs a column with train, valid or test; name it with --split-column"),
        (["--split-column", "item"], "line 2: 'a' is no part of a split (use train, valid, validation, val, dev, test"),
        (["--split-at", "0.5,0.6"], "--split-at goes with --split ratio, random, time or held-out; add one of them"),
        (["--split", "ratio", "--split-at", "0.9,0.8"], "--split-at 0.9,0.8 is not two rising fractions"),
        (["--split", "time", "--split-at", "2020-01-01"], "--split-at 2020-01-01 is not two rising moments"),
        (["--format", "cvs"], "'cvs' is no format; did you mean 'csv'?"),
        (["--items", "nowhere.csv"], "cannot read nowhere.csv: No such file or directory"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--on-bad-line", "ignore"], "invalid choice: 'ignore'"),
        (["--time-column", "when"], "log.csv line 1 has no column 'when' for the time"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(tmp_path: Path, run: Run, words: list[object], message: str) -> None:
    form = [] if "--format" in words else ["--format", "csv"]
    code, _, err = run(csv(tmp_path, GOOD), "--out", tmp_path / "dataset", *form, *words)
    assert code == 2
    assert message in err
    assert not list(tmp_path.glob("dataset*"))


def test_a_log_without_times_or_ratings_cannot_be_filtered_by_them(tmp_path: Path, run: Run) -> None:
    source = text(tmp_path, "1 2\n")
    for option, role in (("--since", "time"), ("--min-rating", "rating")):
        code, _, err = run(source, "--out", tmp_path / "dataset", "--format", "pairs", option, 3)
        assert code == 2
        assert f"{option} needs a {role}" in err
    code, _, err = run(source, "--out", tmp_path / "dataset", "--format", "pairs", "--split", "time")
    assert code == 2
    assert "needs times" in err


def test_an_output_that_exists_is_never_touched(tmp_path: Path, run: Run) -> None:
    (tmp_path / "dataset").mkdir()
    text(tmp_path / "dataset", "mine", "note")
    code, _, err = run(csv(tmp_path, GOOD), "--out", tmp_path / "dataset", "--format", "csv")
    assert code == 2
    assert "dataset exists; choose another folder or remove it" in err
    assert [file.name for file in (tmp_path / "dataset").iterdir()] == ["note"]


def test_bad_lines_are_skipped_and_counted_if_the_user_says_so(tmp_path: Path, run: Run) -> None:
    rows = [*GOOD, ("", "c", 1, 5), ("u", "c"), ("u", "c", "x", 5), ("w", "d", 1, 10**14), ("w", "e", 2, 7)]
    source = csv(tmp_path, rows)
    code, out, _ = run(source, "--out", tmp_path / "dataset", "--format", "csv", "--on-bad-line", "skip",
                       "--json", tmp_path / "report.json")  # fmt: skip
    assert code == 0
    assert "skipped lines: 4" in out
    report = json.loads((tmp_path / "report.json").read_text())["report"]
    assert report["skipped_lines"] == 4
    assert report["funnel"] == [{"step": "read", "rows": 4, "users": 3, "items": 3}]


@pytest.mark.parametrize(
    ("form", "content"),
    [("jsonl", b'{"user": "u", "item": "a"}\nnone\n{"user": "\xe9"}\n{"user": "u"}\n{"user": "u", "item": "b"}\n'),
     ("pairs", b"u a\nnone\n\xe9 a\nu a b\nu b\n"), ("csv", b"user,item\nu,a\nnone\n\xe9,a\nu,\nu,b\n")],
)  # fmt: skip
def test_every_family_can_skip_bad_lines(tmp_path: Path, form: str, content: bytes) -> None:
    dataset = prepared(text(tmp_path, content), format=form, on_bad_line="skip")
    assert sequences(dataset) == {"u": ["a", "b"]}
    assert dataset.manifest["report"]["skipped_lines"] == 3


@pytest.mark.parametrize("after", [0, 3, 6, 12])
def test_a_full_disk_leaves_nothing_and_says_so(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    written = 0
    honest = spool.Spool.write

    def fill(self: spool.Spool, *arguments: object) -> None:
        nonlocal written
        written += 1
        if written > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        honest(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(spool.Spool, "write", fill)
    code, _, err = run(csv(tmp_path, GOOD), "--out", tmp_path / "dataset", "--format", "csv")
    assert code == 2
    assert "dataset: No space left on device; make room there or choose another folder with --out" in err
    assert not list(tmp_path.glob("dataset*"))


def test_a_defect_or_an_interrupt_leaves_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rec.data.emit.rows_of", stop)
    with pytest.raises(KeyboardInterrupt):
        prepared(csv(tmp_path, GOOD), format="csv")
    assert not list(tmp_path.glob("dataset*"))
