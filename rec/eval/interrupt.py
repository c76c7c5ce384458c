"""How an evaluation is given up in its middle, by all ranks together."""

from collections.abc import Callable

import torch

from rec.ranks import Ranks


class Interrupted(Exception):
    """The evaluation was given up, on every rank, since one was asked to stop."""


def give_up_if(asked: Callable[[], bool], ranks: Ranks, device: torch.device) -> None:
    """Raises Interrupted on every rank if any is asked to stop. All ranks have to call it."""
    if ranks.sum(torch.tensor([float(asked())], device=device)).item():
        raise Interrupted
