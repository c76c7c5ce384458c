"""docs/reliability.md out of docs/reliability.json: no number is typed by hand."""

from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
JSON, PAGE = ROOT / "docs/reliability.json", ROOT / "docs/reliability.md"
PHASES = {
    "meeting": "ranks meet",
    "start": "start, resume",
    "training": "training",
    "evaluation": "evaluation",
    "end": "end",
}
SAVES = ("in a save: writing", "in a save: committing", "torn folder left")
Found = dict[str, Any]


def render(found: Found) -> str:
    """The page."""
    parts = [head(found), kills(found["kills"]), matrix(found["matrix"]), how(found["kills"]), LIMITS]
    return "\n".join(part.strip() + "\n" for part in parts)


def head(found: Found) -> str:
    killed, runs, lossy = len(hits(found["kills"]["rows"])), len(found["kills"]["rows"]), found["kills"]["lost"]
    cells, failed = len(found["matrix"]["rows"]), found["matrix"]["lost"]
    verdict = (
        "each run ended bit for bit as the undisturbed one, and nothing was lost"
        if lossy == 0
        else f"**{lossy} runs did not end as the undisturbed one**"
    )
    return f"""
# Reliability

{killed} kills with SIGKILL at random moments in {runs} runs: {verdict}.
{cells - failed} of {cells} cells of the matrix strategy x backbone x event passed.

This page is made by `benchmarks/reliability.py` out of [reliability.json](reliability.json), which has every run;
`make reliability` measures all of it anew.
"""


def about(part: Found) -> str:
    """How a part was measured."""
    kept = ("python", "torch", "transformers", "accelerate", "deepspeed", "numpy")
    versions = ", ".join(f"{name} {part['versions'][name]}" for name in kept if name in part["versions"])
    return f"""`{part["command"]}`, {part["date"]}:
{part["minutes"]:g} minutes on {part["cores"]} CPU cores with other work beside it (load {part["load"]:g}).
{versions}."""


def hits(trials: list[Found]) -> list[Found]:
    return [hit for trial in trials for hit in trial["kills"]]


def kills(part: Found) -> str:
    strategies = list(dict.fromkeys(trial["strategy"] for trial in part["rows"]))
    rows = [row(name, [one for one in part["rows"] if one["strategy"] == name]) for name in strategies]
    rows.append(row("**all**", part["rows"]))
    killed = hits(part["rows"])
    alone = [hit for hit in killed if len(hit["victims"]) == 1]
    return f"""
## Random kills

{about(part)} Seeds {part["seeds"][0]} to {part["seeds"][1]}.

What the first victim was at when it was killed; and, of the same kills, how many fell inside a save, which runs beside
that: while files were written, or while they were being made a checkpoint and the best model published.

| strategy | runs | kills | {" | ".join(PHASES.values())} | {" | ".join(SAVES)} | lost something |
| --- | {" | ".join(["---:"] * (len(PHASES) + 6))} |
{chr(10).join(rows)}

{len(killed) - len(alone)} kills hit all ranks of several at once, {len(alone)} hit one rank, or the only one.
{waits(part["rows"])}
No process and no lock on a run folder outlived its ranks.
"""


def waits(trials: list[Found]) -> str:
    """What the others did when one of several was killed."""
    several = [hit for trial in trials for hit in trial["kills"] if len(hit["victims"]) < trial["world"]]
    took = [hit["others"] for hit in several if hit["others"] is not None]
    if not took:
        return ""
    return f"""Of several ranks one was killed {len(several)} times; {len(took)} times the others ended by themselves,
within {median(took):.2f} s (median), {max(took):.2f} s (longest). {len(several) - len(took)} times groups of processes
were just being made, and the harness ended the others, as a launcher does."""


def row(name: str, trials: list[Found]) -> str:
    killed = hits(trials)
    phases, saves = Counter(hit["phase"] for hit in killed), Counter(hit["save"] for hit in killed)
    lost = sum(bool(trial["differences"] or trial["wrong"]) for trial in trials)
    numbers = [len(trials), len(killed), *(phases[phase] for phase in PHASES)]
    numbers += [saves["writing"], saves["committing"], sum(hit["torn"] for hit in killed), lost]
    return f"| {name} | {' | '.join(map(str, numbers))} |"


