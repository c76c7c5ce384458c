"""What every verb shares: the exit codes and how an error is shown."""

import argparse
import errno
import functools
import sys
from collections.abc import Callable
from pathlib import Path

from rec.errors import UserError

DONE, FAILED, WRONG_INPUT, STOPPED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes: done; a defect; the user's input is wrong; stopped by a signal with a checkpoint saved; by Ctrl-C,
where nothing can be gone on with."""


FULL = {errno.ENOSPC, errno.EDQUOT}
PLACES = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, *FULL}
"""What the system says of a path that cannot be used: the user's to mend, not a defect."""


def add_profile(parser: argparse.ArgumentParser) -> None:
    """`--profile [STEPS]`, which is nothing of a run: another time it may be left out."""
    parser.add_argument(
        "--profile",
        type=_steps,
        nargs="?",
        const=10,
        default=0,
        metavar="STEPS",
        help="take apart the time of some steps (10, if no number is given), in RUN/profile",
    )


def _steps(word: str) -> int:
    if not (word.isdecimal() and int(word)):
        raise argparse.ArgumentTypeError(f"{word} is no number of steps; give 1 or more, or put --profile last")
    return int(word)


def code_of(error: BaseException) -> int:
    """Exit code of a command that ends with an error."""
    theirs = isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in PLACES)
    return WRONG_INPUT if theirs else FAILED


def command(main: Callable[[], int]) -> Callable[[], int]:
    """A verb's `main`, with user errors shown as one sentence and exit code 2; Ctrl-C is no defect either."""

    @functools.wraps(main)
    def run() -> int:
        try:
            return main()
        except (UserError, OSError) as error:
            if code_of(error) != WRONG_INPUT:
                raise
            if vars(error).get("told"):  # by the first rank
                return WRONG_INPUT
            say = str(error)
            if isinstance(error, OSError):
                remedy = "choose another place, or make room there" if error.errno in FULL else "choose another place"
                say = f"cannot use {error.filename or 'the disk'}: {error.strerror}; {remedy}"
        except KeyboardInterrupt:
            print(f"{name()}: interrupted", file=sys.stderr)
            return INTERRUPTED
        print(f"{name()}: {say}", file=sys.stderr)
        return WRONG_INPUT

    return run


def name() -> str:
    """What was typed, `kindling VERB`; also where a launcher started the module."""
    typed = Path(sys.argv[0])
    return f"kindling {typed.stem}" if typed.suffix == ".py" else typed.name
