"""How a run is evaluated; see `rec.config.tree`."""

from dataclasses import dataclass

from rec.config.parts import require


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Evaluation on the validation split while training."""

    every: int = 0
    """Optimizer steps between evaluations; 0 evaluates at the last step only."""
    select: str = "ndcg@10"
    """Validation metric, higher is better, that chooses the best checkpoint and stops early."""
    patience: int = 0
    """Evaluations without a new best after which training ends; 0 never ends early."""
    metrics: tuple[str, ...] = ("ndcg@10", "recall@10")
    """Metrics logged at each evaluation, as name@cutoff under full ranking."""
    filter_seen: bool = True
    """Whether items of the history are taken out of the ranking."""
    block: int = 256
    """Queries scored at once; changes memory and speed, never the result."""
    users: int = 0
    """Users that are ranked at each evaluation, drawn once by the run's seed; 0 ranks all."""

    def __post_init__(self) -> None:
        require(self.every >= 0, f"eval.every is {self.every}; choose 0 or more steps")
        require(self.block > 0, f"eval.block is {self.block}; choose a positive number")
        require(self.patience >= 0, f"eval.patience is {self.patience}; choose 0 or more")
        require(self.users >= 0, f"eval.users is {self.users}; choose 0 (all) or a number of users")

    @property
    def at_once(self) -> int:
        """Queries of a block while training."""
        return min(self.block, self.users or self.block)
