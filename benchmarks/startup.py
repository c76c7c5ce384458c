"""How long `kindling --help` takes, and a run from the start of its process to the end of its first step.

    python -m benchmarks.startup
    python -m benchmarks.startup --repeats 1 --config configs/smoke/soft_token.yaml

The reference is `python -c "import torch, transformers"`; of Transformers, that brings the doors without the rooms.
The log has the size of MovieLens-100K; of a run that is killed after its first step, nothing has to be saved.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.measure import in_turn, ratio, tell

SIZES = {"users": 943, "items": 1682, "interactions": 100_000}
FIRST = """
import os, sys
from rec.train.numbers import Pending
def end(step, *update):  # the loop reads its numbers when the next step has begun
    send(step, *update)
    step.read()
    os._exit(0)
send, Pending.send = Pending.send, end
from launch.train import main
sys.exit(main())
"""
SASREC = "{kind: sasrec, dim: 64}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--config", default="configs/movielens/qwen3.yaml", help="of the run with a language model")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared(folder)
        (folder / "sasrec.yaml").write_text(f"name: sasrec\ndataset: x\nmodel: {SASREC}\n")
        cases: dict[str, Callable[[], object]] = {
            "help": partial(done, "-m", "launch", "--help"),
            "model": partial(first_step, folder, asked.config),
            "sasrec": partial(first_step, folder, str(folder / "sasrec.yaml")),
            "import": partial(done, "-c", "import torch, transformers"),
        }
        seconds = in_turn(cases, asked.repeats)
    middle = {case: median(taken) for case, taken in seconds.items()}
    tell(
        "start-up", "kindling --help", unit="s", ours=middle["help"], reference=0.5, against="half a second",
        at_most=1, repeats=asked.repeats,
    )  # fmt: skip
    for case, what in {"model": asked.config, "sasrec": f"model={SASREC}"}.items():
        tell(
            "start-up", f"first training step, {Path(what).stem if case == 'model' else 'sasrec'}", unit="s",
            ours=middle[case], reference=middle["import"], against="import torch, transformers",
            ratio=ratio(seconds, case, "import"), at_most=2, packages=("transformers",), repeats=asked.repeats,
        )  # fmt: skip


def prepared(folder: Path) -> None:
    words = [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]
    done("-m", "launch", "synthesize", *words, "--out", str(folder / "log.csv"))
    done("-m", "launch", "prepare", str(folder / "log.csv"), "--format", "csv", "--out", str(folder / "dataset"))


def first_step(folder: Path, config: str) -> None:
    runs = folder / "runs"
    done("-c", FIRST, config, f"dataset={folder / 'dataset'}", f"out={runs}")
    shutil.rmtree(runs)


def done(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


if __name__ == "__main__":
    main()
