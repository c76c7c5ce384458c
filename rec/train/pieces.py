"""A checkpoint's tensors, whatever held them: flat intervals of named tensors.

Every strategy lays the same tensors out in its own way: whole on every rank, in rows, in stretches of one long vector.
Each of these is a set of intervals of flattened tensors, and that is what a rank writes and what a rank reads. So a
checkpoint knows nothing of the ranks and the strategy that wrote it, and any others can go on from it.

rank-00001-of-00004.safetensors
  `NAME`           elements [start, start + size) of the flattened parameter or buffer
  `NAME/exp_avg`   the same of a moment of the optimizer; `NAME/step` has one element
  metadata         {"pieces": {key: {"start", "shape" (of the whole tensor)}}, "random": state of its generators}
"""

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from rec.errors import CheckpointError
from rec.files import open_to_others
from rec.train.checksum import Facts, Summed

TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls them."""
CHUNK = 2**22
"""Elements of a tensor that are in memory at a time when it is put together in a file."""


class Piece(NamedTuple):
    """What one rank holds of one tensor: live memory, read to save and written to restore."""

    key: str
    shape: tuple[int, ...]
    """Of the whole tensor."""
    start: int
    """First element held, of the flattened whole."""
    values: Tensor
    """(size) a view, not a copy."""
    writes: tuple[int, int]
    """Which of the values, [begin, end), this rank writes: all of them, or its share of what others hold, too."""


class Part(NamedTuple):
    """What one rank writes: copies in CPU memory, which training does not touch any more."""

    tensors: dict[str, Tensor]
    places: dict[str, dict[str, Any]]
    """Key -> {"start", "shape"}."""


def copy(pieces: Iterable[Piece], before: Part | None = None) -> Part:
    """Copies off the device what this rank has to write. Training waits for this, and for nothing else of a save.

    Where there is one, it takes the memory of a part of before that is written: new memory takes longer than the copy.
    """
    part, memory = Part({}, {}), {} if before is None else before.tensors
    for piece in pieces:
        begin, end = piece.writes
        if begin == end and 0 not in piece.shape:  # a tensor without elements is told by its key alone
            continue
        mine = piece.values[begin:end].detach()
        room = memory.get(piece.key)
        if room is None or room.shape != mine.shape or room.dtype != mine.dtype:
            room = torch.empty_like(mine, device="cpu")
        part.tensors[piece.key] = room.copy_(mine)
        part.places[piece.key] = {"start": piece.start + begin, "shape": list(piece.shape)}
    return part


def file_of(rank: int, world: int) -> str:
    """Name of a rank's file in a checkpoint."""
    return f"rank-{rank:05d}-of-{world:05d}.safetensors"


def write(path: Path, part: Part, random: dict[str, Any]) -> Facts:
    """Writes a rank's part as a safetensors file, and brings it to the disk.

    Raises:
        OSError: if the disk refuses.
    """
    about = {"pieces": json.dumps(part.places), "random": json.dumps(random)}
    head, keys = _head({key: (one.dtype, tuple(one.shape)) for key, one in part.tensors.items()}, about)
    with Summed(path) as file:
        file.write(head)
        for key in keys:
            file.tensor(part.tensors[key])
        open_to_others(path)
        return file.done()


