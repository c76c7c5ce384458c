"""What `kindling train` says before its first step: what it waits for, and the arithmetic."""

import sys
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from rec.config.tree import Run
    from rec.data.dataset import Dataset
    from rec.data.feed import Feed
    from rec.models.base import Recommender
    from rec.ranks import Ranks

NOTHING_BEGUN = "stopped before the first step: nothing was begun, and nothing had to be saved"

BF16 = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
"""Names of torch for instructions of a processor, of which any one multiplies in bf16; the latter two are ARM's."""
EMULATED = (
    "this processor has no instructions for train.precision=bf16: products are emulated, and may take many times as "
    "long as in fp32"
)


def emulates(precision: str, device: "torch.device") -> bool:
    """Whether a run computes in a type that its processor knows only from others."""
    import torch

    known = torch.cpu.get_capabilities()
    return precision == "bf16" and device.type == "cpu" and not any(known.get(name) for name in BF16)


def tell(ranks: "Ranks", text: str) -> None:
    """A line for the person who waits, from the first rank."""
    if ranks.first:
        print(text, file=sys.stderr, flush=True)


def reading(run: "Run") -> str:
    """Before the dataset is looked through for what a step reads."""
    if run.model.kind == "graph_llm":
        return f"opening the tokenizer, and finding the documents in {run.dataset}"
    return f"cutting the histories of {run.dataset} into windows of {run.data.max_items} items"


def building(run: "Run", dataset: "Dataset", newest: Path | None) -> str:
    """Before memory is spent on the model, whose values come from the `newest` checkpoint, if there is one."""
    backbone = getattr(run.model, "backbone", None)
    on = f" on {backbone.source or backbone.architecture}" if backbone is not None else ""
    of = f", with the values of {newest}" if newest is not None else ""
    return f"building {run.model.kind}{on} for {dataset.users:,} users and {dataset.items:,} items{of}"


def arithmetic(run: "Run", strategy: str, model: "Recommender", feed: "Feed") -> str:
    """The arithmetic of a run, before its first step."""
    from rec.report import many

    shards, parameters = model.shards(), dict(model.named_parameters())
    sizes = {name: prod(shards[name].shape) if name in shards else one.numel() for name, one in parameters.items()}
    everything = sum(sizes.values())
    trained = sum(size for name, size in sizes.items() if parameters[name].requires_grad)
    dataset, windows, batch, world = feed.view.dataset, feed.windows, run.data.global_batch, feed.ranks.world
    accumulated = batch // (run.data.micro_batch * world)
    lines = [
        f"{run.name}: {dataset.users:,} users, {dataset.items:,} items, split {dataset.split_name}, "
        f"dataset {dataset.fingerprint[:12]}",
        f"{everything:,} parameters, {trained:,} trained; {windows:,} windows, {feed.targets:,} targets",
        f"a step of {many(batch, 'window')} = {many(accumulated, 'micro-batch')} of {run.data.micro_batch} on "
        f"{many(world, 'process')} ({strategy}); {many(run.train.steps, 'step')} = "
        f"{run.train.steps * batch / windows:.1f} epochs",
    ]
    return "\n".join(lines)
