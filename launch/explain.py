"""`kindling explain RUN --user ID --out FILE.html`: what a model reads of a user, with and without the graph."""

import argparse
import sys
from pathlib import Path

from launch.command import DONE, command


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="kindling explain",
        description="A page with the tokens of one user, their relations in the train graph, the attention weights and "
        "the recommendations, with and without it; for runs of kind soft_token.",
    )
    parser.add_argument("run", type=Path, help="folder of a trained run, or its model folder")
    parser.add_argument("--user", required=True, help="external id of a user of the dataset")
    parser.add_argument("--out", type=Path, required=True, help="HTML file to write")
    parser.add_argument("--dataset", type=Path, help="where the user has a history (default: what was trained on)")
    parser.add_argument("--k", type=int, default=10, help="recommendations shown (default 10)")
    parser.add_argument(
        "--layer",
        type=int,
        help="the layer whose heads are shown one by one where all heads of all layers are too many (default the last)",
    )
    return parser.parse_args()


@command
def main() -> int:
    """Explains what a model makes of one user."""
    given = arguments()
    import rec
    from rec.data.people import Known
    from rec.explain.gather import gather, require_explained
    from rec.explain.page import page
    from rec.files import replace_text

    trained = rec.load(given.run)
    folder = given.dataset or trained.saved.run.dataset
    require_explained(trained)
    (person,) = Known(folder, [given.user], remedy="its users.parquet has all of them")
    found = gather(trained, person, given.k, given.layer)
    replace_text(given.out, page(found))
    read = len(found["tokens"]) - found["owner"]
    print(f"{given.out}: the last {read} of {found['history']} items of user {given.user}", file=sys.stderr)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
