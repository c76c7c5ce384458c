"""Runs the study of docs/results.md: what the train graph adds, on three data sets, beside ordinary models, over seeds.

    python -m benchmarks.study beauty                     # all variants, seeds 0, 1 and 2: trains, then reads test once
    python -m benchmarks.study beauty --variants plain all --seeds 0
    python -m benchmarks.study beauty --print             # the commands, and nothing else

What is there already is left as it is, so that the study can be interrupted and typed again. The prepared datasets are
those of the commands in docs/results.md. `python -m benchmarks.results` makes the page of the files written here.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"
PARTS = ("relations", "gnn", "following")
SOFT = {
    "all": (),
    "gnn": ("relations", "following"),
    "learned": ("gnn", "following"),
    "paper": ("gnn", "following"),
    "plain": PARTS,
    "ids": PARTS,
    "deeper": ("relations", "gnn"),
}
"""Variant of the soft-token recommender -> the parts of configs/study/SET.yaml, which has all, that it does without."""
MORE = {
    "paper": ["model.relations={kind: paper}"],
    "ids": ["model.item_init=null"],
    "deeper": ["model.backbone.config.num_hidden_layers=2", "optim.lr=2.0e-3"],
}
"""What else a variant changes."""
VARIANTS = ("plain", "following", "learned", "paper", "gnn", "all", "ids", "deeper", "sasrec", "lightgcn")
"""All, in an order in which `following` finds the runs of `plain`."""
ORDINARY = ("sasrec", "lightgcn")
"""Models with a configuration of their own, configs/study/SET-NAME.yaml."""
SETS = ("beauty", "ml-100k", "games")
SEEDS = (0, 1, 2)


def commands(name: str, variant: str, seed: int) -> Iterator[list[str]]:
    """What makes one row of one seed: a training, and a reading of its test split."""
    config = f"configs/study/{name}{f'-{variant}' if variant in ORDINARY else ''}.yaml"
    run, asked = f"{name}-{variant}-{seed}", []
    if variant == "following":  # of which no training knows
        run, part = f"{name}-plain-{seed}", yaml.safe_load((ROOT / config).read_text())["model"]["following"]
        asked = [f"model.following={json.dumps(part)}"]
    else:
        changes = [*(f"model.{part}=null" for part in SOFT.get(variant, ())), *MORE.get(variant, [])]
        yield ["train", config, f"name={run}", f"seed={seed}", *changes]
    # the counting baselines have no seed: they stand in one file of the set
    alone = [] if (variant, seed) == ("plain", 0) else ["--no-baselines"]
    yield ["evaluate", f"runs/{run}", *asked, "--split", "test", "--json", str(file(name, variant, seed)), *alone]


def file(name: str, variant: str, seed: int) -> Path:
    return (RESULTS / name / f"{variant}-{seed}.json").relative_to(ROOT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--print", action="store_true", help="print the commands, and do nothing else")
    given = parser.parse_args()
    for seed in given.seeds:
        for variant in given.variants:
            for command in commands(given.set, variant, seed):
                if given.print:
                    print(shlex.join(["kindling", *command]))
                elif not (ROOT / file(given.set, variant, seed)).exists():
                    subprocess.run([sys.executable, "-m", f"launch.{command[0]}", *command[1:]], cwd=ROOT, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
