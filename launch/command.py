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


def command(main: Callable[[], int]) -> Callable[[], int]:
    """A verb's `main`, with user errors shown as one sentence and exit code 2."""

    @functools.wraps(main)
    def run() -> int:
        try:
            return main()
        except UserError as error:
            if error.told:
                return WRONG_INPUT
            say = str(error)
        except OSError as error:
            if error.errno not in PLACES:
                raise
            say = (
                f"cannot use {error.filename or 'the disk'}: {error.strerror}; choose another place, or make room there"
            )
        print(f"{sys.argv[0].split('/')[-1]}: {say}", file=sys.stderr)
        return WRONG_INPUT

    return run
