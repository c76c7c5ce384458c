"""`kindling evaluate RUN`: ranking metrics of a trained run beside the counting baselines.

kindling evaluate runs/smoke --split valid
kindling evaluate runs/smoke eval.filter_seen=false "model.following={kind: following, weight: 2}"
torchrun --nproc_per_node 4 -m launch.evaluate runs/kindle --split test --json results/kindle.json
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from launch.command import DONE, command
from rec.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from rec.data.dataset import Dataset

METRICS = ("ndcg@10", "recall@10", "ndcg@20", "recall@20", "mrr@10")
EXPOSURE = ("coverage@10", "popularity@10")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kindling evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run, or of one of its saved models")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="of eval and of model.following, for this time")
    parser.add_argument("--split", choices=("valid", "test"), default="valid", help="default: valid")
    parser.add_argument("--protocol", default="full", help="full (default), uniform100, popularity100, upstream100")
    parser.add_argument("--metrics", nargs="+", metavar="NAME@K", help=f"default: {' '.join(METRICS + EXPOSURE)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, with intervals and slices")
    parser.add_argument("--no-baselines", action="store_true", help="evaluate the model alone")
    return parser.parse_intermixed_args()


@command
def main() -> int:
    asked = arguments()
    if any(word.startswith("eval.users=") for word in asked.changes):
        raise ConfigError("eval.users is for training: `kindling evaluate` ranks every user of the split; leave it out")

    from rec import ranks as world
    from rec.data.dataset import Dataset
    from rec.eval.comparison import compare, count_reading
    from rec.models import saved
    from rec.models.baselines import BASELINES

    ranks = world.from_environment()
    opened = saved.load(asked.run, asked.changes, ranks)
    run = opened.run
    world.join(ranks, run.train.hang_after)
    device = world.device_of(ranks)
    dataset = Dataset.open(run.dataset)
    require_same(opened.about["dataset"], dataset)
    compared = compare(
        opened.model.to(device),
        dataset,
        asked.split,
        config=run.eval,
        max_items=run.data.max_items,
        ranks=ranks,
        device=device,
        protocol=asked.protocol,
        metrics=asked.metrics or METRICS + (EXPOSURE if asked.protocol == "full" else ()),
        baselines={} if asked.no_baselines else BASELINES,
        seed=run.seed,
    )
    if ranks.first:
        readings = count_reading(
            opened.folder.parent,
            asked.split,
            protocol=asked.protocol,
            step=opened.about.get("step"),
            model=digest(opened.folder / "model.safetensors"),
            changes=asked.changes,
            metrics=compared.result.means,
        )
        print(compared.table(readings))
        if asked.changes:
            print(f"with {' '.join(asked.changes)}")
        if asked.json:
            asked.json.parent.mkdir(parents=True, exist_ok=True)
            asked.json.write_text(json.dumps(compared.content(readings), indent=1) + "\n")
    world.leave()
    return DONE


def require_same(trained: str, dataset: "Dataset") -> None:
    """Raises CheckpointError unless the dataset is the one of the training: rows mean nothing in another."""
    if dataset.fingerprint != trained:
        raise CheckpointError(
            f"the model was trained on dataset {trained[:12]}, but {dataset.root} is {dataset.fingerprint[:12]}; "
            "prepare that folder again with the options it had"
        )


def digest(weights: Path) -> str:
    """The first 16 hexadecimal digits of the file's SHA-256: which weights were read."""
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
