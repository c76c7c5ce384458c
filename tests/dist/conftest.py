"""What the tests of several ranks share."""

import signal
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from rec.data.feed import Feed


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes one process ask for a stop in the given number of steps, as a signal to it alone would."""
    original = Feed.step

    def arrange(steps: int) -> None:
        begun = count(1)

        def step(feed: Feed, number: int) -> Any:
            if next(begun) == steps and feed.ranks.rank == feed.ranks.world - 1:
                signal.raise_signal(signal.SIGUSR1)
            return original(feed, number)

        monkeypatch.setattr(Feed, "step", step)

    return arrange
