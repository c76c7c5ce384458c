"""`kindling recommend RUN --all | --users FILE | --history FILE`: what to show to whom.

kindling recommend runs/mine --history people.jsonl --k 10
kindling recommend runs/mine --all --out everybody.parquet
torchrun --nproc_per_node 4 -m launch.recommend runs/mine --all --out everybody.parquet
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from launch.command import DONE, command

if TYPE_CHECKING:
    from rec.data.people import Person
    from rec.data.recommendations import Recommendations
    from rec.ranks import Ranks
    from rec.recommend import Found, TrainedModel

PATIENCE = 600.0
"""Seconds that one rank may keep the others waiting."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="kindling recommend", description="The best items for each person.", allow_abbrev=False
    )
    parser.add_argument("run", type=Path, help="folder of a trained run, or its model folder")
    people = parser.add_mutually_exclusive_group(required=True)
    people.add_argument("--all", action="store_true", help="every user of the dataset")
    people.add_argument(
        "--users", type=Path, help="known users, one external id a line; their history is the dataset's"
    )
    people.add_argument(
        "--history",
        type=Path,
        help='raw histories of anybody: *.jsonl {"user", "items"}, or `user item item ...` lines',
    )
    parser.add_argument("--dataset", type=Path, help="where users have their history (default: what was trained on)")
    parser.add_argument("--k", type=int, default=20, help="items a person (default 20)")
    parser.add_argument("--out", type=Path, help="*.csv, *.parquet or *.jsonl (default: the screen)")
    return parser.parse_args()


@command
def main() -> int:
    """Recommends for everybody who is asked about, on all processes that were started."""
    given = arguments()
    from rec import ranks as world

    ranks = world.from_environment()
    world.join(ranks, PATIENCE)
    model, people = ranks.together(lambda: opened(given, ranks))
    persons, count, unknown = 0, 0, dict[str, None]()
    with ExitStack() as stack:
        file = ranks.together(lambda: begun(given.out, stack) if ranks.first else None)
        for found in model.for_all(people, given.k, ranks):
            ranks.first_only(partial(tell, model, found, file))
            persons, count = persons + len(found.users), count + int((found.items_BK > 0).sum())
            unknown |= dict.fromkeys(found.unknown)
        ranks.together(stack.close)  # now the file gets its name
    if ranks.first and unknown:
        some, more = list(unknown)[:5], "" if len(unknown) <= 5 else f" and {len(unknown) - 5} more"
        print(f"left out, unknown to the model: items {', '.join(some)}{more}", file=sys.stderr)
    if ranks.first and given.out is not None:
        print(f"{persons:,} people, {count:,} recommendations: {given.out}", file=sys.stderr)
    world.leave()
    return DONE


def opened(given: argparse.Namespace, ranks: "Ranks") -> "tuple[TrainedModel, Sequence[Person]]":
    """The model, and whom it recommends to. What is wrong with the words is told before anything is opened."""
    from rec import ranks as world
    from rec.data.people import Known, read_histories, read_users
    from rec.data.recommendations import require_format
    from rec.errors import ConfigError
    from rec.models import saved
    from rec.recommend import TrainedModel, require_positive

    require_positive(given.k)
    if given.out is not None:
        require_format(given.out)
    listed = read_users(given.users) if given.users is not None else None
    people: Sequence[Person] | None = read_histories(given.history) if given.history is not None else None
    model = TrainedModel(saved.load(given.run), world.device_of(ranks))
    if given.k > len(model.item_rows):
        raise ConfigError(f"--k is {given.k}; the model knows {len(model.item_rows):,} items, ask for so many at most")
    if people is None:
        people = Known(given.dataset or model.saved.run.dataset, listed)
    return model, people


def begun(out: Path | None, stack: ExitStack) -> "Recommendations | None":
    """The file that is written to, if there is one; it is closed with the stack."""
    from rec.data.recommendations import Recommendations

    return None if out is None else stack.enter_context(Recommendations(out))


def tell(model: "TrainedModel", found: "Found", file: "Recommendations | None") -> None:
    """Writes what was found for a block of people to the file; without one, to the screen."""
    from rec.data.recommendations import Row

    people = list(zip(found.users, model.named(found.items_BK, found.scores_BK), strict=True))
    if file is not None:
        file.write([Row(user, rank, *item) for user, items in people for rank, item in enumerate(items, 1)])
        return
    for user, items in people:
        print(user or "-")
        for rank, (item, score, title) in enumerate(items, 1):
            print(f"  {rank:>3}  {title}  [{item}]  {score:.2f}")


if __name__ == "__main__":
    sys.exit(main())
