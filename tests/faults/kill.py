"""Kills at moments drawn from a seed, and starts again, until the run is done."""

import os
import random
import time
from collections.abc import Iterator
from typing import Literal, NamedTuple

from launch.command import DONE
from rec.config.tree import Run
from tests.faults.compare import locked, notes
from tests.faults.runs import SAVE_EVERY, STEPS, Case
from tests.faults.start import Start, children

PROMPTLY = 10.0
"""Seconds in which the others have to end, once they train with the one that is killed."""
MOST_SECONDS = 120.0
"""Of a start that nobody disturbs."""
Place = Literal["clock", "start", "begun", "marked", "renamed"]


class Aim(NamedTuple):
    """When to kill whom."""

    place: Place
    """A time after the start (of the whole run, or of what comes before the first step), or the moment at which a save
    has begun its folder, has marked it as committed, or has renamed it."""
    moment: float
    """Seconds after the start, or after that moment of the save."""
    save: int
    """Which save of this start, counted from 1."""
    victims: tuple[int, ...]


def draw(seed: str, world: int, whole: float, start: float) -> list[Aim]:
    """One to three kills, the later ones at what goes on after the earlier.

    Args:
        seed: decides everything.
        world: ranks.
        whole: seconds of the run when nothing disturbs it.
        start: seconds of it before the first step.
    """
    dice = random.Random(seed)
    places: list[tuple[Place, ...]] = [
        ("clock", "clock", "begun", "marked", "renamed"),
        ("start", "start", "clock", "begun"),
        ("clock", "start", "begun", "marked"),
    ]
    aims = []
    for offered in places[: dice.choice((1, 1, 2, 2, 3))]:
        place = dice.choice(offered)
        spread = {"clock": whole, "start": start, "begun": 0.02, "marked": 0.002, "renamed": 0.005}[place]
        alone, everybody = (dice.randrange(world),), tuple(range(world))
        victims = everybody if dice.random() < 1 / 3 else alone
        aims.append(Aim(place, dice.uniform(0, spread), dice.randint(1, max(1, STEPS // SAVE_EVERY // 2)), victims))
    return aims


class Kill(NamedTuple):
    """What a kill has hit."""

    place: str
    """Where it was aimed."""
    victims: tuple[int, ...]
    phase: str
    """What the first victim was at."""
    save: str
    """How far a save of any victim was."""
    torn: bool
    """Whether it has left the folder of a save that was not committed."""
    others: float | None
    """Seconds in which the others ended by themselves; None if there were none, or a launcher would have had to
    end them."""


def survive(run: Run, case: Case, aims: list[Aim]) -> tuple[list[Kill], list[str]]:
    """Starts the run, kills it as aimed, and starts it again until it is done.

    Returns:
        What was killed (an aim may come too late, when the run is done), and what was wrong besides the run's results.
    """
    kills, wrong = [], []
    before = children()
    for number, aim in enumerate([*aims, None]):
        start = Start(run, case, notes(run) / f"start-{number:03d}")
        try:
            kill = aim and strike(start, aim)
            if kill is not None:
                kills.append(kill)
            else:
                start.wait(MOST_SECONDS)
        except AssertionError as hanging:
            return kills, [*wrong, f"start {number}: {hanging}"]
        wrong += [f"start {number}: {text}" for text in after(start, case, kill, before)]
    return kills, wrong


def after(start: Start, case: Case, kill: Kill | None, before: set[int]) -> Iterator[str]:
    """What is wrong when all ranks of a start have ended."""
    if kill is None and set(start.codes.values()) != {DONE}:
        yield f"undisturbed, but ended with the codes {start.codes}"
    deadline = time.monotonic() + PROMPTLY
    while children() - before and time.monotonic() < deadline:  # say, a `uname` that a rank had just asked
        time.sleep(0.01)
    if left := children() - before:
        yield f"left the processes {left} behind"
    if start.run.folder.is_dir():
        yield from locked(start.run)


def strike(start: Start, aim: Aim) -> Kill | None:
    """Kills as aimed, and waits for the end of the others; None if the run ended before."""
    if not reach(start, aim):
        return None
    victims = tuple(rank for rank in aim.victims if rank in start.alive)
    if not victims:
        return None
    start.kill(list(victims))
    while set(victims) & set(start.alive):
        time.sleep(0.001)
    if any(start.codes[rank] >= 0 for rank in victims):  # it had just ended by itself
        start.wait(PROMPTLY)
        return None
    board = start.board
    phase, saves = board.phase(victims[0]), [board.save(rank) for rank in victims]
    others = _end_of_others(start)
    torn = any(_names(start.run, ".tmp"))
    return Kill(aim.place, victims, phase, max(saves, key=("none", "writing", "committing").index), torn, others)


def _end_of_others(start: Start) -> float | None:
    """Seconds in which they end. Before the first step, a launcher ends those that do not: groups are being made.

    Then a rank waits for what another has not said yet, and has no connection to it that could break.
    """
    others = start.alive
    start.kill([rank for rank in others if start.board.phase(rank) == "meeting"])
    met = [rank for rank in others if start.board.phase(rank) != "meeting"]
    begun = time.monotonic()
    while any(start.board.phase(rank) == "start" for rank in start.alive):
        if time.monotonic() - begun > PROMPTLY:
            start.kill(start.alive)
            met = []
        time.sleep(0.002)
    start.wait(PROMPTLY)
    return time.monotonic() - begun if met else None


def reach(start: Start, aim: Aim) -> bool:
    """Waits for the moment; whether the run was still there."""
    if aim.place in ("clock", "start"):
        while start.alive and start.seconds < aim.moment:
            time.sleep(0.001)
        return bool(start.alive)
    seen: set[str] = set()
    old = _saves(start.run, aim.place)
    while start.alive:
        seen |= _saves(start.run, aim.place) - old
        if len(seen) >= aim.save:
            time.sleep(aim.moment)
            return True
        time.sleep(0.0003)
    return False


def _saves(run: Run, place: str) -> set[str]:
    """Saves that have got to a place and can be seen there now."""
    if place == "renamed":
        return {name for name in _names(run, "") if "." not in name}
    begun = _names(run, ".tmp")
    if place == "begun":
        return set(begun)
    return {name for name in begun if (run.folder / "checkpoints" / name / "COMMITTED").exists()}


def _names(run: Run, ending: str) -> list[str]:
    folder = run.folder / "checkpoints"
    return (
        [name for name in os.listdir(folder) if name.startswith("step-") and name.endswith(ending)]
        if folder.is_dir()
        else []
    )


def whole(run: Run, case: Case) -> tuple[float, float]:
    """Lets a run end undisturbed; seconds of all of it, and of it before its first step."""
    start = Start(run, case, notes(run) / "whole")
    first = None
    while start.alive:
        if first is None and start.board.phase(0) == "training":
            first = start.seconds
        time.sleep(0.001)
    if set(start.codes.values()) != {DONE} or first is None:
        raise AssertionError(f"the undisturbed run ended with the codes {start.codes}; see {start.notes}")
    return start.seconds, first
