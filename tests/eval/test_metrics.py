"""Metrics against hand arithmetic, an independent library, and properties."""

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from rec.errors import ConfigError
from rec.eval.metrics import METRICS, NEVER, Metric, Placed, parse, parse_all

CUTOFFS = (1, 3, 5, 10)


def placed(rows: list[list[int]]) -> Placed:
    offsets = np.cumsum([0, *map(len, rows)])
    return Placed(np.array([rank for row in rows for rank in sorted(row)], np.int64), offsets)


ranks_of_queries = st.lists(
    st.lists(st.integers(1, 60) | st.just(NEVER), min_size=1, max_size=8).map(
        lambda row: sorted(set(row) - {NEVER}) + [NEVER] * row.count(NEVER)
    ),
    min_size=1,
    max_size=12,
)


def value(text: str, *rows: list[int]) -> list[float]:
    return parse(text).values(placed(list(rows))).tolist()


def test_one_target_at_rank_3() -> None:
    assert value("recall@3", [3]) == value("hit@3", [3]) == [1]
    assert value("ndcg@3", [3]) == [pytest.approx(1 / math.log2(4))]
    assert value("mrr@3", [3]) == value("map@3", [3]) == value("precision@3", [3]) == [pytest.approx(1 / 3)]
    for name in METRICS:
        assert value(f"{name}@2", [3]) == [0]


def test_three_targets_of_which_two_are_found() -> None:
    rows = [2, 4, 7]
    assert value("recall@5", rows) == [pytest.approx(2 / 3)]
    assert value("precision@5", rows) == [pytest.approx(2 / 5)]
    assert value("map@5", rows) == [pytest.approx((1 / 2 + 2 / 4) / 3)]
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert value("ndcg@5", rows) == [pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)]


def test_more_targets_than_the_cutoff() -> None:
    rows = [1, 2, 5, 6]
    assert value("recall@2", rows) == [0.5]
    assert value("recall_capped@2", rows) == value("map@2", rows) == [1]
    assert value("ndcg@2", rows) == [pytest.approx(1)]


def test_ndcg_retrieved_forgives_what_the_list_of_fifty_has_not() -> None:
    first, second = 1 / math.log2(3), 1 / math.log2(4)
    assert value("ndcg_retrieved@10", [2, NEVER]) == [pytest.approx(first / 1)]
    assert value("ndcg_retrieved@10", [2, 51]) == [pytest.approx(first / 1)]
    assert value("ndcg_retrieved@10", [2, 50]) == [pytest.approx(first / (1 + first))]
    assert value("ndcg_retrieved@100", [2, 51]) == [pytest.approx((first + 1 / math.log2(52)) / (1 + first))]
    assert value("ndcg_retrieved@1", [2, 3]) == [0]
    assert value("ndcg_retrieved@3", [2, 3]) == [pytest.approx((first + second) / (1 + first))]


def test_a_target_that_is_no_candidate_is_a_miss_that_counts() -> None:
    assert value("recall@10", [1, NEVER]) == [0.5]
    for name in METRICS:
        assert value(f"{name}@999999999", [NEVER]) == [0]


@given(ranks_of_queries)
def test_agrees_with_trec_eval(rows: list[list[int]]) -> None:
    measures = {"ndcg_cut", "recall", "P", "recip_rank", "map_cut", "success"}
    wanted = {f"q{q}": {f"t{q}.{n}": 1 for n in range(len(row))} for q, row in enumerate(rows)}
    runs = {}
    for q, row in enumerate(rows):
        best_first = [f"t{q}.{row.index(rank)}" if rank in row else f"other{rank}" for rank in range(1, 61)]
        runs[f"q{q}"] = {item: float(100 - place) for place, item in enumerate(best_first)}
    theirs = pytrec_eval.RelevanceEvaluator(
        wanted, {f"{m}.{','.join(map(str, CUTOFFS))}" if m != "recip_rank" else m for m in measures}
    ).evaluate(runs)
    ours = placed(rows)
    targets = np.array([len(row) for row in rows])
    for cutoff in CUTOFFS:
        for name, other in (("ndcg", "ndcg_cut"), ("recall", "recall"), ("precision", "P"), ("hit", "success")):
            expected = [theirs[f"q{q}"][f"{other}_{cutoff}"] for q in range(len(rows))]
            np.testing.assert_allclose(Metric(name, cutoff).values(ours), expected, atol=1e-9, err_msg=name)
        # trec_eval divides the precisions by all targets, and cuts no reciprocal rank
        expected_map = np.array([theirs[f"q{q}"][f"map_cut_{cutoff}"] for q in range(len(rows))])
        np.testing.assert_allclose(
            Metric("map", cutoff).values(ours), expected_map * targets / np.minimum(cutoff, targets), atol=1e-9
        )
    np.testing.assert_allclose(
        Metric("mrr", 60).values(ours), [theirs[f"q{q}"]["recip_rank"] for q in range(len(rows))], atol=1e-9
    )


@given(st.sets(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 30))
def test_ndcg_agrees_with_scikit_learn(ranks: set[int], cutoff: int) -> None:
    relevant = np.isin(np.arange(1, 31), list(ranks)).astype(float)
    theirs = ndcg_score(relevant[None], -np.arange(30.0)[None], k=cutoff)
    assert Metric("ndcg", cutoff).values(placed([sorted(ranks)])) == pytest.approx([theirs])


@given(ranks_of_queries, st.integers(1, 20), st.sampled_from(sorted(METRICS)), st.randoms())
def test_queries_do_not_see_each_other(rows: list[list[int]], cutoff: int, name: str, random: object) -> None:
    metric = Metric(name, cutoff)
    together = metric.values(placed(rows))
    assert together.tolist() == [metric.values(placed([row]))[0] for row in rows]
    assert together[::-1].tolist() == metric.values(placed(rows[::-1])).tolist()


@given(ranks_of_queries, st.integers(1, 20), st.sampled_from(sorted(set(METRICS) - {"ndcg_retrieved"})))
def test_a_better_rank_is_never_worse(rows: list[list[int]], cutoff: int, name: str) -> None:
    better = [
        [rank - 1 if rank > 1 and rank - 1 not in row and rank != NEVER else rank for rank in row] for row in rows
    ]
    metric = Metric(name, cutoff)
    assert (metric.values(placed(better)) >= metric.values(placed(rows)) - 1e-12).all()


@given(ranks_of_queries, st.integers(1, 70))
def test_values_are_shares_and_the_upstream_variants_are_never_below(rows: list[list[int]], cutoff: int) -> None:
    values = {name: Metric(name, cutoff).values(placed(rows)) for name in METRICS}
    for name, found in values.items():
        assert ((found >= 0) & (found <= 1 + 1e-12)).all(), name
    assert (values["recall_capped"] >= values["recall"]).all()
    assert (values["ndcg_retrieved"] >= values["ndcg"] - 1e-12).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ndgc@10", "did you mean 'ndcg@10'"),
        ("recal@20", "did you mean 'recall@20'"),
        ("xyz@10", "choose one of ndcg, recall"),
        ("ndcg", "write it as name@K"),
        ("ndcg@0", "write it as name@K"),
        ("ndcg@-1", "write it as name@K"),
        ("ndcg@1.5", "write it as name@K"),
        ("ndcg@10[full]", "write it as name@K"),
    ],
)
def test_an_unknown_metric_is_refused_with_the_nearest(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text)


def test_names_are_kept_in_order_each_once() -> None:
    assert [str(metric) for metric in parse_all(["mrr@5", "ndcg@10", "mrr@5"])] == ["mrr@5", "ndcg@10"]
