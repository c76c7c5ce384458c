"""`kindling recommend RUN --users FILE | --history FILE`: what to show to whom."""

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from launch.command import DONE, command

if TYPE_CHECKING:
    from rec.data.people import Person


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="kindling recommend", description="The best items for each person.", allow_abbrev=False
    )
    parser.add_argument("run", type=Path, help="folder of a trained run, or its model folder")
    people = parser.add_mutually_exclusive_group(required=True)
    people.add_argument(
        "--users", type=Path, help="known users, one external id a line; their history is the dataset's"
    )
    people.add_argument(
        "--history",
        type=Path,
        help='raw histories of anybody: *.jsonl {"user", "items"}, or `user item item ...` lines',
    )
    parser.add_argument("--dataset", type=Path, help="where --users have their history (default: what was trained on)")
    parser.add_argument("--k", type=int, default=20, help="items a person (default 20)")
    parser.add_argument("--out", type=Path, help="*.csv, *.parquet or *.jsonl (default: the screen)")
    return parser.parse_args()


@command
def main() -> int:
    """Recommends for every person of a file."""
    given = arguments()
    import rec
    from rec.data import people

    model = rec.load(given.run)
    if given.users is not None:
        persons = known(given.dataset or model.saved.run.dataset, people.read_users(given.users))
    else:
        persons = people.read_histories(given.history)
    users, histories = [person.user for person in persons], [person.items for person in persons]
    missing = model.unknown(histories)
    if missing:
        more = "" if len(missing) <= 5 else f" and {len(missing) - 5} more"
        print(f"left out, unknown to the model: items {', '.join(missing[:5])}{more}", file=sys.stderr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said above, in full
        lists = model.recommend(histories, given.k, users=users, times=[person.times for person in persons])
    rows = [
        {"user": user, "rank": rank, "item": item, "score": score, "title": title}
        for user, items in zip(users, lists, strict=True)
        for rank, (item, score, title) in enumerate(items, 1)
    ]
    if given.out is not None:
        people.write_recommendations(rows, given.out)
        print(f"{len(lists):,} people, {len(rows):,} recommendations: {given.out}", file=sys.stderr)
    else:
        for user, items in zip(users, lists, strict=True):
            print(user or "-")
            for rank, (item, score, title) in enumerate(items, 1):
                print(f"  {rank:>3}  {title}  [{item}]  {score:.2f}")
    return DONE


def known(folder: Path, users: list[str], remedy: str = "give people from outside with --history") -> "list[Person]":
    """The users with all that the dataset knows of them; DatasetError with the remedy where it does not know one."""
    from rec.data.dataset import Dataset
    from rec.data.people import Person
    from rec.errors import DatasetError

    dataset = Dataset.open(folder)
    rows = {user: row for row, user in enumerate(dataset.user_ids) if row}
    strangers = [user for user in users if user not in rows]
    if strangers and len(users) == 1:
        raise DatasetError(f"{folder} has no user '{strangers[0]}'; {remedy}")
    if strangers:
        raise DatasetError(
            f"{len(strangers)} of {len(users)} users are not in {folder}, the first is '{strangers[0]}'; {remedy}"
        )
    ids = dataset.item_ids
    persons = []
    for user in users:
        mine = slice(dataset.offsets[rows[user]], dataset.offsets[rows[user] + 1])
        items = [ids[item] for item in dataset.item_rows[mine]]
        persons.append(Person(user, items, dataset.times[mine].tolist() if dataset.has_times else [0] * len(items)))
    return persons


if __name__ == "__main__":
    sys.exit(main())
