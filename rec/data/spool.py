"""Columns in plain files beside the output: read and written in pieces, so that memory stays small."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK_ROWS = 1 << 20


class Spool:
    """Rows of a few fixed columns. Plain reads and writes rather than a memory map: mapped pages count as memory."""

    def __init__(self, folder: Path, columns: Mapping[str, str]):
        folder.mkdir(parents=True)
        self._folder = folder
        self.columns = {name: np.dtype(kind) for name, kind in columns.items()}
        self.rows = 0
        self._files = {name: (folder / name).open("w+b", buffering=0) for name in columns}

    def append(self, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Adds rows at the end; every column must be given."""
        for name in self.columns:
            self.write(name, self.rows, values[name])
        self.rows += len(next(iter(values.values())))

    def write(self, name: str, start: int, values: npt.NDArray[Any]) -> None:
        """Puts values at rows start, start + 1, ..."""
        file, kind = self._files[name], self.columns[name]
        file.seek(start * kind.itemsize)
        rest = np.ascontiguousarray(values, kind).view(np.uint8).reshape(-1).data
        while len(rest):
            rest = rest[file.write(rest) :]

    def read(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """(stop - start) values."""
        file, kind = self._files[name], self.columns[name]
        file.seek(start * kind.itemsize)
        return np.fromfile(file, kind, stop - start)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of pieces that together are all rows."""
        for start in range(0, self.rows, BLOCK_ROWS):
            yield start, min(start + BLOCK_ROWS, self.rows)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def remove(self) -> None:
        """Gives the room back."""
        self.close()
        shutil.rmtree(self._folder)


class TextSpool:
    """Texts in one file, in the order in which they come: a text is known by its first byte and its size."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("w+b", buffering=0)
        self._bytes = 0

    def append(self, data: npt.NDArray[np.uint8], sizes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Adds texts that lie one behind the other; (texts) int64, the first byte of each."""
        rest = np.ascontiguousarray(data).data
        while len(rest):
            rest = rest[self._file.write(rest) :]
        begin = self._bytes + np.cumsum(sizes, dtype=np.int64) - sizes
        self._bytes += len(data)
        return begin

    def read(self, begin: npt.NDArray[Any], sizes: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Texts from anywhere, one behind the other."""
        places = zip(sizes.tolist(), begin.tolist(), strict=True)
        whole = b"".join(os.pread(self._file.fileno(), size, place) for size, place in places)
        return np.frombuffer(whole, np.uint8)

    def close(self) -> None:
        self._file.close()
