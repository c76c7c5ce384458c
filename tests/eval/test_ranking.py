"""Ranks and lists against twins that sort."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rec.eval import ranking
from rec.eval.best import MOST, Best
from rec.eval.metrics import NEVER
from rec.eval.ranking import Pool, read
from rec.models import scores as forms
from rec.models.scores import Added, Product, Table


@pytest.fixture(autouse=True, params=[8, 2**20], ids=["blocks of a few columns", "one block"])
def a_width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "CACHEFUL", request.param)


FIXTURES = [HealthCheck.function_scoped_fixture]
"""They are the same for all examples."""


def ranks(scores: torch.Tensor, asked: Pool) -> torch.Tensor:
    return read(Table(scores), asked).ranks_BM


def best(scores: torch.Tensor, seen: torch.Tensor, k: int) -> torch.Tensor:
    return ranking.best(Table(scores), seen, k, "row {}".format)[0]


def require_finite(scores: torch.Tensor) -> None:
    nothing = torch.zeros(len(scores), 0, dtype=torch.int64)
    read(Table(scores), Pool(nothing, nothing.bool(), nothing)).require_finite(scores.shape[1] - 1, "row {}".format)


def pad(rows: list[list[int]]) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.int64).view(len(rows), width)


def pool(targets: list[list[int]], seen: list[list[int]], **more: object) -> Pool:
    reachable = pad([[int(item not in out) for item in row] for row, out in zip(targets, seen, strict=True)]) > 0
    return Pool(pad(targets), reachable, pad(seen), **more)  # type: ignore[arg-type]


def slow_ranks(scores: list[float], targets: list[int], seen: list[int], candidates: list[int], ties: int) -> list[int]:
    """Sorts the candidates, with targets last among equals (ties = 1) or first (ties = -1)."""
    among = [item for item in dict.fromkeys([*candidates, *targets]) if item not in seen]
    order = sorted(among, key=lambda item: (-scores[item], ties * (item in targets)))
    found = sorted(order.index(item) + 1 for item in targets if item in among)
    return found + [NEVER] * (len(targets) - len(found))


@st.composite
def blocks(draw: st.DrawFn) -> tuple[list[list[float]], list[list[int]], list[list[int]]]:
    items, queries = draw(st.integers(4, 12)), draw(st.integers(1, 5))
    rows = st.lists(st.integers(0, 3).map(float), min_size=items + 1, max_size=items + 1)
    some = st.lists(st.integers(1, items), max_size=4, unique=True)
    scores = draw(st.lists(rows, min_size=queries, max_size=queries))
    targets = draw(st.lists(some.filter(bool), min_size=queries, max_size=queries))
    return scores, targets, draw(st.lists(some, min_size=queries, max_size=queries))


@given(blocks())
@settings(max_examples=200, suppress_health_check=FIXTURES)
def test_full_ranks_are_those_of_a_sort_with_targets_last_among_equals(block: tuple) -> None:
    scores, targets, seen = block
    found = ranks(torch.tensor(scores), pool(targets, seen)).tolist()
    everything = list(range(1, len(scores[0])))
    for row in range(len(scores)):
        expected = slow_ranks(scores[row], targets[row], seen[row], everything, ties=1)
        assert found[row][: len(targets[row])] == expected


@given(blocks(), st.booleans(), st.data())
@settings(suppress_health_check=FIXTURES)
def test_sampled_ranks_are_those_of_a_sort(block: tuple, favour: bool, data: st.DataObject) -> None:
    scores, targets, seen = block
    others = [
        sorted(set(range(1, len(scores[0]))) - set(row) - set(out)) for row, out in zip(targets, seen, strict=True)
    ]
    wanted = data.draw(st.integers(0, min(map(len, others))))
    drawn = [row[:wanted] for row in others]
    negatives = torch.tensor(drawn, dtype=torch.int64).view(len(scores), wanted)
    asked = pool(targets, seen, negatives_BN=negatives, favour_targets=favour)
    found = ranks(torch.tensor(scores), asked).tolist()
    for row in range(len(scores)):
        expected = slow_ranks(scores[row], targets[row], seen[row], drawn[row], ties=-1 if favour else 1)
        assert found[row][: len(targets[row])] == expected


@pytest.mark.parametrize("padding", [-9.0, 0.0, 9.0, float("nan"), float("inf")])
def test_the_score_of_padding_means_nothing(padding: float) -> None:
    scores = torch.tensor([[padding, 3.0, 2.0, 1.0], [padding, 1.0, 1.0, 1.0]])
    require_finite(scores)
    found = ranks(scores, pool([[2], [1, 3]], [[1], []]))
    assert found.tolist() == [[1, NEVER], [2, 3]]
    assert best(scores, pad([[1], []]), 2).tolist() == [[2, 3], [1, 2]]


def test_scores_are_not_written_to() -> None:
    scores = torch.rand(4, 9)
    before = scores.clone()
    ranks(scores, pool([[1], [2, 3], [4], [5]], [[2], [], [1, 8], [7]]))
    best(scores, pad([[2], [], [1, 8], [7]]), 3)
    assert torch.equal(scores, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_name_the_user(value: float) -> None:
    scores = torch.zeros(3, 6)
    scores[1, 2:4] = value
    with pytest.raises(FloatingPointError, match="2 of the 5 scores of user 'row 1' are not finite"):
        require_finite(scores)
    with pytest.raises(FloatingPointError, match="2 of the 5 scores of user 'row 1' are not finite"):
        best(scores, pad([[], [], []]), 2)  # or NaN would leave the user's list empty, and nobody would know why


@pytest.mark.parametrize("items", [32, 33, 64, 65])
def test_scores_may_lie_in_memory_item_by_item(items: int) -> None:
    scores = torch.randn(items, 3, generator=torch.Generator().manual_seed(items)).t()
    seen = pad([[1], [2, 3], []])
    assert best(scores, seen, 4).tolist() == best(scores.contiguous(), seen, 4).tolist()


def test_large_finite_scores_pass_though_their_sum_is_infinite() -> None:
    require_finite(torch.full((2, 40), 3e38))
    require_finite(torch.full((2, 40), 6e4, dtype=torch.float16))


@given(blocks(), st.integers(1, 15))
@settings(max_examples=200, suppress_health_check=FIXTURES)
def test_the_best_are_those_of_a_stable_sort(block: tuple, k: int) -> None:
    scores, _, seen = block
    found = best(torch.tensor(scores), pad(seen), k).tolist()
    for row, out, items in zip(scores, seen, found, strict=True):
        among = sorted(set(range(1, len(row))) - set(out), key=lambda item: (-row[item], item))
        assert [item for item in items if item] == among[:k]
        assert len(items) == min(k, len(row) - 1)


def test_many_targets_of_one_query_among_few_of_others() -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 50, (6, 401)).astype(float).tolist()
    targets = [random.permutation(np.arange(1, 401))[:count].tolist() for count in (300, 1, 2, 1, 17, 1)]
    seen = [random.permutation(np.arange(1, 401))[:60].tolist() for _ in targets]
    found = ranks(torch.tensor(scores), pool(targets, seen)).tolist()
    for row in range(6):
        expected = slow_ranks(scores[row], targets[row], seen[row], list(range(1, 401)), ties=1)
        assert found[row][: len(targets[row])] == expected


class Rounded(Table):
    """A table whose cells are rounded in another way when a few of them are asked for."""

    def at(self, rows_BX: torch.Tensor) -> torch.Tensor:
        return super().at(rows_BX) + 1


@st.composite
def products(draw: st.DrawFn) -> tuple[Product, torch.Tensor, list[list[int]], list[list[int]]]:
    """Of whole numbers, so that no order of summation rounds, with the same as a table; targets and seen items."""
    scores, targets, seen = draw(blocks())
    queries, columns = len(scores), len(scores[0])
    number = st.integers(-2, 2).map(float)
    left = torch.tensor(draw(st.lists(number, min_size=3 * queries, max_size=3 * queries))).view(queries, 3)
    right = torch.tensor(draw(st.lists(number, min_size=3 * columns, max_size=3 * columns))).view(columns, 3)
    cell = st.tuples(st.integers(0, queries - 1), st.integers(1, columns - 1), st.integers(1, 3))
    cells = torch.tensor(draw(st.lists(cell, max_size=6)), dtype=torch.int64).view(-1, 3)
    table = left @ right.t()
    for query, item, value in cells.tolist():
        table[query, item] += value
    added = lambda: Added.summed(cells[:, 0], cells[:, 1], cells[:, 2].float(), queries)  # noqa: E731
    return Product(left, right, added), table, targets, seen


@given(products(), st.integers(1, 15))
@settings(max_examples=200, suppress_health_check=FIXTURES)
def test_a_product_is_read_as_the_table_it_stands_for(case: tuple, k: int) -> None:
    product, table, targets, seen = case
    asked = pool(targets, seen)
    found, expected = read(product, asked, k), read(Table(table), asked, k)
    assert all(map(torch.equal, found, expected))
    assert torch.equal(ranking.best(product, asked.seen_BS, k, str)[0], expected.items_BK)
    assert torch.equal(product.dense(), table)
    assert torch.equal(product.at(asked.targets_BM), table.gather(1, asked.targets_BM))
    sampled = asked._replace(negatives_BN=torch.zeros(len(table), 0, dtype=torch.int64))
    assert torch.equal(read(product, sampled).ranks_BM, read(Table(table), sampled).ranks_BM)


@given(blocks())
@settings(suppress_health_check=FIXTURES)
def test_a_target_is_compared_as_it_is_rounded_among_the_others(block: tuple) -> None:
    scores, targets, seen = block
    asked = pool(targets, seen)
    assert torch.equal(read(Rounded(torch.tensor(scores)), asked).ranks_BM, ranks(torch.tensor(scores), asked))


def test_lists_of_a_large_catalogue_are_those_of_a_stable_sort() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randint(0, 5000, (20, 30_001), generator=generator).float()  # equal scores at every place
    table[3], table[4] = 1, torch.arange(30_001)  # all alike, and ever better ones
    seen = torch.randint(0, 30_001, (20, 50), generator=generator)
    items, values = ranking.best(Blocks(table), seen, 100, str)
    expected = table.clone()
    expected[:, 0] = -1
    expected.scatter_(1, seen, -1)
    order = expected.argsort(dim=1, descending=True, stable=True)[:, :100]
    assert torch.equal(items, order)
    assert torch.equal(values, expected.gather(1, order))


class Blocks(Table):
    """A table that is read in many blocks."""

    width = 500  # type: ignore[assignment]


def test_a_product_is_never_as_wide_as_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "CACHEFUL", 1000)
    product = Product(torch.rand(10, 4), torch.rand(5001, 4))
    widths = []
    columns = Product.columns
    monkeypatch.setattr(
        Product, "columns", lambda self, start, stop: widths.append(stop - start) or columns(self, start, stop)
    )
    read(product, pool([[row + 1] for row in range(10)], [[] for _ in range(10)]), 5)
    assert 5001 <= sum(widths) < 5001 + 96
    assert set(widths) == {96}


def test_a_target_at_the_end_of_the_catalogue_takes_no_second_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "CACHEFUL", 64 * 96)
    generator = torch.Generator().manual_seed(0)
    product = Product(torch.randn(64, 128, generator=generator), torch.randn(971, 128, generator=generator))
    starts = []
    columns = Product.columns
    monkeypatch.setattr(
        Product, "columns", lambda self, start, stop: starts.append(start) or columns(self, start, stop)
    )
    read(product, pool([[907 + row] for row in range(64)], [[] for _ in range(64)]))
    assert starts == [*range(0, 875, 96), 875]


def test_a_query_whose_scores_rise_with_the_row_does_not_make_room_for_all_of_them_in_every_query():
    table = torch.zeros(64, 30_001)
    table[5] = torch.arange(30_001)
    found, widest = Best(64, 10, table), 0
    for start in range(0, 30_001, 500):
        found.take(start, table[:, start : start + 500])
        widest = max(widest, int(found.pending_B.max()))
    assert widest < 10 * MOST + 500
    assert found.lists()[0][5].tolist() == [*range(30_000, 29_990, -1)]
