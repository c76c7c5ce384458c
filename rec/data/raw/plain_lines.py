"""Text logs without times: a user and its items on a line in order, or a user and one item on a line."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from rec.data.raw.chunk import BadLines, Raw
from rec.data.raw.files import Source, blocks, not_utf8


def read(file: Path, pairs: bool, bad: BadLines) -> Iterator[Raw]:
    """Users and items, block by block; with `pairs`, every line holds exactly two fields."""
    with Source(file) as source:
        for block, first in blocks(source):
            users: list[str] = []
            items: list[str] = []
            lines: list[int] = []
            for number, line in enumerate(block.split(b"\n"), first):
                fields = _fields(file, number, line, bad)
                if not fields:
                    continue
                if len(fields) < 2 or (pairs and len(fields) != 2):
                    wanted = "a user and one item" if pairs else "a user and at least one item"
                    bad.found(lambda at=number: f"{file} line {at}", f"not {wanted}")  # type: ignore[misc]
                    continue
                users += fields[:1] * (len(fields) - 1)
                items += fields[1:]
                lines += [number] * (len(fields) - 1)
            columns = {"user": pa.array(users, pa.string()), "item": pa.array(items, pa.string())}
            done = source.done / source.size
            yield Raw(columns, lambda row, at=lines: f"{file} line {at[row]}", done)  # type: ignore[arg-type,misc]


def _fields(file: Path, number: int, line: bytes, bad: BadLines) -> list[str]:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").split()
    except UnicodeDecodeError:
        if not bad.skip:
            raise not_utf8(file, number) from None
        bad.skipped += 1
        return []
