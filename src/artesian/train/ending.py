"""The end of a worker: what the interpreter does at its end, except to take itself apart.

Threads that are in a library's code at that moment, such as gloo's own, cannot have the interpreter back any
more. CPython ends them where they stand, C++ takes that for an error, and a run that is complete ends with
SIGABRT ("terminate called without an active exception"). Taking torch apart needs half a second besides.
multiprocessing ends the processes that it forks like this, too.
"""

import atexit
import contextlib
import ctypes
import gc
import io
import os
import sys
import threading
from typing import NoReturn


def end(code: object) -> NoReturn:
    """End this process with what ``SystemExit.code`` asks for, after threads, exit handlers and open files."""
    status = 1
    try:
        status = _status(code)
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
        atexit._run_exitfuncs()
        _close_files()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = status or 1
    finally:
        _flush()
        os._exit(status)


def _status(code: object) -> int:
    """As ``sys.exit`` has it: a number, None for 0, and anything else is told and is 1."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


def _close_files() -> None:
    """Close what the script left open, which writes down what is still in memory."""
    kept = {id(layer) for stream in _standard() for layer in _layers(stream)}
    # By type: an object's own ``__class__`` may be a proxy's, which does things.
    files = [
        found for found in gc.get_objects() if issubclass(type(found), io.IOBase) and id(found) not in kept
    ]
    for file in sorted(files, key=_depth):
        with contextlib.suppress(Exception):  # nobody is left to be told, as in the interpreter's own end
            file.close()


def _depth(file: io.IOBase) -> int:
    """What writes to another file, as text and compressed files do, is closed before it."""
    if isinstance(file, io.RawIOBase):
        return 3
    if isinstance(file, io.BufferedWriter | io.BufferedRandom):
        return 2
    if isinstance(file, io.BufferedIOBase):  # of another kind: gzip and the like, on top of one of those
        return 1
    return 0


def _layers(stream: object) -> list[object]:
    buffer = getattr(stream, "buffer", None)
    return [stream, buffer, getattr(buffer, "raw", None)]


def _standard() -> tuple[object, ...]:
    return (sys.stdin, sys.stdout, sys.stderr, sys.__stdin__, sys.__stdout__, sys.__stderr__)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a pipe that nobody reads any more
            stream.flush()
    ctypes.CDLL(None).fflush(None)  # what libraries printed
