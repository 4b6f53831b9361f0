"""Faults that a worker does to itself, for tests, benchmarks and drills."""

import ctypes
import os
import signal
from typing import assert_never

from artesian.wire.faults import FaultKind


def inject(kind: FaultKind, step: int) -> None:
    """Go wrong in the way of ``kind``, just before ``step`` is committed. Raises RuntimeError for EXCEPTION."""
    match kind:
        case FaultKind.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        case FaultKind.EXCEPTION:
            raise RuntimeError(f"injected fault: exception before step {step} is committed")
        case FaultKind.STOP:
            os.kill(os.getpid(), signal.SIGSTOP)
        case FaultKind.SEGFAULT:
            ctypes.string_at(0)
        case FaultKind.GIL:
            _hold_the_lock()
        case _:
            assert_never(kind)


def _hold_the_lock() -> None:
    """Never return, nor let go of the interpreter's lock: lock a mutex twice, in a call that keeps the lock.

    No signal ends that, as one would a sleep; the stacks are asked for by one.
    """
    mutex = ctypes.create_string_buffer(64)  # zeroes are an unlocked mutex on Linux
    lock = ctypes.PyDLL(None).pthread_mutex_lock
    lock(mutex)
    lock(mutex)
