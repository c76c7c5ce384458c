"""Small models and runs for tests: every family of backbone at a width of 32."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import save_file

from rec.config.tree import Backbone, Data, Eval, LossWeights, Model, Optim, Run, SoftToken, Train
from rec.data.batch import Queries, Sequences, scored_cells
from rec.data.dataset import Dataset
from rec.data.feed import Feed
from rec.data.views import NextItems
from rec.graph.build import build as build_graph
from rec.graph.build import existing
from rec.graph.graph import Graph
from rec.models import build
from rec.models.base import Recommender
from rec.models.saved import Write
from rec.ranks import Ranks
from rec.train.pieces import Parts

WIDTH = 32
_ROTARY: dict[str, int | float | str | bool] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "vocab_size": 8,
    "max_position_embeddings": 64,
}
SHAPES: dict[str, dict[str, int | float | str | bool]] = {
    "gpt2": {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 8},
    "qwen2": {key: value for key, value in _ROTARY.items() if key != "head_dim"},
    "qwen3": _ROTARY,
    "llama": _ROTARY,
}
EVERYTHING = LossWeights(
    cross_entropy=1.0, sampled_softmax=0.5, gbce=0.3, bpr_context=0.2, bpr_user=0.1, l2=0.01, gbce_calibration=0.75
)
"""All terms of the loss at once."""


def decoder(architecture: str = "gpt2", **options: Any) -> Backbone:
    return Backbone(architecture=architecture, config=SHAPES[architecture], **options)


def soft_token(architecture: str = "gpt2", **options: Any) -> SoftToken:
    return SoftToken(**{"backbone": decoder(architecture), "dim": 16, **options})


def make(config: Model, users: int, items: int, seed: int = 0, graph: Graph | None = None) -> Recommender:
    torch.manual_seed(seed)
    return build(config, users=users, items=items, graph=graph)


def make_for(config: Model, dataset: Dataset, seed: int = 0) -> Recommender:
    """A model for a dataset, with the train graph if it needs one."""
    graph = graph_for(dataset) if config.needs_graph else None
    return make(config, dataset.users, dataset.items, seed, graph)


def graph_for(dataset: Dataset, top: int = 8) -> Graph:
    """The train graph of a dataset; it is made in the dataset's folder where it is not there yet."""
    return existing(dataset, top) or build_graph(dataset, top=top)


def a_run(dataset: Dataset, out: Path, model: Model, **groups: Any) -> Run:
    """A run without trackers, whose groups are given as objects; the graph of the dataset is made if it needs one."""
    if model.needs_graph:
        graph_for(dataset)
    defaults: dict[str, Any] = {
        "data": Data(global_batch=12, micro_batch=12, max_items=8),
        "train": Train(steps=6, log_every=1, trackers=()),
        "eval": Eval(),
        "optim": Optim(),
    }
    return Run(**{"name": "run", "dataset": dataset.root, "out": out, "model": model, **defaults, **groups})


def batch_of(dataset: Dataset, step: int = 0, *, predict_first: bool = False, **data: Any) -> Sequences:
    """The one micro-batch of a step."""
    size = data.pop("size", 8)
    settings = Data(global_batch=size, micro_batch=size, prefetch=0, **{"max_items": 6, "negatives": 4, **data})
    feed = Feed(NextItems(dataset, settings, predict_first=predict_first, seed=1), settings, seed=1, ranks=Ranks())
    try:
        return feed.step(step).batches[0]
    finally:
        feed.close()


def padded(batch: Sequences, more: int) -> Sequences:
    """The same windows with `more` columns of padding."""
    empty = torch.zeros(len(batch.user_B), more, dtype=torch.int64)
    names = ("items_BT", "times_BT", "targets_BT")
    wide = batch._replace(**{name: torch.cat([getattr(batch, name), empty], 1) for name in names})
    return wide._replace(scored_N=scored_cells(wide.first_B, wide.targets_BT))


def queries(users: list[int], histories: list[list[int]], width: int | None = None) -> Queries:
    width = width or max([1, *map(len, histories)])
    history_BT = torch.tensor([history + [0] * (width - len(history)) for history in histories])
    return Queries(torch.tensor(users), history_BT, torch.zeros_like(history_BT))


def saved_tensors(run: Run, step: int) -> dict[str, torch.Tensor]:
    """Parameters and moments of the checkpoint of a step, whole."""
    parts = Parts(run.folder / f"checkpoints/step-{step:08d}")
    return {key: parts.whole(key) for key in parts.shapes}


def writing(model: Recommender) -> Write:
    """What writes a model's weights, for `rec.models.saved.publish`."""
    return partial(save_file, model.state_dict())


def forget_the_world() -> None:
    """Accelerate remembers for the life of a process which process it is."""
    AcceleratorState._reset_state(True)
    PartialState._reset_state()
    GradientState._reset_state()
