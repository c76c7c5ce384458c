"""What a soft-token model reads of a person, how the graph relates it, and what both make of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import torch

from rec.data.batch import Queries
from rec.data.people import Person
from rec.errors import ConfigError
from rec.explain.kinds import names
from rec.models.relations import Learned, Paper, tokens_of
from rec.models.soft_token import SoftToken
from rec.nn.attention import recorded
from rec.nn.relations import relation_ids
from rec.recommend import TrainedModel

DIGITS = 4
"""Decimals of a weight on the page."""


@torch.no_grad()
def gather(trained: TrainedModel, person: Person, k: int) -> dict[str, Any]:
    """Everything the page shows, as plain values.

    Args:
        trained: a soft-token model with relations.
        person: whose history is read; the last `data.max_items` of it.
        k: length of the lists.

    Raises:
        ConfigError: the model has no relations, or knows no item of the history.
    """
    model = trained.model
    if not isinstance(model, SoftToken) or model.relations is None:
        raise ConfigError(
            f"{trained.saved.folder} was trained without model.relations: there is no graph in its attention to explain"
        )
    queries = trained.queries([person.items], [person.user], [person.times])
    if not queries.history_BT.any():
        raise ConfigError(f"the model knows no item of the history of '{person.user}'; choose somebody else")
    with recorded() as weights:
        model(queries)
        with_graph = [layer[0] for layer in weights]
    with _without_relations(model), recorded() as weights:
        model(queries)
        without = [layer[0] for layer in weights]
        listed_without = _listed(trained, person, k)
    about = trained.saved.about
    return {
        "user": person.user or "with no name",
        "run": trained.saved.run.name,
        "about": f"dataset {about['dataset'][:12]}, split {about['split']}, step {about.get('step', '?')}",
        "tokens": _tokens(trained, queries),
        "relations": _relations(model, queries),
        "with": [_rounded(layer) for layer in with_graph],
        "without": [_rounded(layer) for layer in without],
        "listed_with": _listed(trained, person, k),
        "listed_without": listed_without,
    }


@contextmanager
def _without_relations(model: SoftToken) -> Iterator[None]:
    """The same weights, whose attention hears nothing of the graph."""
    relations, model.relations = model.relations, None
    try:
        yield
    finally:
        model.relations = relations


def _tokens(trained: TrainedModel, queries: Queries) -> list[dict[str, str]]:
    ids, titles = trained.saved.item_ids, trained.saved.titles
    user = trained.saved.user_ids[int(queries.user_B[0])]
    first = [{"title": "the user's own token", "id": user, "time": ""}] if trained.saved.run.model.user_token else []
    items, times = queries.history_BT[0].tolist(), queries.times_BT[0].tolist()
    return first + [
        {"title": titles[item], "id": ids[item], "time": _day(time)} for item, time in zip(items, times, strict=True)
    ]


def _relations(model: SoftToken, queries: Queries) -> list[dict[str, Any]]:
    """Kind, names of its ids, and the ids of all pairs."""
    shown_B = model.tables.known(queries.user_B) if model.heads.user_in is not None else None
    match model.relations:
        case Learned() as learned:
            tokens = tokens_of(queries, shown_B)
            found = relation_ids(learned.graph, tokens)
            length = tokens.item_BT.shape[1]
            return [
                {"name": kind, "buckets": names(kind), "ids": ids.expand(1, length, length)[0].tolist()}
                for kind, ids in found.items()
            ]
        case Paper() as paper:
            hops = paper.hops(queries, shown_B)
            return [{"name": "hops", "buckets": names("hops"), "ids": hops[0].tolist()}]
        case _:
            raise AssertionError("relations are of one of the two kinds")


def _listed(trained: TrainedModel, person: Person, k: int) -> list[dict[str, Any]]:
    (best,) = trained.recommend([person.items], k, users=[person.user], times=[person.times])
    return [{"id": item.item, "title": item.title, "score": item.score} for item in best]


def _rounded(weights: torch.Tensor) -> Sequence[Any]:
    """(heads, T, T) -> nested lists, short enough for a page."""
    return [[[round(value, DIGITS) for value in row] for row in head] for head in weights.tolist()]


def _day(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d}" if milliseconds else ""
