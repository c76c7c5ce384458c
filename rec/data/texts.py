"""Texts of interactions, by stored position: written once, then read one by one out of a memory map.

texts/NAME.npy            uint8: all texts in stored order, UTF-8, one behind the other
texts/NAME_offsets.npy    int64 (interactions + 1): text i has the bytes offsets[i] .. offsets[i + 1]
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rec.data.dataset import IntArray
from rec.data.ordered import Ordered
from rec.data.spool import TextSpool
from rec.data.store import Writer

ROWS = 1 << 14
"""Texts that are in memory at one time."""


def packed(texts: pa.Array) -> tuple[npt.NDArray[np.uint8], IntArray]:
    """(bytes one behind the other, (texts) int64 sizes) of a column as it was found; what is missing is empty."""
    if isinstance(texts, pa.DictionaryArray):
        texts = texts.dictionary_decode()
    if not pa.types.is_binary(texts.type) and not pa.types.is_large_binary(texts.type):
        texts = texts.cast(pa.string())
    texts = texts.cast(pa.large_binary()).fill_null(b"")
    _, ends, data = texts.buffers()
    offsets = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    whole = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    return whole[offsets[0] : offsets[-1]], np.diff(offsets)


def columns(names: list[str]) -> dict[str, str]:
    """The columns of a spool that say where the texts of its rows lie."""
    return {f"{name}{part}": kind for name in names for part, kind in ((" begin", "<i8"), (" size", "<i4"))}


def rows(name: str, spool: TextSpool, data: npt.NDArray[np.uint8], sizes: IntArray) -> dict[str, IntArray]:
    """The values of these columns for texts that are added now."""
    return {f"{name} begin": spool.append(data, sizes), f"{name} size": sizes}


def write(writer: Writer, name: str, log: Ordered, spool: TextSpool) -> None:
    """The texts of all kept rows, in stored order."""
    total, interactions = 0, 0
    for _, (size,) in log.kept(f"{name} size"):
        total, interactions = total + int(size.sum(dtype=np.int64)), interactions + len(size)
    texts = writer.column(f"texts/{name}", "|u1", total)
    offsets = writer.column(f"texts/{name}_offsets", "<i8", interactions + 1)
    offsets.append(np.zeros(1, np.int64))
    end = 0
    for _, (begin, size) in log.kept(f"{name} begin", f"{name} size"):
        for start in range(0, len(size), ROWS):
            some = slice(start, start + ROWS)
            texts.append(spool.read(begin[some], size[some]))
            offsets.append(end + np.cumsum(size[some], dtype=np.int64))
            end += int(size[some].sum(dtype=np.int64))


class Texts:
    """The texts of a prepared dataset."""

    def __init__(self, folder: Path, name: str) -> None:
        self.offsets: IntArray = np.load(folder / f"{name}_offsets.npy", mmap_mode="r")
        whole = self.offsets[-1] > 0  # an empty file cannot be mapped
        self.bytes = np.load(folder / f"{name}.npy", mmap_mode="r") if whole else np.empty(0, np.uint8)

    def __getitem__(self, position: int) -> str:
        """The text of the interaction at a stored position; empty where it has none."""
        data = self.bytes[self.offsets[position] : self.offsets[position + 1]]
        return data.tobytes().decode(errors="replace")

    def sizes(self, positions: IntArray) -> IntArray:
        """(positions) int64 bytes of each."""
        return self.offsets[positions + 1] - self.offsets[positions]
