"""The signals that a launch agent gets, as bytes on a socket: an event to wait for, like all others."""

import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType

from artesian.train.worker_process import STOPS


@contextmanager
def hearing(numbers: Sequence[signal.Signals]) -> Iterator[socket.socket]:
    """Yield a socket from which the numbers of arriving signals can be read, one byte each."""
    receiver, sender = socket.socketpair()
    with receiver, sender, ExitStack() as stack:
        receiver.setblocking(False)
        sender.setblocking(False)
        stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False))
        for number in numbers:
            stack.callback(signal.signal, number, signal.signal(number, _wake))
        yield receiver


def heard(receiver: socket.socket) -> bytes:
    """Return the numbers of the signals that have arrived and were not read."""
    try:
        return receiver.recv(4096)
    except BlockingIOError:
        return b""


@contextmanager
def on_notice(act: Callable[[], None]) -> Iterator[None]:
    """Call ``act`` when a notice of preemption, or an interrupt, comes within the block, beside what the agent does about it.

    It is called wherever the agent happens to be: it must be short, and may come more than once.
    """
    _ACTS.append(act)
    try:
        yield
    finally:
        _ACTS.remove(act)


_ACTS: list[Callable[[], None]] = []


def _wake(number: int, _frame: FrameType | None) -> None:
    """Do what ``on_notice`` asks for, if anything; the wake-up socket has told ``select`` already."""
    if number in STOPS:
        for act in _ACTS:
            act()
