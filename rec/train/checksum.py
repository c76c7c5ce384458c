"""What a file must be to be whole: its size and its checksum.

The checksum is XXH3, 128 bits: it finds what disks and kills do to files, as surely as SHA-256, at the speed of memory.
Checkpoints of before have SHA-256, and are read with it.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import xxhash
from torch import Tensor, uint8

from rec.files import sync

CHUNK = 2**20
"""Bytes that are read or written, and summed while they are near."""


class Sum(Protocol):
    """A checksum under way."""

    def update(self, data: Any, /) -> None: ...
    def hexdigest(self) -> str: ...


KINDS: Mapping[str, Callable[[], Sum]] = {"xxh3_128": xxhash.xxh3_128, "sha256": hashlib.sha256}
"""By name; files are written with the first."""


class Facts(NamedTuple):
    """Of a whole file."""

    size: int
    checksum: str
    kind: str = next(iter(KINDS))

    @classmethod
    def of(cls, path: Path, kind: str = next(iter(KINDS))) -> Self:
        """What the file is now."""
        total, chunk = KINDS[kind](), bytearray(CHUNK)
        with path.open("rb", buffering=0) as file:
            while length := file.readinto(chunk):
                total.update(memoryview(chunk)[:length])
        return cls(path.stat().st_size, total.hexdigest(), kind)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """From what `written` gave, of this version or an older one. Raises ValueError for anything else."""
        kinds = [kind for kind in KINDS if kind in values]
        if len(kinds) != 1:
            raise ValueError("there is no checksum")
        return cls(values["size"], values[kinds[0]], kinds[0])

    def written(self) -> dict[str, int | str]:
        return {"size": self.size, self.kind: self.checksum}


def facts_of(path: Path) -> Facts:
    """Brings a file to the disk, and says what it is there."""
    sync(path)
    return Facts.of(path)


class Summed:
    """A new file whose checksum is taken of what is written, not of what can be read of it."""

    def __init__(self, path: Path) -> None:
        self.size, self.total = 0, KINDS[next(iter(KINDS))]()
        self.file = path.open("wb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, data: bytes | memoryview) -> None:
        """Raises OSError if the disk refuses."""
        rest = memoryview(data).cast("B")
        while rest:
            length = self.file.write(rest[:CHUNK])
            self.total.update(rest[:length])
            self.size += length
            rest = rest[length:]

    def tensor(self, values: Tensor) -> None:
        """The bytes of a flat tensor of the CPU."""
        if values.numel():
            self.write(values.contiguous().view(uint8).numpy().data)

    def done(self) -> Facts:
        """Brings it to the disk."""
        os.fsync(self.file.fileno())
        return Facts(self.size, self.total.hexdigest())
