"""Flat intervals of named tensors: any ranks write them, any others read them."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from rec.errors import CheckpointError
from rec.ranks import Ranks, share
from rec.train.checksum import Facts
from rec.train.pieces import TYPES, Part, Parts, Piece, copy, file_of, write
from rec.train.strategies.engine import replicated

Draw = Callable[[st.SearchStrategy[Any]], Any]
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.uint8])
WORLDS = st.integers(1, 5)


def tensor_of(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.float32) * 3 % 7
    return numbers.to(dtype).view(shape)


@st.composite
def cuts(draw: Draw, size: int, world: int) -> list[tuple[int, int]]:
    """[start, stop) of each rank, in rank order, some of them empty: any way to deal `size` elements."""
    inner = sorted(draw(st.lists(st.integers(0, size), min_size=world - 1, max_size=world - 1)))
    return list(zip([0, *inner], [*inner, size], strict=True))


def save(folder: Path, parts: list[list[Piece]]) -> None:
    for rank, pieces in enumerate(parts):
        write(folder / file_of(rank, len(parts)), copy(pieces), {"rank": rank})


def stretch(key: str, tensor: Tensor, start: int, stop: int) -> Piece:
    return Piece(key, tuple(tensor.shape), start, tensor.view(-1)[start:stop], (0, stop - start))


@given(size=st.integers(0, 200), world=st.integers(1, 20))
def test_shares_tile_every_size_in_rank_order_as_evenly_as_can_be(size: int, world: int):
    shares = [share(size, rank, world) for rank in range(world)]
    assert [element for start, stop in shares for element in range(start, stop)] == list(range(size))
    assert max(stop - start for start, stop in shares) == -(-size // world)


@settings(max_examples=60)
@given(
    data=st.data(), shapes=st.lists(st.tuples(SHAPES, DTYPES), min_size=1, max_size=4), worlds=st.tuples(WORLDS, WORLDS)
)
def test_what_any_ranks_have_written_any_others_read_whatever_interval_each_holds(
    data: st.DataObject, shapes: list[tuple[tuple[int, ...], torch.dtype]], worlds: tuple[int, int]
):
    tensors = {f"t{place}": tensor_of(shape, dtype) for place, (shape, dtype) in enumerate(shapes)}
    writers, readers = worlds
    parts: list[list[Piece]] = [[] for _ in range(writers)]
    for key, tensor in tensors.items():
        if data.draw(st.booleans(), label=f"{key} is on every rank"):
            for rank in range(writers):
                parts[rank].append(replicated(key, tensor, Ranks(rank, writers)))
        else:
            for rank, (start, stop) in enumerate(data.draw(cuts(tensor.numel(), writers))):
                parts[rank].append(stretch(key, tensor, start, stop))
    with TemporaryDirectory() as folder:
        save(Path(folder), parts)
        saved = Parts(Path(folder))
        for key, tensor in tensors.items():
            blank = torch.zeros_like(tensor)
            for start, stop in data.draw(cuts(tensor.numel(), readers)):
                saved.fill(stretch(key, blank, start, stop))
            assert torch.equal(blank, tensor)
            assert saved.whole(key).dtype == tensor.dtype
            assert torch.equal(saved.whole(key), tensor)
        assert saved.random(0, writers) == {"rank": 0}
        assert saved.random(0, writers + 1) is None


def test_a_copy_is_no_view_of_what_training_changes():
    tensor = torch.ones(4)
    part = copy([Piece("t", (4,), 0, tensor, (1, 3))])
    tensor.zero_()
    assert part.tensors["t"].tolist() == [1, 1]
    assert part.places["t"] == {"start": 1, "shape": [4]}


def test_numbers_of_another_type_are_converted_as_they_are_read(tmp_path: Path):
    save(tmp_path, [[stretch("t", torch.tensor([1.5, 2.5], dtype=torch.bfloat16), 0, 2)]])
    blank = torch.zeros(2)
    Parts(tmp_path).fill(stretch("t", blank, 0, 2))
    assert blank.tolist() == [1.5, 2.5]


class TestWhatIsWrong:
    @pytest.fixture
    def parts(self, tmp_path: Path) -> Parts:
        """Elements 0 to 3 and 5 to 7 of ten."""
        tensor = torch.arange(10.0)
        save(tmp_path, [[stretch("t", tensor, 0, 4)], [stretch("t", tensor, 5, 8)]])
        return Parts(tmp_path)

    def test_a_tensor_that_is_not_there_is_named(self, parts: Parts):
        with pytest.raises(CheckpointError, match="has no head/exp_avg; it cannot go on with this model and optimizer"):
            parts.fill(Piece("head/exp_avg", (10,), 0, torch.zeros(10), (0, 10)))

    def test_another_shape_is_shown_even_of_as_many_elements(self, parts: Parts):
        with pytest.raises(CheckpointError, match=r"t has the shape \(10,\) in .* but \(2, 5\) in this run"):
            parts.fill(Piece("t", (2, 5), 0, torch.zeros(10), (0, 10)))

    @pytest.mark.parametrize(("start", "stop", "there"), [(0, 10, 7), (4, 5, 0), (7, 9, 1), (3, 6, 2)])
    def test_elements_that_are_missing_are_counted(self, parts: Parts, start: int, stop: int, there: int):
        with pytest.raises(CheckpointError, match=rf"holds {there} of {stop - start} elements of t"):
            parts.fill(Piece("t", (10,), start, torch.zeros(stop - start), (0, 0)))

    def test_what_is_there_is_read(self, parts: Parts):
        blank = torch.zeros(3)
        parts.fill(Piece("t", (10,), 5, blank, (0, 0)))
        assert blank.tolist() == [5, 6, 7]

    def test_elements_that_two_files_hold_cannot_stand_in_for_those_that_none_holds(self, tmp_path: Path):
        tensor = torch.arange(10.0)
        save(tmp_path, [[stretch("t", tensor, 0, 5)], [stretch("t", tensor, 0, 5)]])
        with pytest.raises(CheckpointError, match="more than once"):
            Parts(tmp_path)

    def test_two_files_with_another_shape_of_one_tensor_are_noticed(self, tmp_path: Path):
        save(tmp_path, [[stretch("t", torch.zeros(10), 0, 5)], [stretch("t", torch.zeros(2, 5), 5, 10)]])
        with pytest.raises(CheckpointError, match=r"t has the shapes \(10,\) and \(2, 5\)"):
            Parts(tmp_path)

    def test_a_failed_fill_says_so_before_anything_else_can_go_on(self, parts: Parts):
        blank = torch.full((10,), -1.0)
        with suppress(CheckpointError):
            parts.fill(Piece("t", (10,), 0, blank, (0, 0)))
        assert blank[4] == -1  # nothing was made up for what is missing


def test_a_disk_that_refuses_is_an_error_of_the_system(tmp_path: Path):
    with pytest.raises(OSError, match="No such file"):
        write(tmp_path / "nowhere" / "f", Part({"t": torch.zeros(1)}, {"t": {"start": 0, "shape": [1]}}), {})


def test_what_was_summed_while_it_was_written_is_what_is_on_the_disk(tmp_path: Path):
    tensors = {str(dtype): tensor_of((400_001,), dtype) for dtype in TYPES} | {"none": torch.zeros(0)}
    places = {key: {"start": 0, "shape": list(tensor.shape)} for key, tensor in tensors.items()}
    path = tmp_path / file_of(0, 1)
    facts = write(path, Part(tensors, places), {"seed": 1})
    assert facts == Facts.of(path)
    assert facts.checksum == xxhash.xxh3_128(path.read_bytes()).hexdigest()
    found = load_file(path)  # in the library's own words
    assert found.keys() == tensors.keys()
    assert all(found[key].dtype == tensor.dtype and torch.equal(found[key], tensor) for key, tensor in tensors.items())


def test_the_memory_of_a_part_of_before_is_used_again_where_it_fits():
    def pieces(values: list[float], more: int) -> list[Piece]:
        return [
            Piece("same", (2,), 0, torch.tensor(values), (0, 2)),
            Piece("other", (more,), 0, torch.full((more,), float(more)), (0, more)),
        ]

    first = copy(pieces([1.0, 2.0], 3))
    memory = {key: tensor.data_ptr() for key, tensor in first.tensors.items()}
    second = copy(pieces([3.0, 4.0], 4), first)
    assert second.tensors["same"].tolist() == [3, 4]
    assert second.tensors["same"].data_ptr() == memory["same"]
    assert second.tensors["other"].tolist() == [4, 4, 4, 4]
