"""The loop."""

import math
import time
from collections.abc import Callable, Mapping

import torch

from rec.config.tree import Run
from rec.data.batch import Sequences
from rec.data.feed import Feed
from rec.models.base import Loss
from rec.report import Report
from rec.train.engine import Engine
from rec.train.optim import rate_at, set_rates
from rec.train.progress import Progress
from rec.train.stop import Stop

Validate = Callable[[], Mapping[str, float]]
Save = Callable[[bool], None]


class NotFinite(ArithmeticError):
    """The loss, or its gradient, is not a number any more."""


def train(
    run: Run, engine: Engine, feed: Feed, validate: Validate, save: Save, report: Report, stop: Stop, progress: Progress
) -> bool:
    """Goes on from `progress` to the last step; whether it got there, and was not stopped.

    Everything that depends on the step is a function of it: the data, the rate, the randomness. Losses are summed and
    divided by the scored positions of the global batch, so the curve depends on neither micro-batches nor ranks.
    """
    steps = run.train.steps
    if progress.owed:
        save(judge(run, validate, report, progress))
    while progress.step < steps and not progress.patience_is_out(run.eval):
        share = rate_at(progress.step, run.optim, steps)
        set_rates(engine.optimizer, share)
        begun = time.perf_counter()
        data = feed.step(progress.step)
        report.waited(time.perf_counter() - begun)

        losses: list[Loss] = []
        for place, batch in enumerate(data.batches):
            with engine.accumulate(last=place == len(data.batches) - 1):
                loss = engine.model(batch.to(engine.device))
                engine.backward(loss.total / data.targets)
            losses.append(loss)
        sums, stopping = over_ranks(engine, losses, stop.asked)
        require_finite(engine, feed, data.batches, losses, sums, progress.step)
        norm = engine.update(run.optim.clip)
        require_finite_norm(norm, progress.step)
        progress.step += 1
        report.advance(data.items)

        last = progress.step == steps
        if due(run.train.log_every, progress.step) or last:
            values = {name: value / data.targets for name, value in sums.items()}
            report.train(progress.step, {**values, "grad_norm": norm, "lr": run.optim.lr * share})
        progress.owed = due(run.eval.every, progress.step) or last
        best = progress.owed and not stopping and judge(run, validate, report, progress)
        last = last or progress.patience_is_out(run.eval)
        if due(run.train.save_every, progress.step) or best or last or stopping:
            save(best)
        if stopping:
            return False
    return True


def judge(run: Run, validate: Validate, report: Report, progress: Progress) -> bool:
    """Evaluates; whether it is the best so far."""
    metrics = validate()
    best = progress.judge(metrics[run.eval.select])
    report.evaluation(progress.step, metrics, best=best)
    return best


def due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0


def over_ranks(engine: Engine, losses: list[Loss], asked: bool) -> tuple[dict[str, float], bool]:
    """Loss and parts summed over the step, and whether any rank was asked to stop: one exchange a step."""
    names = list(losses[0].parts)
    rows = [torch.stack([loss.total.detach(), *loss.parts.values()]) for loss in losses]
    summed = torch.cat([torch.stack(rows).sum(0), rows[0].new_tensor([float(asked)])])
    total, *parts, stops = engine.ranks.sum(summed).tolist()
    return {"loss": total, **dict(zip(names, parts, strict=True))}, stops > 0


def require_finite(
    engine: Engine, feed: Feed, batches: list[Sequences], losses: list[Loss], sums: dict[str, float], step: int
) -> None:
    """Raises NotFinite on every rank, before the step is taken and anything is saved.

    It names the step, the parts, and the users of the micro-batches where it happened.
    """
    if all(map(math.isfinite, sums.values())):
        return
    ids = feed.dataset.user_ids
    mine = [
        ids[user]
        for batch, loss in zip(batches, losses, strict=True)
        if not torch.isfinite(loss.total)
        for user in batch.user_B.tolist()
    ]
    users = [user for some in engine.ranks.gather(mine) for user in some]
    parts = ", ".join(f"{name} {value}" for name, value in sums.items())
    more = f" and {len(users) - 10} more" if len(users) > 10 else ""
    raise NotFinite(
        f"the loss of step {step + 1} is not finite ({parts}), with the users {', '.join(users[:10])}{more}; "
        "nothing of this step was saved: lower optim.lr, or start again from the newest checkpoint"
    )


def require_finite_norm(norm: float, step: int) -> None:
    """Raises NotFinite on every rank if a finite loss has a gradient that is not finite."""
    if not math.isfinite(norm):
        raise NotFinite(
            f"the gradient norm of step {step + 1} is {norm}, though its loss is finite; nothing of this step was "
            "saved: lower optim.lr, or start again from the newest checkpoint"
        )
