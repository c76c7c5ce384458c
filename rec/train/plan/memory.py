"""Bytes of one rank under each strategy, from what a step keeps and how the strategy deals out the rest.

Parameters, gradients and moments are fp32 under every strategy; `train.precision` is autocast.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

from rec.train.plan.inventory import Count, Inventory
from rec.train.plan.rehearsal import Rehearsal
from rec.train.strategies import Name
from rec.train.strategies.settings import BUCKET

FP32 = 4
"""Bytes of a number."""
REUSE = 1_000_000_000
"""ZeRO-3 keeps a gathered parameter that is needed again before so many others: DeepSpeed's own default."""


class Step(NamedTuple):
    """What a rank does between two updates."""

    rehearsal: Rehearsal
    """Of one micro-batch, of the size asked for."""
    accumulated: int
    """Micro-batches."""
    evaluation: float
    """Bytes at the fullest moment of evaluation."""


@dataclass(frozen=True)
class Memory:
    """Bytes of a rank. Each part is given at its own fullest; not all are so at once, so `peak` is below their sum."""

    weights: float
    """Parameters but those of the tables."""
    gradients: float
    """Of the same."""
    optimizer: float
    """Moments, and masters where the strategy keeps them apart; of the same."""
    tables: float
    """Parameters, gradients and moments of the tables."""
    activations: float
    """What the backbone keeps for its backward pass, and works with."""
    loss_head: float
    """What the loss adds to that."""
    buffers: float
    """Of the engine: gathered parameters, gradients on their way."""
    evaluation: float
    """What scoring a block of queries takes, when activations and gradients are gone."""
    peak: float
    """The fullest moment of all."""


class _State(NamedTuple):
    """Bytes of each number that is kept over a whole step."""

    weight: float
    gradient: float
    optimizer: float


def memory(strategy: Name, inventory: Inventory, step: Step, ranks: int) -> Memory:
    """Bytes of one of `ranks` ranks. Before anything is dealt out, a rank has all parameters but others' shards."""
    own, inventory = inventory.own, inventory.rest
    mine = FP32 * (own.all + 2 * own.trained)
    state = _state(strategy, ranks, several=step.accumulated > 1)
    whole, tables = inventory.whole, inventory.parts["tables"]
    rest = Count(whole.all - tables.all, whole.trained - tables.trained)
    fixed = state.weight * whole.all + state.optimizer * whole.trained
    buffers = _buffers(strategy, inventory)
    return Memory(
        weights=state.weight * rest.all,
        gradients=state.gradient * rest.trained,
        optimizer=state.optimizer * rest.trained,
        tables=state.weight * tables.all
        + (state.gradient + state.optimizer) * tables.trained
        + (mine + FP32 * own.trained),
        activations=step.rehearsal.activations,
        loss_head=step.rehearsal.loss_head,
        buffers=buffers,
        evaluation=step.evaluation,
        peak=max(FP32 * (whole.all + own.all), mine + fixed + max(_moments(strategy, inventory, own, step, ranks))),
    )


def _state(strategy: Name, ranks: int, *, several: bool) -> _State:
    """How parameters, gradients and moments are dealt out; `several` micro-batches make a step."""
    whole, part = float(FP32), FP32 / ranks
    match strategy:
        case "single":
            return _State(whole, whole, 2 * whole)
        case "ddp":  # the buckets, and beside them what several micro-batches add up before they are exchanged
            return _State(whole, whole * (1 + several), 2 * whole)
        case "zero1":  # a rank's share of the reduced gradients stands beside the whole ones
            return _State(whole, whole + part, 3 * part)
        case "zero2":  # the share, what earlier micro-batches added up, and one vector of it for the update
            return _State(whole, (2 + several) * part, 3 * part)
        case "zero3":
            return _State(part, 2 * part, 3 * part)
        case "fsdp2":  # gradients are dealt out after the last micro-batch of a step only
            return _State(part, whole if several else part, 2 * part)


