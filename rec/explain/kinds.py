"""What the ids of `rec.nn.relations` are called."""

from rec.nn.relations import LEVELS, POSITION, TIME

NODE = ("nothing", "the same", "a user and an item", "text reads a user or an item", "a user or an item reads text")
HOPS = ("the same", *(f"{count} hop{'s' * (count > 1)}" for count in range(1, 6)), "further than 5 hops, or no node")
UNITS = (("minute", 1), ("hour", 60), ("day", 1440), ("week", 10_080), ("year", 525_600))


def names(kind: str) -> list[str]:
    """A name for each id of a kind of relation; of an attribute of the items, where the kind is none of ours."""
    match kind:
        case "node":
            return list(NODE)
        case "hops":
            return list(HOPS)
        case "together":
            return _levels("no user in common", "users in common")
        case "following":
            return _levels("never seen after it", "seen after it")
        case "followed":
            return _levels("never seen before it", "seen before it")
        case "time":
            return ["not known", "less than a minute", *(f"up to {_span(2**id - 1)}" for id in range(2, TIME))]
        case "position":
            return [*map(str, range(8)), *(f"{2 ** (id - 5)} to {2 ** (id - 4) - 1}" for id in range(8, POSITION))]
        case _:
            return ["different", f"the same {kind}"]


def _levels(none: str, some: str) -> list[str]:
    return [none, *(f"{some}, {level} of {LEVELS - 1}" for level in range(1, LEVELS))]


def _span(minutes: int) -> str:
    unit, size = next(pair for pair in reversed(UNITS) if minutes >= pair[1])
    count = minutes / size
    return f"{count:.0f} {unit}{'s' if round(count) != 1 else ''}"
