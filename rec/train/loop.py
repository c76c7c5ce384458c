"""The loop."""

import math
import time
from collections.abc import Callable, Mapping

import torch

from rec.config.tree import Run
from rec.data.feed import Feed, Step
from rec.eval.interrupt import Interrupted
from rec.models.base import Loss
from rec.report import Report
from rec.train.keeper import Keeper
from rec.train.nonfinite import leave_out, spoiling, what_is_not_finite
from rec.train.optim import rate_at, set_rates
from rec.train.profile import Profiler, part
from rec.train.progress import Progress
from rec.train.stop import Stop
from rec.train.strategies.engine import Engine

Validate = Callable[[], Mapping[str, float]]


def train(
    run: Run,
    engine: Engine,
    feed: Feed,
    validate: Validate,
    keeper: Keeper,
    report: Report,
    stop: Stop,
    progress: Progress,
    profiler: Profiler | None = None,
) -> bool:
    """Goes on from `progress` to the last step; whether it got there, and was not stopped.

    Everything that depends on the step is a function of it: the data, the rate, the randomness. Losses are summed and
    divided by the scored positions of the global batch, so the curve depends on neither micro-batches nor ranks.
    """
    steps = run.train.steps
    try:
        if progress.owed:
            keeper.save(engine, progress, best=judge(run, validate, report, progress))
        while progress.step < steps and not progress.patience_is_out(run.eval):
            share = rate_at(progress.step, run.optim, steps)
            set_rates(engine.optimizer, share)
            begun = time.perf_counter()
            with part("waiting for data"):
                data = feed.step(progress.step)
            report.waited(time.perf_counter() - begun)
            losses = passes(engine, data)
            sums, stopping = over_ranks(engine, losses, stop.asked or keeper.failed or report.failed)
            with part("update"):
                norm = engine.update(run.optim.clip)
            overflow = engine.overflows and math.isfinite(sums["loss"])
            progress.advance(taken=math.isfinite(norm), overflow=overflow)
            report.advance(data.items)

            last = progress.step == steps
            values = {**{name: value / data.targets for name, value in sums.items()}, "grad_norm": norm}
            if due(run.train.log_every, progress.step) or last:
                report.train(progress.step, {**values, "lr": run.optim.lr * share, "skipped": progress.skipped})
            progress.owed = due(run.eval.every, progress.step) or last
            if progress.row:
                fault = what_is_not_finite(engine, feed, data.batches, losses, values)
                leave_out(fault, run, engine, keeper, report, progress)
            if stopping:
                raise Interrupted
            best = progress.owed and judge(run, validate, report, progress)
            last = last or progress.patience_is_out(run.eval)
            if (due(run.train.save_every, progress.step) and not progress.row) or best or last:
                with part("saving"):
                    keeper.save(engine, progress, best=best)
            if profiler is not None:
                profiler.step()
    except Interrupted:  # at a step, or in an evaluation, which is owed then
        keeper.save(engine, progress, best=False)
        return False
    return True


def passes(engine: Engine, data: Step) -> list[Loss]:
    """Forward and backward through this rank's micro-batches of a step; their losses."""
    losses: list[Loss] = []
    for place, batch in enumerate(data.batches):
        with engine.accumulate(last=place == len(data.batches) - 1):
            with part("forward"):
                loss: Loss = engine.model(batch.to(engine.device))
            with part("backward"):
                engine.backward(spoiling(loss.total) / data.targets)
        losses.append(loss)
    return losses


def judge(run: Run, validate: Validate, report: Report, progress: Progress) -> bool:
    """Evaluates; whether it is the best so far."""
    with part("evaluation"):
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
    with part("exchange of losses"):
        total, *parts, stops = engine.ranks.sum(summed).tolist()
    return {"loss": total, **dict(zip(names, parts, strict=True))}, stops > 0
