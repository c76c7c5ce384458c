"""A plan as people read it: what there is to train, one table of strategies, and a sentence for each finding."""

from collections.abc import Iterator

from rec.config.tree import SoftToken
from rec.report import many
from rec.train.plan.memory import parts
from rec.train.plan.plan import BETWEEN, INSIDE, ROOM, UTILISATION, Plan


def page(plan: Plan) -> str:
    """The whole plan as text."""
    return "\n\n".join("\n".join(block) for block in (_head(plan), _parameters(plan), _table(plan), _findings(plan)))


def _head(plan: Plan) -> list[str]:
    run, work, machine = plan.run, plan.work, plan.machine
    accumulated = plan.accumulated(run.data.micro_batch)
    epochs = run.train.steps / plan.steps_of_epoch
    flops = plan.flops
    share = flops.loss / (flops.backbone + flops.attention + flops.loss)
    return [
        f"{run.name}: {work.users:,} users, {work.items:,} items, {work.windows:,} windows of at most {work.longest}",
        f"{many(machine.ranks, 'process')} on {many(machine.nodes, 'machine')}, {_size(machine.memory)} each, "
        f"{run.train.precision}",
        f"a step: {run.data.global_batch} windows = {many(machine.ranks, 'process')} x "
        f"{many(accumulated, 'micro-batch')} of {run.data.micro_batch}; "
        f"{_flops(plan.flops_of_step)}, {share:.0%} of it in the loss",
        f"an epoch: {plan.steps_of_epoch:,.1f} steps; the run: {run.train.steps:,} steps = {epochs:,.1f} epochs",
    ]


def _parameters(plan: Plan) -> list[str]:
    rows = [*plan.inventory.parts.items(), ("all", plan.inventory.whole)]
    lines = [f"{name:<10} {count.all:>16,} {count.trained:>16,}" for name, count in rows]
    return [f"{'part':<10} {'parameters':>16} {'trained':>16}", *lines]


def _table(plan: Plan) -> list[str]:
    columns = [name.replace("_", " ") for name in parts(plan.memory(plan.strategies[0]))]
    widths = [max(9, len(name)) for name in columns]
    names = " ".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True))
    lines = [f"{'GB a process':<12} {names}  fits  {'sent/step':>9} {'epoch':>9} {'run':>9}"]
    for strategy in plan.strategies:
        values = parts(plan.memory(strategy)).values()
        sizes = " ".join(f"{value / 1e9:>{width}.2f}" for value, width in zip(values, widths, strict=True))
        fits = "yes" if plan.fits(strategy) else "no"
        lines.append(
            f"{strategy:<12} {sizes}  {fits:<4}  {plan.exchanged(strategy) / 1e9:>9.2f} "
            f"{_time(plan.hours_of_epoch(strategy)):>9} {_time(plan.hours_of_run(strategy)):>9}"
        )
    return lines


def _findings(plan: Plan) -> list[str]:
    return [f"- {sentence}" for sentence in (*_fitting(plan), *_warnings(plan), *_assumptions(plan))]


def _fitting(plan: Plan) -> Iterator[str]:
    fitting = [strategy for strategy in plan.strategies if plan.fits(strategy)]
    if fitting:
        yield f"{fitting[0]} is the simplest strategy that fits."
    else:
        yield f"No strategy fits with data.micro_batch={plan.run.data.micro_batch}."
    largest = {strategy: plan.largest_micro_batch(strategy) for strategy in fitting[:1] or plan.strategies}
    for strategy, windows in largest.items():
        if windows:
            peak = _size(plan.memory(strategy, windows).peak)
            yield f"The largest data.micro_batch that fits under {strategy} is {windows} ({peak})."
    if not any(largest.values()):
        yield "Not even one window at a time fits: take a smaller backbone, more memory, or more processes."


def _warnings(plan: Plan) -> Iterator[str]:
    first = plan.memory(plan.strategies[0])
    model = plan.run.model
    recomputes = not isinstance(model, SoftToken) or model.backbone.gradient_checkpointing
    if not recomputes and not any(map(plan.fits, plan.strategies)):
        yield "model.backbone.gradient_checkpointing=true keeps less for the backward pass, for a third more time."
    if first.evaluation > first.activations + first.loss_head + first.gradients:
        yield f"Evaluation is the fullest moment: eval.block below {plan.run.eval.at_once} takes less."
    waiting = [strategy for strategy in plan.strategies if plan.seconds_sending(strategy) > plan.seconds_computing]
    if waiting:
        names = ", ".join(waiting)
        yield f"Sending takes longer than computing under {names}; a larger data.global_batch sends less often."


def _assumptions(plan: Plan) -> Iterator[str]:
    link = BETWEEN if plan.machine.nodes > 1 else INSIDE
    yield "Each column stands at its own fullest, which is not the same moment for all: the peak is below their sum."
    yield f"fits: the peak is at most {ROOM:.0%} of the memory; the rest is for driver, exchange and fragmentation."
    sending = f", and {link / 1e9:.0f} GB/s sent by each process at the same time" if plan.machine.ranks > 1 else ""
    yield (
        f"Hours are assumed, not measured: {UTILISATION:.0%} of {_flops(plan.machine.speed)}/s{sending}; "
        "evaluation and saving come on top."
    )


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def _flops(count: float) -> str:
    for unit, scale in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count / 1e6:,.1f} MFLOP"


def _time(hours: float) -> str:
    for unit, scale in (("h", 1.0), ("min", 60.0)):
        if hours * scale >= 1:
            return f"{hours * scale:,.1f} {unit}"
    return f"{hours * 3600:,.1f} s"
