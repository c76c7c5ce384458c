"""Training of the soft-token model, in real positions a second, against Hugging Face's Trainer and RecTools' SASRec.

    python -m benchmarks.training                         # half an hour on two cores; `make peers` comes first
    python -m benchmarks.training --width 32 --layers 1 --users 300 --items 200 --steps 3 --peers trainer
    python -m benchmarks.training --backbone Qwen/Qwen2-0.5B --precision bf16 --peers trainer

Each contender trains some steps in a process of its own, one contender after the other, several rounds; a round's
positions per second are those of all its steps but the first. Positions are real: those with a target.

Two logs: one with the lengths of Amazon Beauty (5-core: a mean of 9 interactions), one whose windows are all full. All
contenders have the same width, layers, heads, windows of a step, sampled softmax with as many negatives, no dropout and
AdamW (RecTools: Adam); blocks of ours and of the Trainer are those of Qwen3 with a feed-forward part of 8/3 of the
width, RecTools' its pre-norm ones, whose products are as large. RecTools draws negatives for each position, as it does;
the two others one set for a step.

The share of the step that bare products would take is measured in this process right after each round of ours: the
products of the step's own shapes, `torch.mm`, forward and backward.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.contenders import Job, run_of
from benchmarks.measure import in_turn, say, tell
from rec.data.dataset import Dataset, IntArray
from rec.data.feed import Feed
from rec.data.synthetic import ZIPF, lengths
from rec.models import view
from rec.nn.backbone import configuration
from rec.ranks import Ranks

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-peers/bin/python"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BEAUTY = 198_502 / 22_363
"""Mean interactions of a user there."""
NAMES = {"trainer": "Hugging Face Trainer", "rectools": "RecTools SASRec"}
TO_REACH = {"beauty": {"rectools": 10.0, "trainer": 4.0}, "full": {"rectools": 1.5, "trainer": 1.5}}
SHOWN = {"beauty": "lengths of Beauty", "full": "nothing to pad"}
MICRO_BATCH = {"beauty": 128, "full": 32}
"""Windows of a pass of ours: where they are short all of a step, as the Trainer takes them; else the default."""


def main() -> None:
    given = arguments()
    if "rectools" in given.peers and not PEERS.exists():
        raise SystemExit("RecTools has an environment of its own, which is not there: run `make peers`")
    torch.set_num_threads(given.threads)
    for log in given.logs:
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), log, given)
            compare(log, job_of(folder, log, given), given)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"users": 22_363, "items": 12_101, "width": 256, "layers": 4, "heads": 4, "negatives": 256}
    sizes |= {"batch": 128, "steps": 12, "warm": 3, "repeats": 3, "places": 50}
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--micro-batch", type=int, help=f"windows of a pass of ours; {MICRO_BATCH} without")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--backbone", help="a hub name or a folder, in the place of a small Qwen3; random weights")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--logs", nargs="+", choices=list(SHOWN), default=list(SHOWN))
    parser.add_argument("--peers", nargs="*", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOP/s of the GPU, dense bf16; of an H200")
    parser.add_argument("--processor", action="store_true", help="count the time of processors: on a busy machine")
    return parser.parse_args()


def prepare(folder: Path, log: str, given: argparse.Namespace) -> None:
    """The dataset as ours reads it, and the same training sequences for the others."""
    length = np.full(given.users // 4, given.places + 3)  # of which two are held out, and one is a target only
    if log == "beauty":
        length = lengths(given.users, round(given.users * BEAUTY), seed=0)
    share = np.cumsum(1 / np.arange(1, given.items + 1) ** ZIPF)
    item = np.searchsorted(share / share[-1], np.random.default_rng(0).random(int(length.sum())))
    with (folder / "log.csv").open("w") as file:
        file.write("user,item,timestamp\n")
        rows = zip(np.repeat(np.arange(len(length)), length), item, range(len(item)), strict=True)
        file.writelines(f"{user},{item},{time}\n" for user, item, time in rows)
    words = ["prepare", str(folder / "log.csv"), "--format", "csv", "--out", str(folder / "dataset")]
    subprocess.run([sys.executable, "-m", "launch", *words], check=True, stdout=subprocess.DEVNULL)
    dataset = Dataset.open(folder / "dataset")
    users: list[IntArray] = [np.asarray(dataset.train_items(user), np.int64) for user in range(1, dataset.users + 1)]
    np.savez(folder / "sequences.npz", items=np.concatenate(users), lengths=[len(user) for user in users])


def job_of(folder: str, log: str, given: argparse.Namespace) -> Job:
    small = {
        "hidden_size": given.width,
        "intermediate_size": 8 * given.width // 3 // 8 * 8,
        "num_hidden_layers": given.layers,
        "num_attention_heads": given.heads,
        "num_key_value_heads": given.heads,
        "head_dim": given.width // given.heads,
        "vocab_size": 1,
    }
    source = {"source": given.backbone, "pretrained": False, "config": {}}
    sizes = {name: getattr(given, name) for name in ("width", "batch", "negatives", "steps", "warm")}
    return Job(
        folder=folder,
        backbone=source if given.backbone else {"architecture": "qwen3", "config": small},
        items=given.places,
        micro_batch=given.micro_batch or MICRO_BATCH[log],
        threads=given.threads,
        precision=given.precision,
        **sizes,
    )


def compare(log: str, job: Job, given: argparse.Namespace) -> None:
    """The lines of one log."""
    file = Path(job.folder) / "job.json"
    file.write_text(json.dumps(asdict(job)))
    column = 1 if given.processor else 0
    speeds: dict[str, list[float]] = {name: [] for name in ("ours", *given.peers)}
    shares: list[float] = []
    clock = time.process_time if given.processor else time.perf_counter
    shapes, rows = products(job), rows_of_passes(job)
    for number in range(given.repeats):
        for name, found in speeds.items():
            steps = trained(name, file)
            found.append(float(steps[:, 2].sum() / steps[:, column].sum()))
            say(f"{log} {number + 1}/{given.repeats} {name}: {found[-1]:,.0f} positions/s")
            if name == "ours":
                shares.append(found[-1] * bare(shapes, rows, clock, given))
    size = f"{SHOWN[log]}; {given.backbone or f'{given.width} wide, {given.layers} layers'}, {job.batch} windows"
    counted = "of processors" if given.processor else "of the wall"
    about = {"repeats": given.repeats, "seconds": counted, "micro_batch": job.micro_batch}
    for peer in given.peers:
        tell(
            "training",
            size,
            unit="positions/s",
            ours=statistics.median(speeds["ours"]),
            reference=statistics.median(speeds[peer]),
            against=NAMES[peer],
            ratio=statistics.median(a / b for a, b in zip(speeds["ours"], speeds[peer], strict=True)),
            at_least=None if given.backbone else TO_REACH[log][peer],
            packages=("transformers", "accelerate"),
            **about,
        )
    tell(
        "share of the products",
        size,
        unit="s/1,000 positions",
        ours=1000 / statistics.median(speeds["ours"]),
        reference=1000 * statistics.median(shares) / statistics.median(speeds["ours"]),
        against="its products at the peak of the GPU" if DEVICE == "cuda" else "its products alone, torch.mm",
        ratio=statistics.median(shares),
        at_least=0.45 if DEVICE == "cuda" else 0.6,
        packages=("transformers",),
        gflops=round(6e-9 * sum(inner * out for inner, out in shapes) * statistics.median(speeds["ours"]), 1),
        **about,
    )


def trained(name: str, file: Path) -> np.ndarray:
    """(steps, 3) seconds, seconds of processors and real positions, of a contender in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.contenders", name, str(file)]
    if name == "rectools":
        command = [str(PEERS), str(ROOT / "benchmarks/contender_rectools.py"), str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} has failed:\n{done.stderr[-3000:]}")
    return np.array(json.loads(done.stdout))


