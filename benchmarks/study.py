"""Runs the study of docs/results.md: what the graph adds, on three data sets, beside ordinary models, over seeds.

    python -m benchmarks.study beauty                     # all variants, seeds 0, 1 and 2: trains, then reads test once
    python -m benchmarks.study beauty --variants plain all --seeds 0
    python -m benchmarks.study beauty --print             # the commands, and nothing else

What is there already is left as it is, so that the study can be interrupted and typed again. The prepared datasets are
those of the commands on top of configs/study/*.yaml. `benchmarks/results.py` makes the page of the files written here.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"
NO_GRAPH = {"model.relations": "null", "model.gnn": "null"}
SOFT = {
    "all": {},
    "gnn": {"model.relations": "null"},
    "learned": {"model.gnn": "null"},
    "paper": {"model.gnn": "null", "model.relations": "{kind: paper}"},
    "plain": NO_GRAPH,
    "ids": {**NO_GRAPH, "model.item_init": "null"},
}
"""Variant -> what it changes in configs/study/SET.yaml, which has everything."""
ORDINARY = ("sasrec", "lightgcn")
"""Models with a configuration of their own, configs/study/SET-NAME.yaml."""
SETS = ("beauty", "ml-100k", "games")
SEEDS = (0, 1, 2)


def commands(name: str, variant: str, seed: int) -> Iterator[list[str]]:
    """What makes one row of one seed: a training, and the one reading of its test split."""
    run = f"{name}-{variant}-{seed}"
    config = f"configs/study/{name}{'' if variant in SOFT else f'-{variant}'}.yaml"
    changes = [f"{key}={value}" for key, value in SOFT.get(variant, {}).items()]
    yield ["train", config, f"name={run}", f"seed={seed}", *changes]
    # the counting baselines have no seed: they stand in one file of the set
    alone = [] if (variant, seed) == ("plain", 0) else ["--no-baselines"]
    yield [
        "evaluate",
        f"runs/{run}",
        "--split",
        "test",
        "--json",
        str(file(name, variant, seed).relative_to(ROOT)),
        *alone,
    ]


def file(name: str, variant: str, seed: int) -> Path:
    return RESULTS / name / f"{variant}-{seed}.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--variants", nargs="+", choices=(*SOFT, *ORDINARY), default=(*SOFT, *ORDINARY))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--print", action="store_true", help="print the commands, and do nothing else")
    given = parser.parse_args()
    for seed in given.seeds:
        for variant in given.variants:
            for command in commands(given.set, variant, seed):
                if given.print:
                    print(shlex.join(["kindling", *command]))
                elif not file(given.set, variant, seed).exists():
                    subprocess.run([sys.executable, "-m", f"launch.{command[0]}", *command[1:]], cwd=ROOT, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
