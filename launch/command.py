"""What every verb shares: the exit codes and how an error is shown."""

import errno
import functools
import sys
from collections.abc import Callable

from rec.errors import UserError

DONE, FAILED, WRONG_INPUT, STOPPED = 0, 1, 2, 3
"""Exit codes: done; a defect; the user's input is wrong; stopped by a signal with a checkpoint saved."""


PLACES = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EISDIR}
"""What the system says of a path that cannot be used: the user's to mend, not a defect."""


def code_of(error: BaseException) -> int:
    """Exit code of a command that ends with an error."""
    theirs = isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in PLACES)
    return WRONG_INPUT if theirs else FAILED


def command(main: Callable[[], int]) -> Callable[[], int]:
    """A verb's `main`, with user errors shown as one sentence and exit code 2."""

    @functools.wraps(main)
    def run() -> int:
        try:
            return main()
        except (UserError, OSError) as error:
            if getattr(error, "told", False):
                return WRONG_INPUT
            if code_of(error) != WRONG_INPUT:
                raise
            say = str(error)
            if isinstance(error, OSError):
                where = error.filename or "the disk"
                say = f"cannot use {where}: {error.strerror}; choose another place, or make room there"
        print(f"{sys.argv[0].split('/')[-1]}: {say}", file=sys.stderr)
        return WRONG_INPUT

    return run
