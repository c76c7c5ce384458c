"""Kills runs with SIGKILL at random moments, moves them between strategies and ranks, and compares what comes out.

    python -m benchmarks.reliability                        100 kills, the matrix, docs/reliability.json and its page
    python -m benchmarks.reliability --kills 20 --seed 7 --strategies ddp zero3 --out /tmp/found.json
    python -m benchmarks.reliability --render               docs/reliability.md out of docs/reliability.json
    python -m benchmarks.reliability --check                exits with 1 if that page is not up to date

What is compared: tests/faults/compare.py. The short form of this: tests/dist/test_faults.py. With the same seed the
same moments are drawn; what the run is doing then depends on the machine.
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.reliability_page import JSON, PAGE, render
from rec.config.tree import Run
from rec.data.dataset import Dataset
from rec.train.identity import versions
from tests.faults.compare import differences
from tests.faults.kill import draw, survive, whole
from tests.faults.matrix import ARCHITECTURES, cells
from tests.faults.runs import STRATEGIES, Case, make_dataset, make_run
from tests.faults.start import adopting, prepare

PARTS = ("kills", "matrix")
References = dict[Case, tuple[Run, float, float]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="at least so many processes or whole jobs are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the first disturbed run; the next ones count on")
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--out", type=Path, default=JSON, help="where the figures go")
    parser.add_argument("--scratch", type=Path, help="folder for the runs; otherwise a temporary one")
    parser.add_argument("--render", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--part", choices=PARTS, help="measure this one anew, and keep the other as it was measured")
    given = parser.parse_args()
    if given.check or given.render:
        return refresh(check=given.check)
    found = json.loads(given.out.read_text()) if given.part else {}
    prepare()
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder, adopting():
        dataset, begun = make_dataset(Path(folder) / "dataset"), time.time()
        references = undisturbed(dataset, Path(folder), given.strategies)
        if given.part != "matrix":
            found["kills"] = disturbed(dataset, Path(folder), references, given.kills, given.seed) | about(begun)
        begun = time.time()
        if given.part != "kills":
            found["matrix"] = events(dataset, Path(folder), references) | about(begun)
    given.out.write_text(lines(found))
    if given.out == JSON:
        refresh(check=False)
    return 0 if all(part["lost"] == 0 for part in found.values()) else 1


def refresh(*, check: bool) -> int:
    """Writes the page, or says whether it is what the figures say."""
    text = render(json.loads(JSON.read_text()))
    if check:
        stale = not PAGE.is_file() or PAGE.read_text() != text
        print(f"{PAGE} is not up to date: run python -m benchmarks.reliability --render" if stale else "up to date")
        return int(stale)
    PAGE.write_text(text)
    return 0


def undisturbed(dataset: Dataset, folder: Path, strategies: list[str]) -> References:
    references: References = {}
    for case in [Case(name, architecture, STRATEGIES[name]) for architecture in ARCHITECTURES for name in strategies]:
        run = make_run(dataset, folder / f"whole-{case}", case)
        references[case] = (run, *whole(run, case))
        say(f"{case}: {references[case][1]:.1f} s undisturbed")
    return references


def about(begun: float) -> dict[str, Any]:
    """How a part was measured."""
    return {
        "command": " ".join(["python", "-m", "benchmarks.reliability", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d", time.gmtime(begun)),
        "minutes": round((time.time() - begun) / 60, 1),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[2], 1),
        "versions": versions(),
    }


def disturbed(dataset: Dataset, folder: Path, references: References, kills: int, seed: int) -> dict[str, Any]:
    """Runs, one after another through all cases, until enough was killed."""
    trials: list[dict[str, Any]] = []
    killed = 0
    for number, case in zip(itertools.count(seed), itertools.cycle(references), strict=False):
        if killed >= kills:
            break
        reference, seconds, first = references[case]
        run = make_run(dataset, folder / f"run-{number}", case)
        hits, wrong = survive(run, case, draw(f"{number} {case}", case.world, seconds, first))
        lost = [] if wrong else differences(run, reference)
        killed += len(hits)
        what = {"seed": number, "kills": [hit._asdict() for hit in hits], "differences": lost, "wrong": wrong}
        trials.append(case._asdict() | what)
        say(f"{killed:4} kills  {case}, seed {number}: {'; '.join([*lost, *wrong]) or 'nothing lost'}")
    longest = max(seconds for _, seconds, _ in references.values())
    lossy = sum(bool(trial["differences"] or trial["wrong"]) for trial in trials)
    return {"seeds": [seed, seed + len(trials) - 1], "longest": round(longest, 1), "lost": lossy, "rows": trials}


def events(dataset: Dataset, folder: Path, references: References) -> dict[str, Any]:
    """The matrix."""
    table = []
    for cell in cells(dataset, folder, {case: run for case, (run, *_) in references.items()}):
        table.append(cell)
        say(f"{cell['strategy']}, {cell['architecture']}, {cell['event']}: {cell['fault'] or 'passed'}")
    return {"lost": sum(cell["fault"] is not None for cell in table), "rows": table}


def lines(found: dict[str, Any]) -> str:
    """JSON with a line for each run and each cell."""
    text = json.dumps({name: {**part, "rows": f"rows of {name}"} for name, part in found.items()}, indent=1) + "\n"
    for name, part in found.items():
        rows = ",\n   ".join(json.dumps(row) for row in part["rows"])
        text = text.replace(f'"rows of {name}"', f"[\n   {rows}\n  ]")
    return text


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
