"""The signals that a launch agent gets, as bytes on a socket: an event to wait for, like all others."""

import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType


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


def _wake(number: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing: the wake-up socket has told ``select`` already."""
