"""Ranks and lists against twins that sort."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rec.eval.metrics import NEVER
from rec.eval.ranking import Pool, best, ranks, require_finite


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
@settings(max_examples=200)
def test_full_ranks_are_those_of_a_sort_with_targets_last_among_equals(block: tuple) -> None:
    scores, targets, seen = block
    found = ranks(torch.tensor(scores), pool(targets, seen)).tolist()
    everything = list(range(1, len(scores[0])))
    for row in range(len(scores)):
        expected = slow_ranks(scores[row], targets[row], seen[row], everything, ties=1)
        assert found[row][: len(targets[row])] == expected


@given(blocks(), st.booleans(), st.data())
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
    require_finite(scores, str)
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
        require_finite(scores, lambda row: f"row {row}")


def test_large_finite_scores_pass_though_their_sum_is_infinite() -> None:
    require_finite(torch.full((2, 40), 3e38), str)
    require_finite(torch.full((2, 40), 6e4, dtype=torch.float16), str)


@given(blocks(), st.integers(1, 15))
@settings(max_examples=200)
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
