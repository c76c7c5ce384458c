"""`kindling embed DATASET --encoder MODEL`: vectors of item texts, into the dataset."""

import argparse
import sys
from pathlib import Path

from launch.command import DONE, command


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kindling embed", description="Vectors of item texts, into the dataset.")
    parser.add_argument("dataset", type=Path, help="folder of a prepared dataset")
    parser.add_argument("--encoder", required=True, help="text encoder: hub name or local folder")
    parser.add_argument("--name", default="text", help="name of the feature, for model.item_init (default text)")
    parser.add_argument("--column", default="text", help="column of items.parquet (default text)")
    parser.add_argument("--batch", type=int, default=64, help="texts encoded at once (default 64)")
    return parser.parse_args()


@command
def main() -> int:
    """Encodes every item's text once."""
    given = arguments()
    from tqdm import tqdm

    from rec.data.dataset import Dataset
    from rec.text.embed import embed_items

    dataset = Dataset.open(given.dataset)
    with tqdm(total=dataset.items, unit="text", disable=not sys.stderr.isatty()) as bar:
        file = embed_items(dataset, given.encoder, given.name, given.column, given.batch, bar.update)
    print(f"{file}: use it with model.item_init={given.name}", file=sys.stderr)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
