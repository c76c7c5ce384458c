"""docs/reliability.md out of docs/reliability.json: no number is typed by hand."""

from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
JSON, PAGE = ROOT / "docs/reliability.json", ROOT / "docs/reliability.md"
PHASES = {"meeting": "ranks meet", "start": "start, resume", "training": "training", "evaluation": "evaluation", "end": "end"}
Found = dict[str, Any]


def render(found: Found) -> str:
    """The page."""
    parts = [head(found), kills(found), matrix(found), how(found), LIMITS]
    return "\n".join(part.strip() + "\n" for part in parts)


def head(found: Found) -> str:
    killed = [hit for trial in found["trials"] for hit in trial["kills"]]
    passed = sum(one["fault"] is None for one in found["matrix"])
    lossy = sum(bool(trial["differences"] or trial["wrong"]) for trial in found["trials"])
    verdict = "none lost anything" if lossy == 0 else f"**{lossy} lost something**"
    return f"""
# Reliability

{len(killed)} kills with SIGKILL at random moments in {len(found["trials"])} runs: {verdict}; each run ended bit for bit as
the undisturbed one. {passed} of {len(found["matrix"])} cells of the matrix strategy x backbone x event passed.

This page is made by `benchmarks/reliability.py` out of [reliability.json](reliability.json), which has every run:

```
{found["command"]}
```

{found["date"]}, {found["minutes"]:g} minutes on {found["cores"]} CPU cores (load {found["load"]:g}: shared with other work),
seeds {found["seeds"][0]} to {found["seeds"][1]}, {", ".join(f"{name} {version}" for name, version in about(found).items())}.
"""


def about(found: Found) -> dict[str, str]:
    kept = ("python", "torch", "transformers", "accelerate", "deepspeed", "numpy")
    return {name: found["versions"][name] for name in kept if name in found["versions"]}


def kills(found: Found) -> str:
    strategies = list(dict.fromkeys(trial["strategy"] for trial in found["trials"]))
    rows = [row(name, [one for one in found["trials"] if one["strategy"] == name]) for name in strategies]
    rows.append(row("**all**", found["trials"]))
    hits = [hit for trial in found["trials"] for hit in trial["kills"]]
    waits = [hit["others"] for hit in hits if hit["others"] is not None]
    everybody = sum(len(hit["victims"]) > 1 for hit in hits)
    prompt = (
        f"Where only one rank was killed and the ranks had met, {len(waits)} times, the others ended by themselves within "
        f"{median(waits):.2f} s (median) and {max(waits):.2f} s (longest)."
        if waits
        else ""
    )
    return f"""
## Random kills

What the first victim was at when it was killed; and, of the same kills, how many fell inside a save, which runs beside
that: while files were written, or while they were being made a checkpoint and the best model published.

| strategy | runs | kills | {" | ".join(PHASES.values())} | in a save: writing | committing | torn folder left | runs that lost something |
| --- | {" | ".join(["---:"] * (len(PHASES) + 6))} |
{chr(10).join(rows)}

{everybody} kills hit all ranks at once, the others one rank. {prompt}
No process and no lock on a run folder outlived its ranks.
"""


def row(name: str, trials: list[Found]) -> str:
    hits = [hit for trial in trials for hit in trial["kills"]]
    phases, saves = Counter(hit["phase"] for hit in hits), Counter(hit["save"] for hit in hits)
    lost = sum(bool(trial["differences"] or trial["wrong"]) for trial in trials)
    numbers = [len(trials), len(hits), *(phases[phase] for phase in PHASES)]
    numbers += [saves["writing"], saves["committing"], sum(hit["torn"] for hit in hits), lost]
    return f"| {name} | {' | '.join(map(str, numbers))} |"


def matrix(found: Found) -> str:
    events = list(dict.fromkeys(one["event"] for one in found["matrix"] if one["strategy"] != "single"))
    cells = {(one["strategy"], one["architecture"], one["event"]): one for one in found["matrix"]}
    lines = [f"| strategy | backbone | {' | '.join(events)} |", f"| --- | --- | {' | '.join(['---'] * len(events))} |"]
    for strategy, architecture in dict.fromkeys((one["strategy"], one["architecture"]) for one in found["matrix"]):
        texts = [text(cells.get((strategy, architecture, event))) for event in events]
        lines.append(f"| {strategy} | {architecture} | {' | '.join(texts)} |")
    failed = [f"- {one['strategy']}, {one['architecture']}, {one['event']}: {one['fault']}" for one in found["matrix"] if one["fault"]]
    table, norm = "\n".join(lines), max(one["norm"] or 0 for one in found["matrix"])
    return f"""
## Strategy x backbone x event

Every run has 12 steps. *train*: the largest relative deviation of any loss, part of it or validation metric from the run
of one process. *kill*: all ranks killed after their second save. *stop*: stopped by a
signal to one rank, twice. *N to M ranks* and *to another strategy* ({moves(found)}):
stopped, gone on with by the others without any conversion; what they hold then is bit-equal to what was saved, the
windows of every step are those of one process, and the largest deviation from its curve is given, which may be 1e-5.
The norm of the gradients, a sum of 126,000 squares in fp32 that each strategy cuts elsewhere, deviates by {norm:.0e} at most
(it may by 1e-4).

{table}
{chr(10).join(["", *failed]) if failed else ""}
"""


def moves(found: Found) -> str:
    pairs = [(one["strategy"], one["then"]) for one in found["matrix"] if one["event"] == "to another strategy"]
    return ", ".join(f"{before} to {after}" for before, after in dict.fromkeys(pairs))


def text(cell: Found | None) -> str:
    if cell is None:
        return ""
    if cell["fault"]:
        return "**failed**"
    return "bit-equal" if cell["deviation"] is None else f"{cell['deviation']:.0e}"


def how(found: Found) -> str:
    slowest = max(found["undisturbed"].values(), key=lambda one: one["seconds"])
    return f"""
## How

A run trains a model of 126,000 parameters or a few more (tables of 6,000 items, two layers of the backbone at a width of
32) with dropout, negatives and all terms of the loss; it saves every 2 steps and evaluates every 4. Undisturbed it takes up
to {slowest["seconds"]:.1f} s. One to three kills are drawn for each disturbed run: at any time of the run's length, at a
time of its start (the resume, for the second and third kill), or a random few milliseconds after a save has begun its
folder, marked it, or renamed it; of one random rank, or of all. After each, the same command is started again. Ranks are
processes forked from one that has done the imports; they meet over TCP, as under a launcher, and are killed by their id.

Compared at the end with the undisturbed run, all bit for bit: parameters and moments; the states of the generators of
Python, NumPy and PyTorch on each rank, which draw in every step for this purpose; all lines of `metrics.jsonl` but time,
speed and memory; the published model; a digest of every batch that each rank has read in each start, and what was drawn
then. Every checkpoint that is left has to be whole, and the run folder unlocked.
"""


LIMITS = """
## Limits

- CPU, gloo and one machine; fp32. Nothing here says anything of NCCL, of several nodes, or of network disks.
- SIGKILL ends processes, not the machine: what the kernel has in its memory still gets to the disk. Files and folders
  are brought to the disk (fsync) before they count, but no power was cut.
- A rank that dies before the ranks have met cannot be noticed by the others before `train.hang_after`; a launcher ends
  them, and so does this harness. These kills are in the column *ranks meet*.
- Small models: a save takes longer here, compared with a step, than it would in a long training.
"""
