"""Any known log -> one prepared dataset, in bounded memory: the composition of everything in this folder."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from rec.data import attributes, emit, split, texts
from rec.data.dataset import Dataset
from rec.data.filters import log_filters, row_filters
from rec.data.intake import Funnel, Intake, columns, take, take_prepared
from rec.data.options import Options, SplitKind
from rec.data.ordered import Ordered, reorder, sort
from rec.data.progress import Progress
from rec.data.raw.chunk import TEXTS
from rec.data.raw.reading import Log, open_log
from rec.data.store import Writer, id_table
from rec.errors import ConfigError, DatasetError


def prepare(source: str, out: Path, options: Options, append: Path | None = None) -> dict[str, Any]:
    """Reads, filters, orders, splits and writes; returns the manifest of the new dataset.

    Args:
        source: a log, a folder that holds one, or the name of a Hugging Face data set.
        out: the folder of the new dataset, which must not exist.
        append: a prepared dataset whose users, items and interactions come first; it is not changed.

    Raises:
        ConfigError: options that do not fit each other or the log.
        DatasetError: a log that cannot be used, or an output that cannot be written. `out` does not exist then.
    """
    old = Dataset.open(append) if append else None
    if old:
        options = _continued(options, old)
    with Writer(out) as writer, Progress() as progress:
        log = open_log(source, options)
        kind = split.chosen(options, log.has_split, "time" in log.columns)
        intake = _read(log, kind, options, old, writer, progress)
        progress.stage("putting in order")
        ordered = _order(intake, writer)
        progress.stage("filtering")
        _filter(ordered, intake, options)
        progress.stage("writing")
        found = _write(ordered, intake, kind, _with_files(options, log), old, writer)
        source_ = {"source": log.file.name, "format": log.format, "columns": dict(log.columns)}
        found["report"] |= {"funnel": intake.funnel, "skipped_lines": log.bad.skipped}
        shown = {name: value.name if isinstance(value, Path) else value for name, value in asdict(options).items()}
        origin = {"appended_to": old.fingerprint} if old else {}
        return writer.commit({**found, **source_, **origin, "options": shown})


def _continued(options: Options, old: Dataset) -> Options:
    """The options of a log that continues a dataset: how it is split and what counts twice stays as it was."""
    for name in ("core_users", "core_items", "last", "sample"):
        if getattr(options, name) is not None:
            raise ConfigError(
                f"--{name.replace('_', '-')} does not go with --append: it could remove what the dataset has"
            )
    before = old.manifest.get("options", {})
    for name in ("split", "split_at", "duplicates"):
        if getattr(options, name) not in (getattr(Options(), name), before.get(name)):
            raise ConfigError(f"--{name.replace('_', '-')} does not go with --append: the dataset's own is kept")
    kept = {name: before[name] for name in ("split_at", "duplicates", "seed") if name in before}
    name = old.manifest["split"]["name"].replace("_", "-")
    return replace(options, split=name, keep_text=options.keep_text or "review" in old.texts, **kept)


def _with_files(options: Options, log: Log) -> Options:
    """The options with the attribute files that belong to the log itself, where none are named."""
    return replace(
        options, users=options.users or log.beside.get("user"), items=options.items or log.beside.get("item")
    )


def _read(
    log: Log, kind: SplitKind, options: Options, old: Dataset | None, writer: Writer, progress: Progress
) -> Intake:
    has_times = "time" in log.columns
    if old and old.has_times and not has_times:
        raise ConfigError(f"{old.root} has times and {log.file} has none; name them with --time-column")
    kept = [name for role, name in TEXTS.items() if role in log.columns and (role != "text" or options.keep_text)]
    if old and set(kept) != set(old.texts):
        raise ConfigError(
            f"{old.root} keeps {' and '.join(old.texts) or 'no texts'}, this log would {' and '.join(kept) or 'none'}; "
            "continue it with the same texts, or prepare all logs anew"
        )
    intake = Intake(writer.spool("read", columns(with_split=kind == "given", with_texts=kept)))
    intake.texts = {name: writer.text_spool(name) for name in kept}
    intake.has_times = has_times and (old is None or old.has_times)
    if old:
        take_prepared(intake, old)
    take(intake, log, row_filters(options), progress.reading)
    _require_rows(intake.funnel, intake.spool.rows)
    return intake


def _order(intake: Intake, writer: Writer) -> Ordered:
    kinds = {name: kind.str for name, kind in intake.spool.columns.items()}
    ordered = sort(intake.spool, writer.spool("ordered", {**kinds, "keep": "?"}), intake.counts, len(intake.items))
    intake.spool.remove()
    return ordered


def _filter(ordered: Ordered, intake: Intake, options: Options) -> None:
    for name, act in log_filters(options, intake.users.texts()):
        act(ordered)
        left = ordered.tally()
        intake.funnel.append({"step": name, **left._asdict()})
        _require_rows(intake.funnel, left.rows)


def _require_rows(funnel: Funnel, rows: int) -> None:
    if not rows:
        at = next(index for index, entry in enumerate(funnel) if not entry["rows"])
        raise DatasetError(
            f"no interaction is left after '{funnel[at]['step']}' of {funnel[at - 1]['rows']:,}; relax that filter"
        )


def _write(
    ordered: Ordered, intake: Intake, kind: SplitKind, options: Options, old: Dataset | None, writer: Writer
) -> dict[str, Any]:
    kept = (old.users, old.items) if old else (0, 0)
    rows = emit.rows_of(ordered, intake.users.texts(), intake.items.texts(), kept)
    offsets = np.concatenate([[0, 0], np.cumsum(rows.lengths)])
    bounds, said = emit.bounds_of(ordered, rows, kind, options)
    if kind == "random":
        reorder(ordered, lambda user: split.random_parts(rows.user[user], rows.users, bounds, options.seed))
    interactions = emit.Interactions(writer, rows, intake.has_times)
    interactions.write(ordered, offsets, bounds)
    for name, spool in intake.texts.items():
        texts.write(writer, name, ordered, spool)
    writer.array("sequences/offsets", "<i8", offsets)
    digest = writer.array("split", "<i4", bounds)
    tables = {"user": id_table("user", rows.users), "item": id_table("item", rows.items)}
    described: dict[attributes.Kind, int] = {}
    files: dict[attributes.Kind, Path | None] = {"user": options.users, "item": options.items}
    for name, file in files.items():
        table = attributes.inherit(tables[name], pq.read_table(old.root / f"{name}s.parquet")) if old else tables[name]
        table = attributes.attach(table, name, file) if file else table
        described[name] = attributes.described(table)
        writer.table(f"{name}s", table)
    parts = dict(zip(split.NAMES, interactions.parts.tolist(), strict=True))
    return {
        "users": len(rows.users),
        "items": len(rows.items),
        "interactions": int(rows.lengths.sum()),
        "has_times": intake.has_times,
        "texts": list(intake.texts),
        "split": {**said, "hash": digest, "interactions": parts},
        "report": {**interactions.report(), "described_users": described["user"], "described_items": described["item"]},
    }
