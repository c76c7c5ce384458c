"""The loop."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rec.config.tree import Run
from rec.data.feed import Feed, Step
from rec.eval.interrupt import Interrupted
from rec.models.base import Loss
from rec.report import Report
from rec.train.keeper import Keeper
from rec.train.nonfinite import leave_out, spoiling, what_is_not_finite
from rec.train.numbers import Pending
from rec.train.optim import rate_at, set_rates
from rec.train.profile import Profiler, part
from rec.train.progress import Progress
from rec.train.stop import Stop
from rec.train.strategies.engine import Engine

Validate = Callable[[], Mapping[str, float]]


class Passed(NamedTuple):
    """What was passed through the model in a step, and its losses; the gradients are in the engine."""

    data: Step
    losses: list[Loss]


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

    A step's numbers are read when the passes of the next one are queued, and before its update is: whatever they ask
    for happens to the parameters of that step, and no device waits for it (decision 0015).
    """
    steps, stopping = run.train.steps, False
    ahead: Passed | None = None
    try:
        if progress.owed:
            keeper.save(engine, progress, best=judge(run, validate, report, progress))
        while progress.step < steps and not progress.patience_is_out(run.eval):
            share, done = rate_at(progress.step, run.optim, steps), progress.step + 1
            set_rates(engine.optimizer, share)
            (data, losses), ahead = ahead or passes(engine, feed, progress.step, report), None
            asked = stop.asked or keeper.failed or report.failed
            pending = Pending(losses, data.targets, engine.ranks, asked=asked)
            with part("update"):
                norm = engine.update(run.optim.clip)
            pending.send(norm, engine.overflows)
            if engine.goes_ahead and not (stopping or done == steps or due_after(done, run)):
                ahead = passes(engine, feed, done, report)

            with part("waiting for numbers"):
                numbers = pending.read()
            progress.advance(taken=numbers.taken, overflow=numbers.overflow)
            report.advance(data.items)
            last = progress.step == steps
            if due(run.train.log_every, progress.step) or last:
                rate = {"lr": run.optim.lr * share, "skipped": progress.skipped}
                report.train(progress.step, {**numbers.values, **rate})
            progress.owed = due(run.eval.every, progress.step) or last
            if progress.row:
                fault = what_is_not_finite(engine, feed, data.batches, losses, numbers.values)
                if leave_out(fault, run, engine, keeper, report, progress):
                    engine.optimizer.zero_grad()  # of passes ahead, through parameters that are gone
                    ahead = None
            stopping |= numbers.stopping
            if stopping and ahead is None:  # else the step that is begun comes first
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


def passes(engine: Engine, feed: Feed, step: int, report: Report) -> Passed:
    """Forward and backward through this rank's micro-batches of a step."""
    begun = time.perf_counter()
    with part("waiting for data"):
        data = feed.step(step)
    report.waited(time.perf_counter() - begun)
    losses: list[Loss] = []
    for place, batch in enumerate(data.batches):
        with engine.accumulate(last=place == len(data.batches) - 1):
            with part("forward"):
                loss: Loss = engine.model(batch.to(engine.device))
            with part("backward"):
                engine.backward(spoiling(loss.total) / data.targets)
        losses.append(Loss(loss.total.detach(), loss.parts))
    return Passed(data, losses)


def judge(run: Run, validate: Validate, report: Report, progress: Progress) -> bool:
    """Evaluates; whether it is the best so far."""
    with part("evaluation"):
        metrics = validate()
    best = progress.judge(metrics[run.eval.select])
    report.evaluation(progress.step, metrics, best=best)
    return best


def due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0


def due_after(step: int, run: Run) -> bool:
    """Whether something looks at the parameters of this step: they may not be ahead of it."""
    return due(run.eval.every, step) or due(run.train.save_every, step)
