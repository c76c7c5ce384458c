"""The state of every random generator that a library may draw from.

Kindling itself draws from none of them while it trains: its randomness is a function of the step. The state is kept
for what others bring along, and is only of use to the same number of ranks.
"""

import random
from typing import Any

import numpy as np
import torch


def state() -> dict[str, Any]:
    """Of this process, as plain values."""
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state().tolist(),
        "cuda": torch.cuda.get_rng_state().tolist() if torch.cuda.is_available() else [],  # of this rank's own device
    }


def restore(saved: dict[str, Any]) -> None:
    """The inverse of `state`."""
    version, numbers, gauss = saved["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = saved["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(torch.tensor(saved["torch"], dtype=torch.uint8))
    if torch.cuda.is_available() and saved["cuda"]:
        torch.cuda.set_rng_state(torch.tensor(saved["cuda"], dtype=torch.uint8))


def seed(number: int) -> None:
    """All generators of this process anew."""
    random.seed(number)
    np.random.seed(number % 2**32)  # noqa: NPY002
    torch.manual_seed(number)
