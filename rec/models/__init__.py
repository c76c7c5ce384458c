"""The recommenders, and the one place that knows them all.

Each is imported when it is built: those with a language model bring Transformers along, which takes seconds.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rec.config.tree import GraphLlm as GraphLlmConfig
from rec.config.tree import LightGcn as LightGcnConfig
from rec.config.tree import Model, Run
from rec.config.tree import Sasrec as SasrecConfig
from rec.config.tree import SoftToken as SoftTokenConfig
from rec.data.dataset import Dataset
from rec.data.views import NextItems, View
from rec.errors import ConfigError, DatasetError
from rec.graph.graph import Graph
from rec.models.base import Recommender
from rec.nn.sharded import Exchange


def build(
    config: Model,
    *,
    users: int,
    items: int,
    graph: Graph | None = None,
    saved: Path | None = None,
    weights: bool = True,
    exchange: Exchange | None = None,
) -> Recommender:
    """The recommender that a configuration describes, on the CPU, in fp32.

    Args:
        config: the `model` group of a run.
        users: number of users, without padding.
        items: number of items, without padding.
        graph: the train graph; not None where `config.needs_graph`.
        saved: folder of a saved model of this configuration, whose weights will be loaded right after; without one
            the model starts afresh, with pretrained backbone weights where the configuration asks for them.
        weights: false leaves those out, too, since a checkpoint follows.
        exchange: with other ranks, where each has some rows of the tables if `config.shard_tables`; None has all.

    Raises:
        ConfigError: if a pattern of `model.freeze` fits no parameter, or none is left to train.
    """
    assert graph is not None or not config.needs_graph
    exchange = exchange if exchange is not None and exchange.world > 1 else None
    model: Recommender
    match config:
        case GraphLlmConfig():
            from rec.models.graph_llm import GraphLlm

            model = GraphLlm(config, users=users, items=items, graph=graph, saved=saved, weights=weights)
        case LightGcnConfig():
            from rec.models.lightgcn import LightGcn

            assert graph is not None
            model = LightGcn(config, graph)
        case SasrecConfig():
            from rec.models.sasrec import Sasrec

            model = Sasrec(config, items=items, exchange=exchange)
        case SoftTokenConfig():
            from rec.models.soft_token import SoftToken

            model = SoftToken(
                config, users=users, items=items, graph=graph, saved=saved, weights=weights, exchange=exchange
            )
    _freeze(model, config.freeze)
    return model


def graph_of(run: Run, dataset: Dataset, trained: str | None = None) -> Graph | None:
    """The train graph, if the run's recommender reads one.

    Args:
        trained: fingerprint of the graph that the model was trained with; None where any of the dataset will do.

    Raises:
        DatasetError: if it has to be made first, or was made anew since, with other options.
    """
    if not run.model.needs_graph:
        return None
    graph = Graph.open(dataset.root / "graph", dataset.fingerprint)
    if trained not in (None, graph.fingerprint):
        raise DatasetError(
            f"{graph.folder} is {graph.fingerprint[:12]}, but {run.name} was trained with {str(trained)[:12]}; "
            f"make it again with the --top it had: `kindling graph {dataset.root} --top K`, "
            "or train again what an older version has trained"
        )
    return graph


def require_readable(run: Run, dataset: Dataset) -> None:
    """Raises DatasetError or ConfigError if the dataset lacks what the run's recommender reads of it.

    It only looks, so that nobody waits for a tokenizer, a model or other ranks to be told.
    """
    graph_of(run, dataset)
    match run.model:
        case GraphLlmConfig():
            from rec.text.corpus import require_field

            for name, template in run.model.trained_on.items():
                require_field(dataset, name, template)
        case SoftTokenConfig() if run.model.item_init is not None:
            dataset.feature(run.model.item_init)


def view(run: Run, dataset: Dataset) -> View[Any]:
    """What the run's recommender sees of the dataset in training."""
    if isinstance(run.model, GraphLlmConfig):
        from rec.models.graph_llm import tokenizer
        from rec.text.view import TextView

        return TextView(dataset, run.data, run.model, tokenizer(run.model), seed=run.seed)
    return NextItems(dataset, run.data, predict_first=run.model.predict_first, seed=run.seed)


def _freeze(model: Recommender, patterns: Sequence[str]) -> None:
    """Takes the parameters whose names fit a pattern out of training."""
    for pattern in patterns:
        fitting = [parameter for name, parameter in model.named_parameters() if fnmatchcase(name, pattern)]
        if not fitting:
            parts = ", ".join(f"{name}.*" for name, _ in model.named_children())
            raise ConfigError(f"model.freeze names '{pattern}', which fits no parameter; the parts are {parts}")
        for parameter in fitting:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"model.freeze is {', '.join(patterns)}, which leaves nothing to train; take one out")
