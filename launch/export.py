"""`kindling export RUN --out FOLDER`: a checkpoint, whatever wrote it, as a model folder with one file of weights."""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from launch.command import DONE, command
from rec.errors import CheckpointError


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="kindling export", description="A checkpoint of a run as a model folder, for rec.load and all who read it."
    )
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--out", type=Path, required=True, help="folder to be made; it must not exist")
    parser.add_argument(
        "--checkpoint", help="best, latest, or a number of steps (default: best, or latest where none was evaluated)"
    )
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="of the weights (default fp32)")
    return parser.parse_args()


@command
def main() -> int:
    """Puts together what the ranks have written. Needs no GPU, and no more memory than the model once."""
    given = arguments()
    if given.out.exists():
        raise CheckpointError(f"{given.out} is there already; choose another --out, or remove it")
    checkpoint = chosen(given.run / "checkpoints", given.checkpoint)
    import torch

    from rec.config.load import load
    from rec.data.dataset import Dataset
    from rec.models import build, graph_of
    from rec.models.saved import publish
    from rec.train.checkpoint import damage, digest_of
    from rec.train.pieces import Parts

    fault = damage(checkpoint)
    if fault is not None:
        raise CheckpointError(f"{checkpoint} is damaged ({fault}); choose another --checkpoint")
    run = load(given.run / "run.yaml")
    dataset = Dataset.open(run.dataset)
    state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    trained_on = state["identity"]["dataset fingerprint"]
    if dataset.fingerprint != trained_on:
        raise CheckpointError(
            f"{dataset.root} has the fingerprint {dataset.fingerprint[:12]} but {given.run} was trained on "
            f"{trained_on[:12]}; give the old dataset back"
        )
    trained_with = state["identity"].get("graph fingerprint")
    graph = graph_of(run, dataset, trained_with)
    model = build(run.model, users=dataset.users, items=dataset.items, graph=graph, weights=False)
    write = partial(Parts(checkpoint).export, dtype=torch.float32 if given.dtype == "fp32" else torch.bfloat16)
    about = {
        "step": state["progress"]["step"],
        "dtype": given.dtype,
        "sha256": digest_of(checkpoint),
        "graph": trained_with,
    }
    publish(given.out, run, model, write, dataset, about)
    print(f"{given.out}: {checkpoint.name} of {given.run}, {given.dtype}", file=sys.stderr)
    return DONE


def chosen(checkpoints: Path, which: str | None) -> Path:
    """The folder of a checkpoint, by its pointer or its number of steps."""
    if not checkpoints.is_dir():
        raise CheckpointError(f"{checkpoints.parent} is not the folder of a run; give one that has been trained")
    if which is None:
        which = "best" if (checkpoints / "best").is_file() else "latest"
    name = f"step-{int(which):08d}" if which.isdigit() else None
    if which in ("best", "latest") and (checkpoints / which).is_file():
        name = (checkpoints / which).read_text().strip()
    if name is None or not (checkpoints / name).is_dir():
        there = ", ".join(str(int(path.name[5:])) for path in sorted(checkpoints.glob("step-????????")))
        raise CheckpointError(
            f"{checkpoints} has no checkpoint '{which}'; choose latest" + (f", or one of {there}" if there else "")
        )
    return checkpoints / name


if __name__ == "__main__":
    sys.exit(main())
