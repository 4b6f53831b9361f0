"""Faults that a job file asks for, to see that training survives them."""

import ctypes
import os
import signal

from artesian.wire.faults import FaultKind

_FOREVER_S = 86_400


def inject(kind: FaultKind | None, step: int) -> None:
    """Do to this process what ``kind`` says, just before ``step`` is committed; None: nothing."""
    match kind:
        case None:
            return
        case FaultKind.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        case FaultKind.EXCEPTION:
            raise RuntimeError(f"injected fault: exception before step {step} is committed")
        case FaultKind.STOP:
            os.kill(os.getpid(), signal.SIGSTOP)
        case FaultKind.SEGFAULT:
            ctypes.string_at(0)
        case FaultKind.GIL:
            ctypes.PyDLL(None).sleep(_FOREVER_S)  # PyDLL: without letting go of the interpreter's lock
