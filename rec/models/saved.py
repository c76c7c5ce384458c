"""A trained model as a folder that needs nothing else: no dataset, no optimizer, no launcher.

RUN/model/
  model.safetensors         the weights, fp32 (bf16, if exported so)
  run.yaml                  the resolved configuration
  backbone/config.json      the language model's own configuration
  tokenizer/                its tokenizer, where the model reads texts
  graph/                    the train graph, where the model reads one
  items.parquet users.parquet   external ids by row, with what is known of them
  model.json                schema, sizes, step, validation metrics, fingerprint and split of the dataset
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rec.config.load import dump
from rec.config.load import load as load_config
from rec.config.tree import Run
from rec.data.dataset import Dataset
from rec.errors import CheckpointError, ConfigError
from rec.files import sync
from rec.graph.graph import Graph
from rec.models import build, graph_of
from rec.models.base import Recommender
from rec.nn.sharded import Exchange
from rec.nn.shards import Shard

SCHEMA = 1

FREE = ("eval.", "model.following.")
"""Keys that a trained model may still be asked with: training knows nothing of them."""

Write = Callable[[Path], object]
"""Writes a safetensors file: name -> tensor."""


@dataclass(frozen=True)
class Saved:
    """A saved model, opened."""

    folder: Path
    run: Run
    model: Recommender
    about: dict[str, Any]
    """The contents of model.json."""

    @cached_property
    def item_ids(self) -> list[str]:
        """External ids by row; row 0 is empty."""
        return ["", *pq.read_table(self.folder / "items.parquet", columns=["item"])["item"].to_pylist()]

    @cached_property
    def user_ids(self) -> list[str]:
        """External ids by row; row 0 is empty."""
        return ["", *pq.read_table(self.folder / "users.parquet", columns=["user"])["user"].to_pylist()]

    @cached_property
    def titles(self) -> list[str]:
        """What to call each item row: its title, else its text, else its id."""
        table = pq.read_table(self.folder / "items.parquet")
        for column in ("title", "text"):
            if column in table.column_names:
                named = zip(table[column].to_pylist(), self.item_ids[1:], strict=True)
                return ["", *(str(title or item) for title, item in named)]
        return self.item_ids


def publish(folder: Path, run: Run, model: Recommender, write: Write, dataset: Dataset, about: dict[str, Any]) -> None:
    """Makes a folder that `load` opens, whole or not at all.

    Args:
        folder: what is there is replaced.
        run: the resolved run.
        model: the trained model; what it holds of its weights may be shards, or newer.
        write: makes the file of its weights, fp32 or bf16.
        dataset: what it was trained on.
        about: step and metrics; `graph`, the fingerprint of the train graph that it was trained with, if it reads one.

    Raises:
        CheckpointError: if the disk refuses.
        DatasetError: if that graph is not the dataset's any more.
    """
    beside = folder.with_name(folder.name + ".tmp")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        _write(beside, run, model, write, dataset, about)
        for path in (*beside.rglob("*"), beside):
            sync(path)
        before = folder.with_name(folder.name + ".old")
        shutil.rmtree(before, ignore_errors=True)
        if folder.exists():
            folder.rename(before)
        beside.rename(folder)
        shutil.rmtree(before, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"cannot write {folder}: {reason}; the checkpoints are intact: make room and start again"
        ) from error


def _write(folder: Path, run: Run, model: Recommender, write: Write, dataset: Dataset, about: dict[str, Any]) -> None:
    write(folder / "model.safetensors")
    (folder / "run.yaml").write_text(dump(run), encoding="utf-8")
    model.save(folder)
    graph = graph_of(run, dataset, about.get("graph"))
    if graph is not None:
        graph.copy(folder / "graph")
    for name in ("items.parquet", "users.parquet"):
        shutil.copyfile(dataset.root / name, folder / name)
    facts = {
        "schema": SCHEMA,
        "users": dataset.users,
        "items": dataset.items,
        "dataset": dataset.fingerprint,
        "split": dataset.split_name,
        **about,
    }
    (folder / "model.json").write_text(json.dumps(facts, indent=1))


def published_digest(run: Run) -> str | None:
    """SHA-256 of the checkpoint that was published, as model.json says; None where there is none, or it is torn."""
    file = run.folder / "model/model.json"
    try:
        return str(json.loads(file.read_text())["sha256"])
    except (OSError, ValueError, KeyError):
        return None


def start_from(path: Path, model: Recommender, dataset: Dataset) -> None:
    """Gives a fresh model the weights of a saved one, before training: a stage goes on where another has ended.

    Args:
        path: folder of a trained run, or of its saved model.
        model: of the same parts and shapes.
        dataset: the one that both are trained on.

    Raises:
        CheckpointError: if there is no saved model, or one of another dataset or of other shapes.
        ConfigError: if it reads its input in another way.
    """
    folder = _folder(path)
    about = json.loads((folder / "model.json").read_text())
    if about["dataset"] != dataset.fingerprint:
        raise CheckpointError(
            f"init_from: {folder} was trained on dataset {about['dataset'][:12]}, and {dataset.root} is "
            f"{dataset.fingerprint[:12]}; rows of one mean nothing in another: train it on the same dataset"
        )
    model.require_like(folder)
    shards, wanted = model.shards(), model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    shapes |= {name: shard.shape for name, shard in shards.items()}
    file = _opened(folder)
    there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    for name in sorted(there.keys() | shapes.keys()):
        has, wants = (known.get(name, "not at all") for known in (there, shapes))
        if has != wants:
            raise CheckpointError(
                f"init_from: {folder} has {name} {has}, this model {wants}; "
                "give both runs the same backbone, tables and relations"
            )
    model.load_state_dict(_weights(folder, shards))


def _folder(path: Path) -> Path:
    """A run's model folder, given either."""
    folder = path if (path / "model.json").is_file() else path / "model"
    if not (folder / "model.json").is_file():
        raise CheckpointError(f"{path} holds no trained model; give the folder of a run that has been trained")
    return folder


