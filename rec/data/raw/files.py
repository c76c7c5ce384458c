"""Opening a log, plain or gzip, in one pass and bounded memory, with the errors that bytes on a disk can have."""

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rec.errors import DatasetError

BLOCK = 1 << 24
"""Bytes read at a time; a chunk of a log is what such a block holds."""


class Source(io.RawIOBase):
    """A readable stream of the plain bytes of one file.

    Whether it is gzip is seen from its first bytes, never from its name. `replace` exchanges a separator of two
    equal bytes for one byte while reading, for parsers that know separators of one byte only.
    """

    def __init__(self, file: Path, replace: tuple[bytes, bytes] | None = None):
        super().__init__()
        self.file = file
        self.replace = replace
        try:
            self._disk = file.open("rb", buffering=0)
            magic = self._disk.read(2)
            self._disk.seek(0)
        except OSError as error:
            raise DatasetError(f"cannot read {file}: {error.strerror}; give the path of a log") from None
        self.size = os.fstat(self._disk.fileno()).st_size
        if not magic:
            self._disk.close()
            raise DatasetError(f"{file} is empty; give a log with at least one interaction")
        self._bytes: IO[bytes] = gzip.GzipFile(fileobj=self._disk) if magic == b"\x1f\x8b" else self._disk  # type: ignore[assignment]
        self._held = b""

    @property
    def done(self) -> int:
        """Bytes of the file on disk that were read so far, out of `size`."""
        return 0 if self._disk.closed else self._disk.tell()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._plain(size)
        if not self.replace:
            return data
        two, one = self.replace
        whole = self._held + data
        # an odd run of separators at the end of a block waits for its other half
        half = (len(whole) - len(whole.rstrip(two[:1]))) % 2 if data and size >= 0 else 0
        self._held = whole[len(whole) - half :]
        ready = whole[: len(whole) - half].replace(two, one)
        return ready if ready or not data else self.read(size)

    def readall(self) -> bytes:
        return self.read(-1)

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._bytes.close()
            self._disk.close()
        super().close()

    def _plain(self, size: int) -> bytes:
        try:
            return self._bytes.read(size)
        except EOFError:
            problem = "is a truncated gzip file"
        except (gzip.BadGzipFile, zlib.error):
            problem = "is a damaged gzip file"
        except IsADirectoryError:
            problem = "is a folder"
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        raise DatasetError(f"{self.file} {problem}; fetch or pack it again")


def blocks(source: Source) -> Iterator[tuple[bytes, int]]:
    """Whole lines of the source, about `BLOCK` bytes at a time, each with the number of its first line (from 1)."""
    line, held = 1, [b""]
    while data := source.read(BLOCK):
        cut = data.rfind(b"\n") + 1
        if not cut:
            held.append(data)
            continue
        block = b"".join([*held, data[:cut]])
        yield block, line
        line += block.count(b"\n")
        held = [data[cut:]]
    if rest := b"".join(held):
        yield rest, line


def first_line(file: Path) -> str:
    """The first line of a text file, without its end."""
    data = b""
    with Source(file) as source:
        while b"\n" not in data and (more := source.read(1 << 16)):
            data += more
    try:
        return data.split(b"\n")[0].rstrip(b"\r").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise not_utf8(file, 1) from None


def not_utf8(file: Path, line: int) -> DatasetError:
    return DatasetError(f"{file} line {line} is not UTF-8 text; convert it, for example with `iconv -t utf-8`")
