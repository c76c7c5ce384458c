"""What a step comes to: its losses, its norm, and whether a rank was asked to stop; read when the device is there.

Whoever asks a device for a number waits until all that was queued before is done, and the device then waits for more.
So a step's numbers are set off to the host when they are queued, and read when the next passes are queued, too.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rec.models.base import Loss
from rec.ranks import Ranks
from rec.train.profile import part


class Numbers(NamedTuple):
    """Of a step, alike on every rank."""

    values: dict[str, float]
    """Mean loss and parts over the scored positions, and the norm of the gradients."""
    overflow: bool
    """Whether gradients that are not finite are the work of fp16's scale."""
    stopping: bool
    """Whether a rank was asked to stop."""

    @property
    def taken(self) -> bool:
        """Whether the step has changed the parameters."""
        return math.isfinite(self.values["grad_norm"])


class Pending:
    """The numbers of a step that is queued, on their way to the host."""

    def __init__(self, losses: list[Loss], targets: int, ranks: Ranks, *, asked: bool) -> None:
        """Sums over the ranks: one exchange a step.

        Args:
            losses: of this rank's micro-batches.
            targets: scored positions of the global batch.
            ranks: who take the step.
            asked: whether this rank was asked to stop.
        """
        self.names, self.targets = ["loss", *losses[0].parts], targets
        rows = [torch.stack([loss.total.detach(), *loss.parts.values()]) for loss in losses]
        own = torch.cat([torch.stack(rows).sum(0), torch.full_like(rows[0][:1], float(asked))])
        with part("exchange of losses"):
            self.sums = ranks.sum(own)

    def send(self, norm: Tensor, overflows: Tensor) -> None:
        """Adds the two () tensors of an update, and lets everything go to the host. Nobody waits."""
        numbers = torch.cat([self.sums, torch.stack([norm, overflows]).to(self.sums)])
        self.arrived = None if numbers.device.type == "cpu" else torch.Event(numbers.device)
        self.numbers = numbers.to("cpu", non_blocking=True)  # into pinned memory, where it comes from a GPU
        if self.arrived is not None:
            self.arrived.record()

    def read(self) -> Numbers:
        """Waits for them."""
        if self.arrived is not None:
            self.arrived.synchronize()
        *sums, stops, norm, overflows = self.numbers.tolist()
        values = {name: total / self.targets for name, total in zip(self.names, sums, strict=True)}
        overflow = overflows > 0 and math.isfinite(values["loss"])
        return Numbers({**values, "grad_norm": norm}, overflow, stops > 0)
