"""Which errors would come again: a restart for them only puts off the end.

Three kinds. What storage refuses for good, and a guard that has given up, say so themselves (``TrainError.is_final``).
And before its first step, in the gang's first forming, a program that is wrong is as wrong the next time: it cannot be
compiled, imports what is not there, names what it has not defined, or asks of artesian or of its own command line what
they do not take. After a step the same error may be another worker's, or the machine's: that is worth a restart.
"""

import errno
from types import TracebackType

from artesian.train.errors import DataError, TrainError

USAGE = 2
"""Exit code of a program whose command line is wrong, by convention."""
_LASTING = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
    }
)
_WRONG_PROGRAM = (SyntaxError, ImportError, NameError, DataError)
_WRONG_ARGUMENT = (ValueError, TypeError)
_ARGUMENT_PARSERS = ("argparse", "click.core")


def is_lasting(error: BaseException) -> bool:
    """Return whether what reading or writing has met stays as it is: a full disk does, one that does not answer may not."""
    if not isinstance(error, OSError):
        return True  # what was read is damaged
    return error.errno in _LASTING or isinstance(error, FileNotFoundError | PermissionError)


def is_final(error: BaseException, *, is_first_start: bool) -> bool:
    """Return whether the end by ``error`` would come again after a restart.

    ``is_first_start`` says that the worker has come to no step, in the first forming of its gang.
    """
    if isinstance(error, TrainError) and error.is_final:
        return True
    if not is_first_start or any(isinstance(it, OSError) and not is_lasting(it) for it in _chain(error)):
        return False
    if isinstance(error, SystemExit):
        return error.code == USAGE and _raised_in(error.__traceback__).startswith(_ARGUMENT_PARSERS)
    if isinstance(error, _WRONG_ARGUMENT):
        return f"{_raised_in(error.__traceback__)}.".startswith("artesian.")
    return isinstance(error, _WRONG_PROGRAM)


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error, and those that it came of."""
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return found


def _raised_in(trace: TracebackType | None) -> str:
    """Return the module whose code has raised."""
    name = ""
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    return name
