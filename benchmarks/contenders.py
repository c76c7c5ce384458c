"""The contenders of `benchmarks.training`: each trains some steps in a process of its own, and prints their times.

    python -m benchmarks.contenders ours JOB.json
    python -m benchmarks.contenders trainer JOB.json
    .venv-peers/bin/python benchmarks/contender_rectools.py JOB.json

JOB.json says what is trained (see `Job`); what is printed is one line of JSON, a list of [seconds, seconds of all
processors, real positions] for each step after those that warm up.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, Trainer, TrainerCallback, TrainingArguments

from launch.strategy import asked
from launch.train import made
from rec.config.tree import Backbone, Data, LossWeights, Optim, Run, SoftToken, Train
from rec.data.dataset import Dataset
from rec.data.feed import Feed
from rec.models import view
from rec.ranks import Ranks
from rec.report import Report
from rec.train.hold import Hold
from rec.train.keeper import Keeper
from rec.train.loop import train
from rec.train.progress import Progress
from rec.train.status import Status
from rec.train.stop import Stop
from rec.train.strategies import build

Taken = list[tuple[float, float, int]]
"""Seconds, seconds of all processors, and real positions, at the end of each step."""


@dataclass(frozen=True)
class Job:
    """What is trained: the same for all, as far as each can be told."""

    folder: str
    """Holds `dataset`, and `sequences.npz` with the training sequences of its users."""
    backbone: Mapping[str, Any]
    """architecture, and the values of its configuration; source, where it comes from a hub or a folder."""
    width: int
    """Of the item table."""
    batch: int
    """Windows of a step."""
    micro_batch: int
    """Windows of one length in a pass of ours; the others take a step in one pass, as they do if nothing is said."""
    items: int
    """Places of a window."""
    negatives: int
    steps: int
    warm: int
    """Steps that come first and do not count."""
    threads: int
    precision: str = "fp32"


def run_of(job: Job) -> Run:
    return Run(
        name=f"ours-{os.getpid()}",
        dataset=Path(job.folder) / "dataset",
        out=Path(job.folder),
        model=SoftToken(
            dim=job.width,
            user_token=False,
            backbone=Backbone(**job.backbone),
            loss=LossWeights(cross_entropy=0.0, sampled_softmax=1.0),
        ),
        data=Data(
            global_batch=job.batch,
            micro_batch=job.micro_batch,
            max_items=job.items,
            negatives=job.negatives,
            negatives_of="step",
        ),
        optim=Optim(schedule="constant"),
        # one step more than is timed: each queues the passes of the next, but the last
        train=Train(steps=job.warm + job.steps + 1, precision=job.precision, trackers=(), save_every=1_000_000),  # type: ignore[arg-type]
    )


class Watched(Report):
    """Takes the time of every step, as the report does of some."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.folder, steps=run.train.steps, start=0, first=True)
        self.taken: Taken = []

    def advance(self, items: int) -> None:
        super().advance(items)
        self.taken.append((time.perf_counter(), time.process_time(), items))


def ours(job: Job) -> Taken:
    """The loop of `kindling train`, with everything in it but validation, which comes after the last step."""
    run, ranks = run_of(job), Ranks()
    dataset, status = Dataset.open(run.dataset), Status(run.folder, steps=run.train.steps, first=True)
    feed = Feed(view(run, dataset), run.data, seed=run.seed, ranks=ranks)
    with Stop() as stop, Hold(run.folder, ranks), Keeper(run, dataset, ranks, status) as keeper:
        engine = build(asked("single", ranks, run), run, ranks)
        engine.prepare(made(run, dataset, Ranks(), fresh=True), run.optim)
        report = Watched(run)
        train(run, engine, feed, lambda: {run.eval.select: 0.0}, keeper, report, stop, Progress())
    feed.close()
    return report.taken[:-1]


class Plain(nn.Module):
    """The same model as one writes it for the Trainer: a table, a decoder of Transformers, and a loss."""

    def __init__(self, job: Job, items: int) -> None:
        super().__init__()
        wanted = {**job.backbone["config"], "use_cache": False}
        source = job.backbone.get("source")
        config = (
            AutoConfig.from_pretrained(source, **wanted)
            if source
            else AutoConfig.for_model(job.backbone["architecture"], **wanted)
        )
        self.table = nn.Embedding(items + 1, job.width, padding_idx=0)
        self.item_in = nn.Linear(job.width, config.hidden_size, bias=False)
        self.backbone = AutoModel.from_config(config)
        self.query = nn.Linear(config.hidden_size, job.width, bias=False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, negatives: Tensor
    ) -> dict[str, Tensor]:
        states = self.backbone(inputs_embeds=self.item_in(self.table(input_ids)), attention_mask=attention_mask)
        query_ND, target_N = self.query(states.last_hidden_state)[labels > 0], labels[labels > 0]
        positive_N = (query_ND * self.table(target_N)).sum(1)
        # of uniform samples, log(K Q) is the same for all
        negative_NK = query_ND @ self.table(negatives).T - np.log(len(negatives) / (self.table.num_embeddings - 1))
        negative_NK = negative_NK.masked_fill(negatives == target_N[:, None], -1e9)
        logits = torch.cat([positive_N[:, None], negative_NK], 1)
        return {"loss": F.cross_entropy(logits, torch.zeros_like(target_N))}


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """A user's last items, and what follows each."""

    def __init__(self, job: Job) -> None:
        stored = np.load(Path(job.folder) / "sequences.npz")
        users = np.split(stored["items"], np.cumsum(stored["lengths"])[:-1])
        self.rows = [user[-job.items - 1 :] for user in users if len(user) > 1]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {"input_ids": self.rows[place][:-1], "labels": self.rows[place][1:]}


def trainer(job: Job) -> Taken:
    """Hugging Face's Trainer with a model of one's own, rows, and a collator that pads to the longest of a batch."""
    items = Dataset.open(Path(job.folder) / "dataset").items
    taken: Taken = []
    real: list[int] = []

    def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        inputs, labels = (
            nn.utils.rnn.pad_sequence([torch.from_numpy(row[name]) for row in rows], batch_first=True)
            for name in ("input_ids", "labels")
        )
        real.append(int((labels > 0).sum()))
        negatives = torch.randint(1, items + 1, (job.negatives,))
        return {"input_ids": inputs, "attention_mask": (inputs > 0).long(), "labels": labels, "negatives": negatives}

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            taken.append((time.perf_counter(), time.process_time(), real[len(taken)]))

    arguments = TrainingArguments(
        output_dir=f"{job.folder}/trainer",
        per_device_train_batch_size=job.batch,
        max_steps=job.warm + job.steps,
        bf16=job.precision == "bf16",
        report_to=[],
        save_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    Trainer(Plain(job, items), arguments, train_dataset=Rows(job), data_collator=collate, callbacks=[Watch()]).train()
    return taken


CONTENDERS: dict[str, Callable[[Job], Taken]] = {"ours": ours, "trainer": trainer}


def main() -> None:
    name, job = sys.argv[1], Job(**json.loads(Path(sys.argv[2]).read_text()))
    torch.set_num_threads(job.threads)
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries say of themselves is not the result
    taken = np.array(CONTENDERS[name](job)[job.warm - 1 :])
    steps = np.column_stack([np.diff(taken[:, :2], axis=0), taken[1:, 2]])
    os.write(out, json.dumps(steps.tolist()).encode())


if __name__ == "__main__":
    main()
