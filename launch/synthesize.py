"""`kindling synthesize --users U --items I --interactions N --out FILE`: a realistic log of any size, as CSV."""

import argparse
import sys
from pathlib import Path

from launch.command import DONE, command


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description="Writes a log (user,item,rating,timestamp) with popular items, long and short users, drifting "
        "interests, and items that follow each other: `kindling prepare FILE --format csv` reads it."
    )
    made.add_argument("--users", type=int, required=True)
    made.add_argument("--items", type=int, required=True)
    made.add_argument("--interactions", type=int, required=True)
    made.add_argument("--seed", type=int, default=0, help="equal seeds give equal files (default 0)")
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="CSV file to write; must not exist")
    return made


@command
def main() -> int:
    arguments = parser().parse_args()
    from rec.data.synthetic import write

    write(arguments.out, arguments.users, arguments.items, arguments.interactions, arguments.seed)
    print(f"wrote {arguments.out}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
