"""`kindling evaluate RUN`: ranking metrics of a trained run beside the counting baselines.

kindling evaluate runs/smoke --split valid
torchrun --nproc_per_node 4 -m launch.evaluate runs/kindle --split test --json results/kindle.json
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from launch.command import DONE, command

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rec.ranks import Ranks

METRICS = ("ndcg@10", "recall@10", "ndcg@20", "recall@20", "mrr@10")
EXPOSURE = ("coverage@10", "popularity@10")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kindling evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run, or of one of its saved models")
    parser.add_argument("--split", choices=("valid", "test"), default="valid", help="default: valid")
    parser.add_argument("--protocol", default="full", help="full (default), uniform100, popularity100, upstream100")
    parser.add_argument("--metrics", nargs="+", metavar="NAME@K", help=f"default: {' '.join(METRICS + EXPOSURE)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, with intervals and slices")
    parser.add_argument("--no-baselines", action="store_true", help="evaluate the model alone")
    return parser.parse_args()


@command
def main() -> int:
    asked = arguments()

    from rec import ranks as all_ranks
    from rec.data.dataset import Dataset
    from rec.eval.comparison import compare, count_reading
    from rec.models.baselines import BASELINES
    from rec.models.saved import load_model

    ranks = all_ranks.from_environment()
    all_ranks.join(ranks)
    device = own_device(ranks)
    model, run = load_model(asked.run)
    compared = compare(
        model.to(device),
        Dataset.open(run.dataset),
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
        checkpoint, means = str(asked.run), compared.result.means
        readings = count_reading(
            run.folder, asked.split, protocol=asked.protocol, checkpoint=checkpoint, model=digest(model), **means
        )
        print(compared.table(readings))
        if asked.json:
            asked.json.parent.mkdir(parents=True, exist_ok=True)
            asked.json.write_text(json.dumps(compared.content(readings), indent=1) + "\n")
    all_ranks.leave()
    return DONE


def own_device(ranks: "Ranks") -> "torch.device":
    """The accelerator of this rank, where the machine has any."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return torch.device("cpu")
    return torch.device(accelerator.type, ranks.local_rank % torch.accelerator.device_count())


def digest(model: "nn.Module") -> str:
    """The first 16 hexadecimal digits of the SHA-256 of names and values: which weights were read."""
    import hashlib

    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