def products(job: Job) -> list[tuple[int, int]]:
    """(inner width, columns) of the matrix products of a forward pass, but those of attention with itself."""
    run = run_of(job)
    shape = configuration(run.model.backbone).get_text_config()  # type: ignore[union-attr]
    wide, deep, heads = shape.hidden_size, shape.intermediate_size, shape.num_attention_heads
    head = getattr(shape, "head_dim", None) or wide // heads
    asked, kept = heads * head, shape.num_key_value_heads * head
    layer = [(wide, asked), (wide, kept), (wide, kept), (asked, wide), (wide, deep), (wide, deep), (deep, wide)]
    return [*layer * shape.num_hidden_layers, (job.width, wide), (wide, job.width), (job.width, job.negatives)]


def rows_of_passes(job: Job) -> list[int]:
    """Real positions of each micro-batch of the steps that are timed."""
    run = run_of(job)
    feed = Feed(view(run, Dataset.open(run.dataset)), run.data, seed=run.seed, ranks=Ranks())
    steps = [feed.step(step) for step in range(job.warm, job.warm + job.steps)]
    feed.close()
    return [int((batch.targets_BT > 0).sum()) for step in steps for batch in step.batches]


def bare(
    shapes: list[tuple[int, int]], rows: list[int], clock: Callable[[], float], given: argparse.Namespace
) -> float:
    """Seconds for each real position that the products take, forward and backward, in passes of so many rows."""
    if DEVICE == "cuda":
        return 6 * sum(inner * out for inner, out in shapes) / (given.peak * 1e12)
    cases = {str((count, shape)): product(count, *shape) for count in set(rows) for shape in set(shapes)}
    taken = {case: statistics.median(times) for case, times in in_turn(cases, 5, clock).items()}
    return sum(taken[str((count, shape))] for count in rows for shape in shapes) / sum(rows)


def product(rows: int, inner: int, out: int) -> Callable[[], None]:
    """A product and the two of its gradients."""
    left, right, gradient = torch.randn(rows, inner), torch.randn(out, inner), torch.randn(rows, out)

    def case() -> None:
        torch.mm(left, right.t())
        torch.mm(gradient, right)
        torch.mm(gradient.t(), left)

    return case


if __name__ == "__main__":
    main()