def _buffers(strategy: Name, inventory: Inventory) -> float:
    """Bytes of gathered parameters, and of gradients on their way."""
    root, block = inventory.root, inventory.block
    match strategy:
        case "zero1" | "zero2":
            return FP32 * BUCKET
        case "zero3":
            return _gathered(strategy, inventory) + FP32 * 2 * BUCKET + _ahead(inventory)
        case "fsdp2":
            return _gathered(strategy, inventory) + FP32 * max(2 * block.trained, root.trained)
        case _:
            return 0


def _gathered(strategy: Name, inventory: Inventory) -> float:
    """Bytes of parameters that a rank has whole at a time, though it keeps a share of them only."""
    whole, root, block = inventory.whole, inventory.root, inventory.block
    if strategy == "zero3":
        return FP32 * min(whole.all, root.all + max(2 * block.all, REUSE))
    if strategy == "fsdp2":
        return FP32 * (root.all + 3 * block.all)  # a block in use, the next, and that one on its way
    return 0


def _ahead(inventory: Inventory) -> float:
    """Bytes of parameters that ZeRO-3 has gathered, but not yet put in their place."""
    return FP32 * min(BUCKET, inventory.whole.all)


def _moments(strategy: Name, inventory: Inventory, own: Count, step: Step, ranks: int) -> Iterator[float]:
    """Bytes, beyond weights and optimizer, at the moments that may be the fullest: passes, update, evaluation."""
    several, rehearsal = step.accumulated > 1, step.rehearsal
    gradients, part = FP32 * inventory.whole.trained, FP32 * inventory.whole.trained / ranks
    gathered, bucket, mine = _gathered(strategy, inventory), FP32 * BUCKET, FP32 * own.trained
    match strategy:
        case "single":
            yield (gradients + rehearsal.peak(root=0, layers=0)) if several else rehearsal.peak(root=1, layers=1)
            yield gradients
            yield step.evaluation
        case "ddp":
            of_root = 0 if several or not mine else own.trained / (own.trained + inventory.root.trained)
            yield gradients * (1 + several) + mine * several + rehearsal.peak(root=of_root, layers=0)
            yield gradients + max(mine, step.evaluation)
        case "zero1":
            yield bucket + (
                (gradients + rehearsal.peak(root=0, layers=0)) if several else rehearsal.peak(root=1, layers=1)
            )
            yield bucket + gradients + part
            yield step.evaluation
        case "zero2":
            yield bucket + part * (1 + several) + rehearsal.peak(root=0, layers=0)
            yield part * (2 + several) + bucket * several
            yield step.evaluation
        case "zero3":
            held = part + gathered + 2 * bucket
            yield held + _ahead(inventory) + rehearsal.forward
            yield held + FP32 * min(BUCKET, inventory.whole.trained) + rehearsal.peak(root=0, layers=0)
            yield part + held - gathered
            yield held + _ahead(inventory) + step.evaluation
        case "fsdp2":
            root, leaving = FP32 * inventory.root.trained, FP32 * 2 * inventory.block.trained
            yield gathered + FP32 * inventory.root.all  # on its way
            if several:
                yield gathered + leaving + gradients + mine + rehearsal.peak(root=0, layers=0)
            else:
                yield gathered + leaving + rehearsal.peak(root=1, layers=1 / ranks)
            yield (gradients if several else part + root) + root + part + mine
            yield gathered + step.evaluation


def exchanged(strategy: Name, inventory: Inventory, ranks: int, accumulated: int) -> float:
    """Bytes that a rank sends in a step, for what the strategy places.

    An all-reduce sends each number twice, a gather or a scatter once, all but the rank's own share.
    """
    inventory = inventory.rest
    share = FP32 * (ranks - 1) / ranks
    weights, gradients = share * inventory.whole.all, share * inventory.whole.trained
    match strategy:
        case "ddp":
            return 2 * gradients
        case "zero1":
            return 3 * gradients
        case "zero2":
            return (2 * accumulated + 1) * gradients
        case "zero3":
            again = inventory.whole.all > inventory.root.all + REUSE  # else nothing is freed between the two passes
            return accumulated * ((1 + again) * weights + gradients)
        case "fsdp2":
            return accumulated * (2 * weights - share * inventory.root.all) + gradients
        case _:
            return 0


def parts(memory: Memory) -> dict[str, float]:
    """The columns of the table, in order."""
    return {field.name: getattr(memory, field.name) for field in fields(memory)}
