"""What a soft-token model reads of a person, how the graph relates it, and what both make of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from rec.data.batch import Queries
from rec.data.people import Person
from rec.errors import ConfigError
from rec.explain.related import related, size, triangle
from rec.explain.shown import chosen, shown
from rec.explain.summands import says, summands
from rec.models.soft_token import SoftToken
from rec.nn.attention import recorded
from rec.recommend import TrainedModel


def require_explained(trained: TrainedModel) -> SoftToken:
    """The model, if it is of the kind that can be explained; else ConfigError."""
    if not isinstance(trained.model, SoftToken):
        raise ConfigError(
            f"{trained.saved.folder} is a model of kind {trained.saved.run.model.kind}, which cannot be explained; "
            "give a run of kind soft_token"
        )
    return trained.model


@torch.no_grad()
def gather(trained: TrainedModel, person: Person, k: int, layer: int | None = None) -> dict[str, Any]:
    """Everything the page shows, as plain values.

    user, run, about    what is explained
    tokens              what the model reads, oldest first: {title, id, time}
    owner               whether the first token is the user's own
    history             items of the person that the model knows
    relations           see `related`; empty where attention has none
    weights             {"with", "without"}: [layer][head], row t: the weights of token t on the tokens 0 .. t; without
                        relations there is only "with", and it means nothing; of a large backbone most layers have
                        one entry in place of their heads, the mean
    parts               {name, says} of the summands of a score, where there are several
    listed              {"with", "without"}: the k best, {id, title, score, parts}

    "Without" is the same model whose attention has nothing added to it.

    Args:
        trained: a soft-token model.
        person: whose history is read; the last `data.max_items` of it.
        k: length of the lists.
        layer: from 1, the one whose heads are shown where there are too many to show all; the last one, if not given.

    Raises:
        ConfigError: the model is of another kind, has no such layer, hides its attention, or knows no item of the
            history.
    """
    model, run = require_explained(trained), trained.saved.run
    queries = trained.queries([person.items], [person.user], [person.times])
    if not queries.history_BT.any():
        raise ConfigError(f"the model knows no item of the history of '{person.user}'; choose somebody else")
    heads_of = chosen(layer, size(model)[0])
    weights, listed = (
        {"with": _weights(model, queries, heads_of)},
        {"with": _listed(trained, model, queries, person, k)},
    )
    if model.relations is not None:
        with _without_relations(model):
            weights["without"] = _weights(model, queries, heads_of)
            listed["without"] = _listed(trained, model, queries, person, k)
    about = trained.saved.about
    return {
        "user": person.user or "with no name",
        "run": run.name,
        "about": f"dataset {about['dataset'][:12]}, split {about['split']}, step {about.get('step', '?')}",
        "tokens": _tokens(trained, model, queries),
        "owner": model.heads.user_in is not None,
        "history": sum(item in trained.item_rows for item in person.items),
        "relations": related(model, queries, heads_of),
        "weights": weights,
        "parts": [{"name": name, "says": says(model, name)} for name in summands(model, queries)],
        "listed": listed,
    }


def _weights(model: SoftToken, queries: Queries, heads_of: int) -> Any:
    with recorded(model.backbone) as weights:
        model(queries)
    layers, _ = size(model)
    if len(weights) != layers:
        raise ConfigError(
            f"{type(model.backbone).__name__} shows the attention of {len(weights)} of its {layers} layers; "
            "explain a run with, for example, gpt2, qwen2, qwen3 or llama"
        )
    return [triangle(of_HTT) for of_HTT in shown(torch.stack(weights)[:, 0], heads_of)]


@contextmanager
def _without_relations(model: SoftToken) -> Iterator[None]:
    """The same weights, whose attention hears nothing of the graph."""
    relations, model.relations = model.relations, None
    try:
        yield
    finally:
        model.relations = relations


def _tokens(trained: TrainedModel, model: SoftToken, queries: Queries) -> list[dict[str, str]]:
    ids, titles, user = trained.saved.item_ids, trained.saved.titles, int(queries.user_B[0])
    items, times = queries.history_BT[0].tolist(), queries.times_BT[0].tolist()
    owner = {"title": "the user's own token" if user else "a stranger's token", "id": trained.saved.user_ids[user]}
    return [{**owner, "time": ""}] * (model.heads.user_in is not None) + [
        {"title": titles[item], "id": ids[item], "time": _day(time)} for item, time in zip(items, times, strict=True)
    ]


def _listed(trained: TrainedModel, model: SoftToken, queries: Queries, person: Person, k: int) -> list[dict[str, Any]]:
    (best,) = trained.recommend([person.items], k, users=[person.user], times=[person.times])
    parts: list[Tensor] = list(summands(model, queries).values())
    return [
        {
            "id": item.item,
            "title": item.title,
            "score": item.score,
            "parts": [float(part[0, trained.item_rows[item.item]]) for part in parts],
        }
        for item in best
    ]


def _day(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d}" if milliseconds else ""