def _head(tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], about: dict[str, str]) -> tuple[bytes, list[str]]:
    """What a safetensors file of these types and shapes begins with, and in which order they follow."""
    header: dict[str, Any] = {"__metadata__": about}
    end = 0
    keys = sorted(tensors, key=lambda key: (-tensors[key][0].itemsize, key))  # so that each lies on its own size
    for key in keys:
        dtype, shape = tensors[key]
        start, end = end, end + dtype.itemsize * math.prod(shape)
        header[key] = {"dtype": TYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    return len(words).to_bytes(8, "little") + words, keys


@dataclass(frozen=True)
class _Stretch:
    """Elements [start, stop) of a tensor, and the file that has them."""

    start: int
    stop: int
    file: Any


class Parts:
    """A checkpoint's tensors, read by interval from whatever files hold them."""

    def __init__(self, folder: Path) -> None:
        """Reads where everything is.

        Raises:
            CheckpointError: if the files do not fit together.
        """
        self.folder = folder
        self.files = [safe_open(path, framework="pt") for path in sorted(folder.glob("rank-*.safetensors"))]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.stretches: dict[str, list[_Stretch]] = {}
        for file in self.files:
            for key, place in json.loads(file.metadata()["pieces"]).items():
                size, shape = file.get_slice(key).get_shape()[0], tuple(place["shape"])
                if self.shapes.setdefault(key, shape) != shape:
                    raise CheckpointError(f"in {folder}, {key} has the shapes {self.shapes[key]} and {shape}")
                self.stretches.setdefault(key, []).append(_Stretch(place["start"], place["start"] + size, file))
        for key, stretches in self.stretches.items():
            stretches.sort(key=lambda stretch: stretch.start)
            if any(one.stop > other.start for one, other in itertools.pairwise(stretches)):
                raise CheckpointError(f"{folder} holds elements of {key} more than once; they need not be the same")

    def random(self, rank: int, world: int) -> dict[str, Any] | None:
        """State of the generators of a rank; None where another number of ranks has written."""
        if len(self.files) != world:
            return None
        state: dict[str, Any] = json.loads(self.files[rank].metadata()["random"])
        return state

    def fill(self, piece: Piece) -> None:
        """Puts the saved values into a piece.

        Raises:
            CheckpointError: if the checkpoint has no such tensor, another shape of it, or only some of it.
        """
        if piece.key not in self.shapes:
            raise CheckpointError(f"{self.folder} has no {piece.key}; it cannot go on with this model and optimizer")
        if self.shapes[piece.key] != piece.shape:
            raise CheckpointError(
                f"{piece.key} has the shape {self.shapes[piece.key]} in {self.folder} but {piece.shape} in this run"
            )
        stop, filled = piece.start + len(piece.values), 0
        for stretch in self.stretches[piece.key]:
            first, last = max(piece.start, stretch.start), min(stop, stretch.stop)
            if first >= last:
                continue
            values = stretch.file.get_slice(piece.key)[first - stretch.start : last - stretch.start]
            piece.values[first - piece.start : last - piece.start].copy_(values)
            filled += last - first
        if filled != len(piece.values):
            raise CheckpointError(f"{self.folder} holds {filled} of {len(piece.values)} elements of {piece.key}")

    def export(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """Writes the model's own tensors, without those of the optimizer, as one safetensors file.

        Numbers with a point become `dtype`. No tensor is in memory whole.

        Raises:
            CheckpointError: if one of them is not whole.
            OSError: if the disk refuses.
        """
        types = {key: self._type(key) for key in self.shapes if "/" not in key}
        types = {key: dtype if one.is_floating_point else one for key, one in types.items()}
        head, keys = _head({key: (one, self.shapes[key]) for key, one in types.items()}, {})
        with Summed(path) as file:
            file.write(head)
            for key in keys:
                size = math.prod(self.shapes[key])
                for start in range(0, size, CHUNK):
                    values = torch.empty(min(CHUNK, size - start), dtype=self._type(key))
                    self.fill(Piece(key, self.shapes[key], start, values, (0, 0)))
                    file.tensor(values.to(types[key]))
        open_to_others(path)

    def _type(self, key: str) -> torch.dtype:
        dtype: torch.dtype = self.stretches[key][0].file.get_slice(key)[:0].dtype
        return dtype

    def whole(self, key: str) -> Tensor:
        """A tensor in one piece, in CPU memory."""
        shape = self.shapes[key]
        values = torch.empty(math.prod(shape), dtype=self._type(key))
        self.fill(Piece(key, shape, 0, values, (0, 0)))
        return values.view(shape)
