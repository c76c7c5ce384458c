"""What every verb shares: the exit codes and how an error is shown."""

import functools
import sys
from collections.abc import Callable

from rec.errors import UserError

DONE, FAILED, WRONG_INPUT, STOPPED = 0, 1, 2, 3
"""Exit codes: done; a defect; the user's input is wrong; stopped by a signal with a checkpoint saved."""


def command(main: Callable[[], int]) -> Callable[[], int]:
    """A verb's `main`, with user errors shown as one sentence and exit code 2."""

    @functools.wraps(main)
    def run() -> int:
        try:
            return main()
        except UserError as error:
            print(f"{sys.argv[0].split('/')[-1]}: {error}", file=sys.stderr)
            return WRONG_INPUT

    return run
