"""Where a run stands: what a checkpoint remembers besides tensors."""

from dataclasses import dataclass

from rec.config.tree import Eval


@dataclass
class Progress:
    step: int = 0
    """Optimizer steps done."""
    best: float | None = None
    """Best value of the selecting metric so far."""
    best_step: int = 0
    """Steps done when it was reached."""
    waited: int = 0
    """Evaluations since then."""
    owed: bool = False
    """Whether an evaluation was due when the run was stopped; it comes first when the run goes on."""
    changed: int = 0
    """Step that last changed the parameters: less than `step` after steps that were left out, or taken back."""
    skipped: int = 0
    """Steps left out so far."""
    row: int = 0
    """Steps left out in a row, up to now."""
    rollbacks: int = 0
    """Times that parameters were taken back."""

    def advance(self, *, taken: bool, overflow: bool = False) -> None:
        """Counts a step, which was taken or left out: the latter in a row, unless it was an overflow of fp16's scale.

        A finite loss under such a scale ends a row, too: there are only so many until the scale is too small for it.
        """
        self.step += 1
        self.skipped += not taken
        self.row = 0 if taken or overflow else self.row + 1
        if taken:
            self.changed = self.step

    def roll_back(self, changed: int) -> None:
        """Takes note of parameters taken back to what they were when step `changed` had changed them."""
        self.changed, self.row = changed, 0
        self.rollbacks += 1

    def judge(self, value: float) -> bool:
        """Takes note of an evaluation; whether it is the best so far."""
        self.owed = False
        if self.best is None or value > self.best:
            self.best, self.best_step, self.waited = value, self.step, 0
            return True
        self.waited += 1
        return False

    def patience_is_out(self, config: Eval) -> bool:
        """Whether the validation metric has not improved for as long as the configuration waits."""
        return 0 < config.patience <= self.waited
