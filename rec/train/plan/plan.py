"""A run on a machine, before it is started: what it takes under each strategy, and what that says."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from rec.config.tree import Run
from rec.data.feed import check_batches
from rec.train.plan import memory
from rec.train.plan.inventory import count
from rec.train.plan.memory import Memory, Step
from rec.train.plan.rehearsal import Flops, Rehearsal, Stage
from rec.train.plan.work import Work
from rec.train.strategies import Name, refusal

ROOM = 0.9
"""Share of a device's memory that tensors may fill: the rest is for its driver, the exchange, and fragmentation."""
UTILISATION = 0.4
"""Share of the peak speed that training reaches: assumed."""
INSIDE, BETWEEN = 300e9, 40e9
"""Bytes a second that a rank sends to others on its machine, and to other machines: assumed."""
SIMPLEST_FIRST: tuple[Name, ...] = ("ddp", "zero1", "zero2", "fsdp2", "zero3")


@dataclass(frozen=True)
class Machine:
    """What a run would be started on."""

    nodes: int
    gpus: int
    """Of each node; one process each."""
    memory: float
    """Bytes of each."""
    speed: float
    """Peak floating-point operations a second of each, at the precision of the run."""

    @property
    def ranks(self) -> int:
        return self.nodes * self.gpus


class Plan:
    """What a run takes on a machine.

    Args:
        run: what is to be trained.
        work: of an epoch.
        machine: where.
        tell: told what is done next, each of which may take a minute of a large model.

    Raises:
        ConfigError: if the global batch is not whole micro-batches on every rank, or the model cannot be built.
    """

    def __init__(
        self, run: Run, work: Work, machine: Machine, tell: Callable[[str], object] = lambda text: None
    ) -> None:
        check_batches(run.data, machine.ranks)
        self.run, self.work, self.machine = run, work, machine
        stage = Stage(run, work.users, work.items, work.graph, machine.ranks)
        self.inventory = count(stage.model)
        tell(f"rehearsing a training step of {self.inventory.whole.all / 1e6:,.0f} million parameters, without data")
        self.rehearsal: Rehearsal = stage.rehearse(work.longest)
        tell(f"rehearsing an evaluation of {run.eval.at_once} histories")
        self.evaluation = stage.evaluation(work.longest)

    @property
    def strategies(self) -> tuple[Name, ...]:
        """Those that a launch of so many processes can choose from, the simplest first."""
        names = ("single",) if self.machine.ranks == 1 else SIMPLEST_FIRST
        return tuple(name for name in names if not refusal(name, self.run))

    @cached_property
    def flops(self) -> Flops:
        """Floating-point operations of an epoch, over all ranks."""
        return self.work.flops(self.rehearsal, user_token=self.run.model.user_token)

    @property
    def steps_of_epoch(self) -> float:
        return self.work.windows / self.run.data.global_batch

    @property
    def flops_of_step(self) -> float:
        """Floating-point operations of a step, over all ranks: the mean over an epoch."""
        return (self.flops.backbone + self.flops.attention + self.flops.loss) / self.steps_of_epoch

    def accumulated(self, micro_batch: int) -> int:
        """Micro-batches that a rank goes through before an update."""
        return self.run.data.global_batch // (micro_batch * self.machine.ranks)

    def memory(self, strategy: Name, micro_batch: int | None = None) -> Memory:
        """Bytes of a rank, with the run's micro-batch or another."""
        windows = micro_batch or self.run.data.micro_batch
        step = Step(self.rehearsal.of(windows), self.accumulated(windows), self.evaluation)
        return memory.memory(strategy, self.inventory, step, self.machine.ranks)

    def fits(self, strategy: Name, micro_batch: int | None = None) -> bool:
        return self.memory(strategy, micro_batch).peak <= ROOM * self.machine.memory

    def largest_micro_batch(self, strategy: Name) -> int:
        """The largest `data.micro_batch` that fits and that the global batch allows; 0 where none fits."""
        most = self.run.data.global_batch // self.machine.ranks
        sizes = [size for size in range(1, most + 1) if most % size == 0]
        return max((size for size in sizes if self.fits(strategy, size)), default=0)

    def exchanged(self, strategy: Name) -> float:
        """Bytes that a rank sends in a step."""
        windows = self.run.data.micro_batch
        accumulated = self.accumulated(windows)
        rows = accumulated * self.rehearsal.of(windows).sent
        return rows + memory.exchanged(strategy, self.inventory, self.machine.ranks, accumulated)

    @property
    def seconds_computing(self) -> float:
        """A step, if nothing had to be sent."""
        return self.flops_of_step / (self.machine.ranks * UTILISATION * self.machine.speed)

    def seconds_sending(self, strategy: Name) -> float:
        """What a rank sends in a step, if nothing had to be computed."""
        return self.exchanged(strategy) / (BETWEEN if self.machine.nodes > 1 else INSIDE)

    def seconds_of_step(self, strategy: Name) -> float:
        """Computing, or sending, whichever takes longer: the two go on at the same time."""
        return max(self.seconds_computing, self.seconds_sending(strategy))

    def hours_of_epoch(self, strategy: Name) -> float:
        return self.seconds_of_step(strategy) * self.steps_of_epoch / 3600

    def hours_of_run(self, strategy: Name) -> float:
        return self.seconds_of_step(strategy) * self.run.train.steps / 3600