def matrix(part: Found) -> str:
    events = list(dict.fromkeys(one["event"] for one in part["rows"] if one["strategy"] != "single"))
    cells = {(one["strategy"], one["architecture"], one["event"]): one for one in part["rows"]}
    lines = [f"| strategy | backbone | {' | '.join(events)} |", f"| --- | --- | {' | '.join(['---'] * len(events))} |"]
    for strategy, architecture in dict.fromkeys((one["strategy"], one["architecture"]) for one in part["rows"]):
        texts = [text(cells.get((strategy, architecture, event))) for event in events]
        lines.append(f"| {strategy} | {architecture} | {' | '.join(texts)} |")
    failed = [
        f"- {one['strategy']}, {one['architecture']}, {one['event']}: {one['fault']}"
        for one in part["rows"]
        if one["fault"]
    ]
    table, rest = "\n".join(lines), max(one["rest"] or 0 for one in part["rows"])
    return f"""
## Strategy x backbone x event

{about(part)}

Every run has 12 steps.

- *train*: the largest relative deviation of any loss, or part of a loss, from the run of one process.
- *kill*: all ranks killed after their second save, and the same command again.
- *stop*: stopped by a signal to one rank, twice, and the same command again.
- *N to M ranks*, and *to another strategy*
  ({moves(part)}):
  stopped, and gone on with by the others, without any conversion. What they hold then is bit-equal to what was saved,
  the windows of every step are those that one process reads, and the largest deviation of a loss is given, which may be
  1e-5. One rank is a single process, under no strategy.

The rest deviates by {rest:.0e} at most, and may by 1e-4: the norm of the gradients, a sum of 126,000 squares in fp32
that each strategy cuts elsewhere, and validation metrics, which jump where two items whose scores are all but equal
change places.

{table}
{chr(10).join(["", *failed]) if failed else ""}
"""


def moves(part: Found) -> str:
    pairs = [(one["strategy"], one["then"]) for one in part["rows"] if one["event"] == "to another strategy"]
    return ", ".join(f"{before} to {after}" for before, after in dict.fromkeys(pairs))


def text(cell: Found | None) -> str:
    if cell is None:
        return ""
    if cell["fault"]:
        return "**failed**"
    if (cell["strategy"], cell["event"]) == ("single", "train"):
        return "the reference"
    return "bit-equal" if cell["losses"] is None else f"{cell['losses']:.0e}"


def how(part: Found) -> str:
    return f"""
## How

A run trains a model of about 126,000 parameters (a table of 6,000 items, two layers of the backbone at a width of 32)
with dropout, negatives and all terms of the loss; it saves every 2 steps and evaluates every 4. Undisturbed it takes
up to {part["longest"]:.1f} s here. One to three kills are drawn for each disturbed run: at any time of the length of
the run, at a time of its start (of the resume, for the second and third kill), or a random few milliseconds after a
save has begun its folder, marked it, or renamed it; of one random rank, or of all. After each, the same command is
started again.
Ranks are processes forked from one that has done the imports; they meet over TCP, as under a launcher, and are killed
by their process id.

Compared at the end with the undisturbed run, all bit for bit: parameters and moments; the states of the generators of
Python, NumPy and PyTorch on each rank, which draw in every step for this purpose; all lines of `metrics.jsonl` but
time, speed and memory; the published model; a digest of every batch that each rank has read in each start, and what was
drawn then. Every checkpoint that is left has to be whole, and the run folder unlocked.
"""


LIMITS = """
## Limits

- CPU, gloo and one machine; fp32. Nothing here says anything of NCCL, of several nodes, or of network disks.
- SIGKILL ends processes, not the machine: what the kernel has in its memory still gets to the disk. Files and folders
  are brought to the disk (fsync) before they count, but no power was cut.
- While groups of processes are being made, in the column *ranks meet* and at times up to the first step, a rank that
  dies is not noticed by the others before some multiple of `train.hang_after`. Launchers end them at once.
- Small models: a save takes longer here, compared with a step, than it would in a long training.
"""
