"""`kindling launch CONFIG [key=value ...] --processes N`: train on several processes of this machine."""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from launch.command import DONE, FAILED, STOPPED, WRONG_INPUT, add_profile, command
from launch.strategy import NAMES, named
from rec.errors import ConfigError

if TYPE_CHECKING:
    from rec.config.tree import Run

SIGNALS = "SIGTERM,SIGINT,SIGUSR1,SIGHUP,SIGQUIT"
"""What is passed on to the processes, so that they save: torchrun's own choice, and the one of batch systems."""
MARGIN = 20
"""Seconds after the grace time of a run, at whose end it ends itself, until its processes are killed."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="kindling launch",
        description="Train on several processes of this machine. Prints the command that it runs.",
    )
    parser.add_argument("config", type=Path, help="YAML file of the run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace those of the file")
    parser.add_argument("--processes", type=int, metavar="N", help="default: one per GPU; one, where there is none")
    parser.add_argument("--strategy", help=f"{', '.join(NAMES)}, or a DeepSpeed JSON file; default: ddp for several")
    parser.add_argument(
        "--max-restarts",
        type=int,
        default=0,
        metavar="R",
        help="times that all go on from the newest checkpoint after one has died (default 0)",
    )
    add_profile(parser)
    return parser.parse_intermixed_args()


@command
def main() -> int:
    """Checks what can be checked here, once, and starts the processes; the exit code is the run's own."""
    given = arguments()
    from rec.config.load import load

    run = load(given.config, given.overrides)
    processes = check(run, given.processes, given.strategy)
    words = torchrun(given, processes, run.train.grace)
    print(shlex.join([sys.executable, "-m", "torch.distributed.run", *words]), file=sys.stderr, flush=True)
    return start(words, run.folder)


def check(run: "Run", processes: int | None, strategy: str | None) -> int:
    """How many processes to start. Raises what would otherwise end each of them with the same error."""
    import torch

    from launch.train import opened
    from rec.data.feed import check_batches
    from rec.train.strategies import require_offered

    devices = torch.accelerator.device_count()
    if processes is None:
        processes = max(devices, 1)
    if processes < 1:
        raise ConfigError(f"--processes is {processes}; choose 1 or more")
    if 0 < devices < processes:
        raise ConfigError(f"--processes is {processes} but this machine has {devices} GPUs; choose up to {devices}")
    check_batches(run.data, processes)
    if strategy is not None:
        require_offered(named(strategy).name, run)
    opened(run, None)
    return processes


def torchrun(given: argparse.Namespace, processes: int, grace: float) -> list[str]:
    """The words after `torchrun` that train the run."""
    return [
        "--standalone",
        f"--nproc-per-node={processes}",
        f"--max-restarts={given.max_restarts}",
        f"--signals-to-handle={SIGNALS}",
        f"--shutdown-timeout={round(grace) + MARGIN}",
        *("-m", "launch.train", str(given.config), *given.overrides),
        *(("--strategy", given.strategy) if given.strategy is not None else ()),
        *(("--profile", str(given.profile)) if given.profile else ()),
    ]


def start(words: list[str], folder: Path) -> int:
    """Runs torchrun within this process, which hears the signals; the exit code that the first rank had, or gave.

    What is left of the exit codes by torchrun itself is 1 for all that is not 0, and 1 for every signal.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    begun, code = time.time(), DONE
    try:
        run(parse_args(words))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        code = WRONG_INPUT if failure.exitcode == WRONG_INPUT else FAILED
        if failure.exitcode not in (WRONG_INPUT, STOPPED):
            print(f"kindling launch: {spoken(failure.exitcode)}", file=sys.stderr)
    except SignalException:
        code = FAILED
    last_word = said(folder / "status.json", since=begun)
    return code if last_word is None else last_word


def said(status: Path, *, since: float) -> int | None:
    """The exit code that the run itself has written down since then; None where it had no time to."""
    if not status.is_file():
        return None
    content = json.loads(status.read_text(encoding="utf-8"))
    return content["code"] if content["time"] >= since else None


def spoken(exitcode: int) -> str:
    """How the first process that failed has ended."""
    how = f"was killed by signal {-exitcode}" if exitcode < 0 else f"has ended with exit code {exitcode}"
    return f"a process {how}; without restarts left, that ends the run"


if __name__ == "__main__":
    sys.exit(main())