def _opened(folder: Path) -> Any:
    """Its file of weights, to be read tensor by tensor."""
    try:
        return safe_open(folder / "model.safetensors", framework="pt")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}/model.safetensors is damaged ({error}); remove {folder} and type `kindling train` again"
        ) from None


def _weights(folder: Path, shards: Mapping[str, Shard]) -> dict[str, Tensor]:
    """Name -> tensor; of shards, the rows that this rank has."""
    file = _opened(folder)
    names = set(file.keys())
    read = {name: file.get_slice(name)[shards[name].own] for name in names & shards.keys()}
    return {**read, **{name: file.get_tensor(name) for name in names - shards.keys()}}


def _require_free(name: str, changes: Sequence[str]) -> None:
    """Raises ConfigError for a change of what training knows. The words are looked at first: no other key is theirs."""
    for word in changes:
        key = f"{word.partition('=')[0]}."
        if not key.startswith(FREE):
            raise ConfigError(
                f"{name} is trained, and '{word}' cannot be changed any more, only eval.* and model.following; train "
                "a run of its own for it"
            )


def load(path: Path, changes: Sequence[str] = (), exchange: Exchange | None = None) -> Saved:
    """Opens a run folder, or its `model` folder, on the CPU in evaluation mode.

    Args:
        path: of the folder.
        changes: `key=value` words for what training does not know, `eval` and `model.following`.
        exchange: with other ranks, if tables that were sharded in training are to be so again; None reads them whole.

    Raises:
        CheckpointError: if there is no saved model, or one of another schema.
        ConfigError: if a change is of anything else.
    """
    folder = _folder(path)
    about = json.loads((folder / "model.json").read_text())
    if about["schema"] != SCHEMA:
        raise CheckpointError(f"{folder} has schema {about['schema']}, this version reads {SCHEMA}; train it again")
    trained = load_config(folder / "run.yaml")
    _require_free(trained.name, changes)
    run = load_config(folder / "run.yaml", changes)
    if trained.model.needs_graph:
        graph: Graph | None = Graph.open(folder / "graph")
    else:  # a change may need the one of the dataset
        graph = graph_of(run, Dataset.open(run.dataset)) if run.model.needs_graph else None
    users, items = about["users"], about["items"]
    model = build(run.model, users=users, items=items, graph=graph, saved=folder, exchange=exchange)
    model.load_state_dict(_weights(folder, model.shards()))
    return Saved(folder, run, model.eval(), about)
