"""What a graph is made of, how it comes to lie on the disk, and what it costs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.data.dataset import TRAIN_STOP, Dataset
from rec.errors import DatasetError
from rec.files import lock
from rec.graph import build as module
from rec.graph.build import build, existing
from rec.graph.graph import Graph
from tests.eval.tiny import write
from tests.graph import oracle
from tests.graph.logs import ITEMS, all_for_training, graph_of
from tests.memory import peak_of
from tests.ranks import run_ranks


def arrays(graph: Graph) -> dict[str, np.ndarray]:
    return {str(file.relative_to(graph.folder)): np.load(file) for file in graph.folder.rglob("*.npy")}


def equal(one: Graph, other: Graph) -> bool:
    left, right = arrays(one), arrays(other)
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


BOUNDS = st.sampled_from(["leave one out", "held out", "in the middle"])


def bounds(kind: str, length: int) -> tuple[int, int, int, int, int]:
    """Splits in which the last, all, or some interactions of a user are not for training."""
    train = {"leave one out": max(length - 2, 0), "held out": 0, "in the middle": length // 2}[kind]
    start = {"leave one out": train, "held out": length // 2, "in the middle": (length + train) // 2}[kind]
    return train, start, (start + length) // 2, (start + length) // 2, length


USERS = st.lists(st.tuples(BOUNDS, st.lists(st.integers(1, ITEMS), max_size=15)), min_size=1, max_size=8)


@settings(max_examples=50)
@given(users=USERS, data=st.data())
def test_no_held_out_interaction_reaches_any_tensor(
    users: list[tuple[str, list[int]]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
):
    """All of validation and test is replaced by other items, or by none: the graph stays as it is, bit for bit."""
    folder = tmp_path_factory.mktemp("leak")
    cuts = [bounds(kind, len(row)) for kind, row in users]
    train = [row[: cut[0]] for (_, row), cut in zip(users, cuts, strict=True)]
    poison = [data.draw(st.lists(st.integers(1, ITEMS), min_size=len(row), max_size=len(row))) for _, row in users]
    poisoned = [row + bad[len(row) :] for row, bad in zip(train, poison, strict=True)]
    one = build(write(folder / "one", [row for _, row in users], ITEMS, cuts))
    other = build(write(folder / "other", poisoned, ITEMS, cuts))
    bare = build(all_for_training(folder / "bare", train))
    assert equal(one, other)
    assert equal(one, bare)
    assert one.fingerprint == other.fingerprint == bare.fingerprint
    assert oracle.listed(one.together) == oracle.top_together(train, ITEMS, 32)


def test_what_is_held_out_is_not_even_read(mixed: Dataset, tmp_path: Path):
    """Rows that no table has stand for what is held out: to read one would be an error, or a neighbour of that row."""
    shutil.copytree(mixed.root, tmp_path / "data")
    dataset = Dataset.open(tmp_path / "data")
    clean = arrays(build(dataset))
    rows = np.where(dataset.train_positions(), dataset.item_rows, 2**31 - 1).astype(np.int32)
    assert (rows != dataset.item_rows).any()
    found = arrays(build(replace(dataset, item_rows=rows)))
    assert all(np.array_equal(clean[name], found[name]) for name in clean)


def test_a_training_interaction_does_reach_it(tmp_path: Path):
    log = [[1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]
    one = build(write(tmp_path / "one", log, ITEMS))
    other = build(write(tmp_path / "other", [[1, 2, 7, 4, 5], log[1]], ITEMS))
    assert one.fingerprint != other.fingerprint


def test_users_and_items_without_training_have_empty_rows(tmp_path: Path):
    """User 2 has nothing, user 3 trains nothing; items 4 and 5 are only tested, 6 nobody has."""
    cuts = [(2, 2, 3, 3, 4), (0, 0, 0, 0, 0), (0, 0, 1, 1, 2), (1, 1, 1, 1, 1)]
    graph = build(write(tmp_path / "data", [[1, 2, 4, 5], [], [1, 2], [3]], 6, cuts))
    assert np.diff(graph.user_offsets).tolist() == [0, 2, 0, 0, 1]
    assert graph.degrees.tolist() == [0, 1, 1, 1, 0, 0, 0]
    assert oracle.listed(graph.together) == [[], [2], [1], [], [], [], []]
    assert graph.manifest["counts"]["isolated_users"] == 2
    assert graph.manifest["counts"]["isolated_items"] == 3


def test_a_log_that_trains_nothing_has_a_graph_without_edges(tmp_path: Path):
    graph = build(write(tmp_path / "data", [[1, 2], [3]], 3, [(0, 0, 1, 1, 2), (0, 0, 0, 0, 1)]))
    assert len(graph.user_items) == len(graph.item_users) == 0
    assert not graph.together.buckets([1, 2], [2, 3]).any()
    assert not graph.following.bounds.any()


def test_an_item_that_everybody_has_takes_no_place_from_better_neighbours():
    """400 users have the hub and two items of a pair of their own: the partner is nearer than the hub."""
    hub, pairs = 401 * 2, 400
    with graph_of([[hub, 2 * u + 1, 2 * u + 2] for u in range(pairs)], items=hub, top=1) as graph:
        rows = oracle.listed(graph.together)
        assert [rows[i] for i in range(1, 2 * pairs + 1, 2)] == [[i + 1] for i in range(1, 2 * pairs + 1, 2)]
        assert rows[hub] == [1]  # 800 equal ones: the lowest row
        assert graph.together.weights(hub, [1, 2]) == pytest.approx([1 / 20, 0])
        assert graph.degrees[hub] == pairs


def test_memory_is_that_of_the_lists_and_not_of_pairs(tmp_path: Path):
    """60 users of 1,000 distinct items among 60,000, one of which is a hub: 6 x 10^7 pairs, which take 480 MB as sparse
    cells, and a byte for each pair of items would take 3.6 GB."""
    random = np.random.default_rng(2)
    items, users = 60_000, 60
    log = [[1, *(random.permutation(items - 1)[:999] + 2).tolist()] for _ in range(users)]
    dataset = all_for_training(tmp_path / "data", log, items)
    [peak] = run_ranks(lambda ranks: peak_of(lambda: build(dataset)), 1)
    assert peak < 250e6
    graph = Graph.open(dataset.root / "graph")
    assert graph.manifest["counts"]["together"] == 32 * np.count_nonzero(graph.degrees)


def test_a_graph_belongs_to_its_dataset(tmp_path: Path):
    one = write(tmp_path / "one", [[1, 2, 3, 4]], ITEMS)
    other = write(tmp_path / "other", [[1, 2, 3, 5]], ITEMS)
    with pytest.raises(DatasetError, match=f"{one.root} has no graph; make it with `kindling graph {one.root}`"):
        Graph.open(one.root / "graph", one.fingerprint)
    graph = build(one)
    assert Graph.open(one.root / "graph", one.fingerprint).fingerprint == graph.fingerprint
    graph.copy(other.root / "graph")
    with pytest.raises(DatasetError, match="is the graph of another dataset"):
        Graph.open(other.root / "graph", other.fingerprint)
    assert existing(other, 32) is None
    assert build(other).manifest["dataset"] == other.fingerprint
    assert existing(other, 32)


def test_a_graph_of_another_schema_is_refused(tmp_path: Path):
    graph = build(write(tmp_path / "data", [[1, 2, 3, 4]], ITEMS))
    (graph.folder / "graph.json").write_text(json.dumps({**graph.manifest, "schema": 0}))
    with pytest.raises(DatasetError, match=r"has schema 0, .* make it with `kindling graph .*` again"):
        Graph.open(graph.folder)


def test_a_copy_needs_no_dataset(tmp_path: Path):
    dataset = write(tmp_path / "data", [[1, 2, 3, 4], [2, 1, 3, 4]], ITEMS)
    graph = build(dataset)
    graph.copy(tmp_path / "model" / "graph")
    before = arrays(graph)
    shutil.rmtree(dataset.root)
    copied = Graph.open(tmp_path / "model" / "graph")
    assert copied.together.strengths(1, 2) == 2
    assert all(np.array_equal(values, before[name]) for name, values in arrays(copied).items())


def test_arrays_are_mapped_and_cannot_be_written(tmp_path: Path):
    graph = build(write(tmp_path / "data", [[1, 2, 3, 4]], ITEMS))
    for values in (graph.user_items, graph.item_offsets, graph.together.item_IK, graph.following.weight_IK):
        assert isinstance(values, np.memmap)
        assert not values.flags.writeable


def test_a_graph_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset = write(tmp_path / "data", [[1, 2, 3, 4]], ITEMS)
    before = build(dataset, top=2)
    names = sorted(path.name for path in dataset.root.iterdir())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_lists", fail)
        with pytest.raises(OSError, match="No space left"):
            build(dataset, top=3)
    assert sorted(path.name for path in dataset.root.iterdir()) == names
    assert Graph.open(dataset.root / "graph").fingerprint == before.fingerprint
    after = build(dataset, top=3)
    assert after.together.item_IK.shape == (ITEMS + 1, 3)
    assert sorted(path.name for path in dataset.root.iterdir()) == names
    assert before.together.item_IK.shape == (ITEMS + 1, 2)  # whoever had it open goes on reading it
    assert before.together.item_IK[1, 0] == after.together.item_IK[1, 0]


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path: Path):
    dataset = write(tmp_path / "data", [[1, 2, 3, 4]], ITEMS)
    (dataset.root / "graph.tmp/together").mkdir(parents=True)
    (dataset.root / "graph.tmp/together/item.npy").write_bytes(b"half")
    (dataset.root / "graph.lock").touch()
    build(dataset)
    assert not list(dataset.root.glob("graph.*"))


def test_two_processes_do_not_make_one_graph(tmp_path: Path):
    dataset = write(tmp_path / "data", [[1, 2, 3, 4]], ITEMS)
    held = lock(dataset.root / "graph.lock")
    assert held
    with pytest.raises(DatasetError, match="another process is making"):
        build(dataset)
    held.close()


def test_the_training_stretch_ends_where_the_split_says(mixed: Dataset, tmp_path: Path):
    shutil.copytree(mixed.root, tmp_path / "data")
    graph = build(Dataset.open(tmp_path / "data"))
    log = [mixed.train_items(user).tolist() for user in range(1, mixed.users + 1)]
    assert sum(map(len, log)) == mixed.bounds[:, TRAIN_STOP].sum()
    assert oracle.listed(graph.together) == oracle.top_together(log, mixed.items, 32)
    assert oracle.listed(graph.following) == oracle.top_following(log, mixed.items, 32)
