"""Small models of every kind, as folders that people would have after training."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

import rec
from rec.config.tree import Data, Model
from rec.data.dataset import Dataset
from rec.data.people import Person
from rec.models import saved
from rec.models.relations import Learned
from rec.models.soft_token import SoftToken
from rec.recommend import TrainedModel
from tests.eval.tiny import write
from tests.small import a_run, make_for, writing

EVIL = "</script><script>alert('titles are no programs')</script><!-- & \"/*DATA*/"
"""The title of the first item."""


def corpus(root: Path) -> Dataset:
    """Users of 1 to 11 items in a catalogue of 20, in time, with titles."""
    random = torch.Generator().manual_seed(5)
    rows = [(torch.randperm(20, generator=random)[:length] + 1).tolist() for length in (7, 1, 3, 11, 5, 9, 8, 6, 10, 7)]
    day = 86_400_000
    dataset = write(root, rows, 20, times=[[1_000 * day + day * place**2 for place in range(len(row))] for row in rows])
    items = pq.read_table(root / "items.parquet")
    titles = [EVIL if row == 0 else f"Title {row + 1}" for row in range(20)]
    pq.write_table(items.append_column("title", pa.array(titles)), root / "items.parquet")
    return Dataset.open(dataset.root)


def trained(dataset: Dataset, out: Path, model: Model) -> TrainedModel:
    """A saved model with random weights, in which relations mean something."""
    run = a_run(dataset, out, model, data=Data(global_batch=12, micro_batch=12, max_items=8, negatives=4))
    made = make_for(model, dataset)
    if isinstance(made, SoftToken) and isinstance(made.relations, Learned):
        with torch.no_grad():
            for table in made.relations.bias.tables.values():
                table.normal_(generator=torch.Generator().manual_seed(table.numel()))
    run.folder.mkdir(parents=True)
    saved.publish(run.folder / "model", run, made, writing(made), dataset, {"step": 7})
    return rec.load(run.folder)


def person(dataset: Dataset, user: int) -> Person:
    mine = slice(dataset.offsets[user], dataset.offsets[user + 1])
    items = [dataset.item_ids[item] for item in dataset.item_rows[mine]]
    return Person(dataset.user_ids[user], items, dataset.times[mine].tolist())
