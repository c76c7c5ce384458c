"""What the ids of `rec.nn.relations` are called on the page, for a token that reads ("the reader") another one."""

from rec.nn.relations import LEVELS, POSITION, TIME

NODE = ("two different items", "the same item", "a user and an item", "text reads an item", "an item reads text")
HOPS = (
    "the same",
    *(f"{count} hop{'s' * (count > 1)} away" for count in range(1, 6)),
    "further than 5 hops, or no node",
)
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
            return _levels("never before the reader", "comes before the reader")
        case "followed":
            return _levels("never after the reader", "comes after the reader")
        case "time":
            between = [f"up to {_span(2**id - 1)} apart" for id in range(2, TIME - 1)]
            return ["time not known", "less than a minute apart", *between, f"{_span(2 ** (TIME - 2))} apart or more"]
        case "position":
            near = ["the reader itself", "1 place back", *(f"{gap} places back" for gap in range(2, 8))]
            far = [f"{2 ** (id - 5)} to {2 ** (id - 4) - 1} places back" for id in range(8, POSITION - 1)]
            return [*near, *far, f"{2 ** (POSITION - 6)} places back or more"]
        case _:
            return [f"no {kind} in common", f"{kind} in common"]


def _levels(none: str, some: str) -> list[str]:
    """Of no strength, and of the strengths 1 (weak) to 8 (strong)."""
    return [none, *(f"{some}, {level}/{LEVELS - 1}" for level in range(1, LEVELS))]


def _span(minutes: int) -> str:
    unit, size = next(pair for pair in reversed(UNITS) if minutes >= pair[1])
    count = round(minutes / size)
    return f"{count} {unit}{'s' * (count != 1)}"
