"""Losses and gradients that are not numbers: the step is left out; after many in a row the run stops, or turns back."""

import math

import torch
from torch import Tensor

from rec.config.tree import Run
from rec.data.batch import Batch
from rec.data.feed import Feed
from rec.models.base import Loss
from rec.report import Report
from rec.train.keeper import Keeper
from rec.train.progress import Progress
from rec.train.strategies.engine import Engine

SHOWN = 10
"""Users that a message names."""


class NotFinite(ArithmeticError):
    """The loss, or its gradient, is not a number any more."""


def spoiling(total: Tensor) -> Tensor:
    """The same loss; if it is not finite, none of its gradients is, which need not be so by itself.

    So the norm of the gathered gradients alone says, alike on every rank, whether a step can be taken.
    """
    return total * (1 + 0 * total.detach())


def what_is_not_finite(
    engine: Engine, feed: Feed, batches: list[Batch], losses: list[Loss], values: dict[str, float]
) -> str:
    """Which of the step's values, and the users of the micro-batches concerned: of all where each loss is finite."""
    ill = {place for place, loss in enumerate(losses) if not torch.isfinite(loss.total)}
    ids = feed.view.dataset.user_ids
    mine = [(place in ill, ids[user]) for place, batch in enumerate(batches) for user in batch.user_B.tolist()]
    found = [suspect for some in engine.ranks.gather(mine) for suspect in some]
    users = list(dict.fromkeys([user for is_ill, user in found if is_ill] or [user for _, user in found]))
    more = f" and {len(users) - SHOWN} more" if len(users) > SHOWN else ""
    numbers = ", ".join(f"{name} {value:g}" for name, value in values.items())
    what = "gradient" if math.isfinite(values["loss"]) else "loss"
    return f"{what} is not finite ({numbers}), with the users {', '.join(users[:SHOWN])}{more}"


def leave_out(fault: str, run: Run, engine: Engine, keeper: Keeper, report: Report, progress: Progress) -> bool:
    """Reports a step that was left out; at the limit, goes back to parameters of before, and saves that.

    The data goes on after the bad steps. Parameters that are just those of now are no way back, so the checkpoint is
    one of a step before they last changed.

    Returns:
        Whether parameters were taken back.

    Raises:
        NotFinite: on every rank, at the limit, when there is no way back any more. Nothing is saved.
    """
    step, limit = progress.step, run.train.skip_limit
    report.say(f"step {step} is left out: its {fault}")
    if progress.row < limit:
        return False
    many = "1 step" if limit == 1 else f"{limit} steps in a row"
    changed = None
    if progress.rollbacks < run.train.rollbacks:
        changed = keeper.take_back(engine, before=progress.changed)
    if changed is None:
        raise NotFinite(
            f"{many} left out, up to step {step}, whose {fault}; nothing since the newest checkpoint is saved: lower "
            "optim.lr, or set train.rollbacks, and start again from there"
        )
    progress.roll_back(changed)
    report.say(f"{many} left out: going on after step {step} with the parameters of step {changed}")
    keeper.save(engine, progress, best=False)
    return True
