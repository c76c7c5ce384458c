"""Shapes in which one part takes most of the memory, and what they really take.

Run as a program, since a process that has lived through other tests has memory that it takes again without a trace:
each case in forks of this one, which is new. Prints {name of the case: bytes of the fullest rank} as JSON.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from rec.config.tree import Backbone, Data, Eval, LossWeights, Run, SoftToken, Train
from rec.data.batch import Sequences, scored_cells
from rec.models import build
from rec.ranks import Ranks
from rec.train import strategies
from rec.train.strategies import Name, Strategy
from tests.memory import peak_of
from tests.ranks import run_ranks

GPT2 = {"n_head": 4, "n_positions": 128, "vocab_size": 8}
MIXED = LossWeights(cross_entropy=1.0, sampled_softmax=0.5, gbce=0.3, bpr_context=0.2, bpr_user=0.1, l2=0.01)


def gpt2(width: int, layers: int, **options: Any) -> Backbone:
    return Backbone(config={**GPT2, "n_embd": width, "n_layer": layers}, **options)


def qwen3(width: int, layers: int, **options: Any) -> Backbone:
    shape = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 3 * width, "head_dim": width // 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 8, "max_position_embeddings": 128}
    return Backbone(architecture="qwen3", config={**shape, **heads}, **options)


@dataclasses.dataclass(frozen=True)
class Case:
    """A shape in which one part takes most of the memory."""

    model: SoftToken
    users: int = 100
    items: int = 1000
    windows: int = 4
    """Of a micro-batch."""
    length: int = 10
    accumulated: int = 1
    negatives: int = 0
    precision: str = "fp32"

    def run(self, ranks: int) -> Run:
        total = self.windows * self.accumulated * ranks
        data = Data(global_batch=total, micro_batch=self.windows, max_items=self.length, negatives=self.negatives)
        train = Train(precision=self.precision)  # type: ignore[arg-type]
        return Run(name="run", dataset=Path("none"), model=self.model, data=data, train=train, eval=Eval(block=1))

    def batch(self) -> Sequences:
        generator = torch.Generator().manual_seed(0)

        def rows(*shape: int) -> torch.Tensor:
            return torch.randint(1, min(self.users, self.items), shape, generator=generator)

        n, t, k = self.windows, self.length, self.negatives
        targets_BT = rows(n, t)
        return Sequences(
            user_B=rows(n),
            items_BT=rows(n, t),
            times_BT=rows(n, t),
            targets_BT=targets_BT,
            first_B=rows(n) * 0,
            negatives_BK=rows(n, k),
            log_q_BK=torch.zeros(n, k),
            key_B=rows(n),
            step_users_S=rows(n),
            step_key=rows(1)[0],
            scored_N=scored_cells(torch.zeros(n, dtype=torch.int64), targets_BT),
        )


TABLES = Case(SoftToken(dim=64, backbone=gpt2(32, 1)), users=200_000, items=100_000)
LAYERS = Case(SoftToken(dim=64, backbone=gpt2(512, 12)))
CASES = {
    "tables": TABLES,
    "layers": LAYERS,
    "activations": Case(SoftToken(dim=32, backbone=gpt2(192, 4)), windows=32, length=64),
    "activations with dropout in bf16": Case(
        SoftToken(dim=32, dropout=0.1, backbone=qwen3(96, 5)), windows=56, length=64, precision="bf16"
    ),
    "activations computed again": Case(
        SoftToken(dim=32, backbone=qwen3(384, 4, gradient_checkpointing=True)), windows=16, length=64
    ),
    "loss head": Case(SoftToken(dim=32, backbone=gpt2(32, 1)), items=5_000, windows=320, length=64),
    "loss over negatives": Case(
        SoftToken(dim=32, backbone=gpt2(32, 1), loss=MIXED), items=2000, windows=32, length=64, negatives=1024
    ),
}

BUCKET = 2_000_000
DEALT: list[tuple[Name, int]] = [("ddp", 2), ("zero2", 2), ("zero3", 2), ("fsdp2", 1)]
"""Strategies, and micro-batches of a step."""


SHARDS = dataclasses.replace(TABLES, model=dataclasses.replace(TABLES.model, shard_tables=True))
SHARDED: list[tuple[Name, int]] = [("ddp", 1), ("ddp", 2), ("fsdp2", 2)]


def dealt(accumulated: int) -> Case:
    return Case(SoftToken(dim=64, backbone=gpt2(384, 10)), accumulated=accumulated)


def smaller(case: Case) -> Case:
    model = dataclasses.replace(case.model, backbone=gpt2(32, 1))
    return dataclasses.replace(case, model=model, users=90, items=100, windows=2)


def measured(case: Case, strategy: Name, ranks: int) -> list[int]:
    """Bytes of each rank while it builds its model and takes its steps, less what a small model takes."""

    def train(case: Case, group: Ranks) -> None:
        run = case.run(ranks)
        buckets = dict.fromkeys(("reduce_bucket_size", "stage3_prefetch_bucket_size"), BUCKET)
        settings = {"zero_optimization": {"stage": int(strategy[-1]), **buckets}} if strategy.startswith("zero") else {}
        engine = strategies.build(Strategy(strategy, deepspeed=settings), run, group)
        engine.prepare(build(run.model, users=case.users, items=case.items, exchange=group), run.optim)
        for _ in range(2 if ranks == 1 else 3):  # DDP lays its buckets out anew in the second
            for place in range(case.accumulated):
                with engine.accumulate(last=place == case.accumulated - 1):
                    engine.backward(engine.model(case.batch()).total / 100)
            engine.update(1.0)

    def rank(group: Ranks) -> int:
        train(smaller(case), group)  # what libraries take once and for all
        return peak_of(lambda: train(case, group))

    return run_ranks(rank, ranks)


def main() -> None:
    build(smaller(TABLES).model, users=90, items=100)  # imports what every fork would import, in seconds
    found = {name: max(measured(case, "single", 1)) for name, case in CASES.items()}
    for name, accumulated in SHARDED:
        case = dataclasses.replace(SHARDS, accumulated=accumulated)
        found[f"shards-{name}-{accumulated}"] = max(measured(case, name, 2))
    found |= {f"{name}-{accumulated}": max(measured(dealt(accumulated), name, 2)) for name, accumulated in DEALT}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
