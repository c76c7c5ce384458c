"""`kindling prepare SOURCE --out DATASET`: any known log format -> one prepared dataset."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from launch.command import DONE, command

GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "reading": {
        "format": {"help": "format of the log, where it is not evident (docs/data.md lists them)", "metavar": "NAME"},
        "user-column": {"help": "column with the user's id", "metavar": "NAME"},
        "item-column": {"help": "column with the item's id", "metavar": "NAME"},
        "time-column": {"help": "column with the time", "metavar": "NAME"},
        "rating-column": {"help": "column with the rating", "metavar": "NAME"},
        "text-column": {"help": "column with the review, for --min-words and --keep-text", "metavar": "NAME"},
        "reason-column": {"help": "column with the reason for an interaction, a text to keep", "metavar": "NAME"},
        "split-column": {"help": "column with train, valid or test: a split that is given", "metavar": "NAME"},
        "time-unit": {"choices": ["s", "ms"], "help": "unit of numeric times, where their size does not tell"},
        "keep-text": {"action": "store_true", "help": "keep reviews, for recommenders that read texts"},
        "on-bad-line": {"choices": ["error", "skip"], "help": "stop at a line that cannot be used (default), or go on"},
        "items": {"metavar": "FILE", "help": "attributes and texts of items (CSV, JSON, Parquet, RecBole)"},
        "users": {"metavar": "FILE", "help": "attributes of users"},
    },
    "filters, applied in this order": {
        "min-rating": {"type": float, "metavar": "R", "help": "drop lower ratings"},
        "since": {"metavar": "TIME", "help": "first moment kept: 2013-01-01, or a timestamp"},
        "until": {"metavar": "TIME", "help": "first moment no longer kept"},
        "min-words": {"type": int, "metavar": "N", "help": "drop reviews with fewer words"},
        "duplicates": {"choices": ["all", "first", "last"], "help": "which of the same user and item to keep"},
        "core-users": {"type": int, "metavar": "K", "help": "drop users with fewer interactions"},
        "core-items": {"type": int, "metavar": "K", "help": "drop items with fewer; both: to a fixed point"},
        "last": {"type": int, "metavar": "N", "help": "keep the last N interactions of a user"},
        "sample": {"type": int, "metavar": "U", "help": "keep U users, drawn by --seed"},
        "seed": {"type": int, "metavar": "S", "help": "of the sample, and of random and held-out splits (default 0)"},
    },
    "split": {
        "split": {"choices": ["leave-one-out", "ratio", "random", "time", "held-out", "given"],
                  "help": "default leave-one-out"},
        "split-at": {"metavar": "A,B", "help": "where valid and test begin: fractions (default 0.8,0.9), or two "
                     "moments for --split time"},
    },
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Reads any known log format and writes one prepared dataset.")
    made.add_argument("source", metavar="SOURCE", help="log file or folder, or the name of a Hugging Face data set")
    made.add_argument("--out", type=Path, required=True, metavar="DATASET", help="folder to write; must not exist")
    made.add_argument("--append", type=Path, metavar="DATASET", help="prepared dataset to continue; it is not changed")
    made.add_argument("--recipe", type=Path, metavar="FILE", help="YAML file with options; the command line wins")
    made.add_argument("--json", type=Path, metavar="FILE", help="write counts and report to this file, too")
    for title, options in GROUPS.items():
        group = made.add_argument_group(title)
        for name, rules in options.items():
            group.add_argument(f"--{name}", default=argparse.SUPPRESS, **rules)
    return made


@command
def main() -> int:
    arguments = vars(parser().parse_args())
    source, out, append, recipe, to = (arguments.pop(name) for name in ("source", "out", "append", "recipe", "json"))
    from rec.config.load import build
    from rec.data.options import Options
    from rec.data.prepare import prepare
    from rec.data.recipe import read
    from rec.errors import DatasetError

    options = build(Options, {**(read(recipe) if recipe else {}), **arguments})
    manifest = prepare(source, out, options, append)
    show(manifest)
    print(f"wrote {out}")
    if to:
        try:
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
        except OSError as error:
            raise DatasetError(f"cannot write {to}: {error.strerror}; name another file with --json") from None
    return DONE


def show(manifest: dict[str, Any]) -> None:
    """The funnel, what is left, and what a reader of results on this dataset should know about it."""
    report, split = manifest["report"], manifest["split"]
    columns = ", ".join(f"{role}={name}" for role, name in manifest["columns"].items())
    print(f"{manifest['source']} as {manifest['format']}{f' ({columns})' if columns else ''}")
    print(f"{'step':<28} {'rows':>12} {'users':>10} {'items':>10}")
    for entry in report["funnel"]:
        print(f"{entry['step']:<28} {entry['rows']:>12,} {entry['users']:>10,} {entry['items']:>10,}")
    parts = ", ".join(f"{name} {count:,}" for name, count in split["interactions"].items() if count)
    print(f"split {split['name']}:{split['hash'][:8]}: {parts}")
    if report["skipped_lines"]:
        print(f"skipped lines: {report['skipped_lines']:,}")
    tied = report["tied_timestamps"]
    print(f"tied timestamps: {f'{tied:.1%}' if tied is not None else 'no times'}; "
          f"repeated pairs: {report['repeated_pairs']:.1%}")  # fmt: skip
    if report["users_not_in_time_order"]:
        print(f"users whose split is not in order of time: {report['users_not_in_time_order']:.1%}")
    for kind in ("users", "items"):
        if report[f"described_{kind}"]:
            print(f"{kind} with attributes: {report[f'described_{kind}']:,} of {manifest[kind]:,}")
    print(f"fingerprint {manifest['fingerprint'][:16]}")


if __name__ == "__main__":
    sys.exit(main())
