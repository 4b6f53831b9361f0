"""A worker's line to its launch agent: its heartbeat, and what is to be done when a peer is lost.

The agent hands every worker two file descriptors: the page of its heartbeat, and one end of a socket for
JSON messages, one a packet.

The worker's messages carry the ``round`` that they speak of: an error of a round that is over is no failure.

With ``"is_final": true`` an error is one that would come again, ``"code"`` is the exit code that comes of it.

worker → agent  ``{"offers": "rejoin"}``                 it can form the gang anew within its process
                ``{"failed": TEXT}``                     an error ended its work, and it leaves
                ``{"failed": TEXT, "trace": TRACEBACK}`` the same, and it asks whether the error is its own
                ``{"slow": TEXT}``                       it holds the others up: replace it, where that can be
                ``{"unfit": TEXT}``                      its node is no good: replace it, where that can be
                ``{"unfit": TEXT, "ahead": N}``          the same, and go on without it where none replaces it and enough
                                                         are left when N others have gone before
                ``{"against": [TEXT, …], "device": NAME}``  what speaks against its device as it takes it into use
                ``{"rejoined": ROUND}``                  it has let go of the old gang, and comes to the new
agent → worker  ``{"round": N, "env": {…}}``             come to this round, with these variables
                ``{"yours": true}``                      the error that you reported is your own
"""

import atexit
import contextlib
import faulthandler
import json
import os
import select
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from artesian.train.finality import is_final
from artesian.train.heartbeat import Activity, Heart
from artesian.train.worker_process import TRACE_SIGNAL
from artesian.wire import environment

_ALIVE_EVERY_S = 0.2
_MESSAGE_BYTES = 65_536
_UNBLOCK_AFTER_S = 0.5
_TEXT = 8_192


class PeerLost(BaseException):
    """Another worker is gone, and the agent forms the gang anew. Meant for ``resilient`` alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One forming of the gang: its number, and the variables that tell this worker its place."""

    number: int
    env: dict[str, str]


class Link:
    """The worker's end. One thread of it says that the interpreter runs, and listens."""

    def __init__(self, page: int, control: int, number: int) -> None:
        self.heart = Heart(page)
        os.close(page)
        self._control = socket.socket(fileno=control)
        self._number = number
        self._told = threading.Condition()
        self._next: Round | None = None
        self._is_own_fault = False
        self._is_watching = False
        self._unblock: Callable[[], None] | None = None
        # It writes from the handler of the signal, in C: held by Python or not, the lock does not matter.
        faulthandler.register(TRACE_SIGNAL, file=2, all_threads=True)
        # The end of an interpreter that has torch in it takes a second, and longer where the machine is busy.
        atexit.register(self.heart.set, Activity.BUSY)
        self.heart.alive()
        threading.Thread(target=self._serve, name="artesian-link", daemon=True).start()

    def offer_rejoin(self, unblock: Callable[[], None]) -> None:
        """Tell the agent that this worker survives the loss of a peer.

        ``unblock`` is called, in another thread, when the worker does not come back from a collective.
        """
        self._unblock = unblock
        self._send({"offers": "rejoin"})

    def check(self) -> None:
        """Raise PeerLost when the gang is being formed anew."""
        if self._next is not None and self._unblock is not None:
            raise PeerLost

    @property
    def is_first_start(self) -> bool:
        """Whether this worker has come to no step, in the gang's first forming."""
        return self._number == 0 and not self.heart.has_begun

    def failed(self, text: str, *, is_final: bool = False, code: int = 1) -> None:
        """Tell the agent that this worker is about to leave with an error, and whether it would come again."""
        self._send({"failed": text[-_TEXT:], "is_final": is_final, "code": code})

    def failed_of(self, error: BaseException) -> None:
        """Tell the agent that this worker is about to leave with ``error``, and whether it would come again."""
        text = f"{type(error).__name__}: {error}"[:500]
        self.failed(text, is_final=is_final(error, is_first_start=self.is_first_start))

    def tell_of_errors(self) -> None:
        """Have the agent told of an error that ends this process, once it is printed."""
        before = sys.excepthook

        def told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            before(kind, error, trace)
            if issubclass(kind, Exception):
                self.failed_of(error)

        sys.excepthook = told

    def is_slow(self, text: str) -> None:
        """Tell the agent that this worker holds the others up, and should be replaced."""
        self._send({"slow": text[-_TEXT:]})

    def is_unfit(self, text: str, *, ahead: int | None = None) -> None:
        """Tell the agent that this worker's device or node is no good, and that a spare one should take its place.

        Where there is none the gang may go on without it, once ``ahead`` other nodes have gone; None: it stays.
        """
        self._send({"unfit": text[-_TEXT:], **({} if ahead is None else {"ahead": ahead})})

    def watch_device(self, device: Any) -> None:
        """Have a spare node take over when a fault of this ``torch.device`` comes to be known; once for the process."""
        if device.type == "cuda" and not self._is_watching:
            self._is_watching = True
            # Other workers need none of it.
            from artesian.train.faults import FaultWatch, Lookout
            from artesian.train.reporter import say

            def tell(reason: str) -> None:
                say(f"a fault of {device}: {reason}")
                self.is_unfit(reason)

            lookout = Lookout(FaultWatch.of(device), tell)
            # A fault may end its worker before it is told: the agent knows what was against the device before that.
            self._send({"against": list(lookout.before), "device": str(device)})
            lookout.start()

    def next_round(self, text: str, trace: str, *, is_final: bool = False) -> Round | None:
        """Report an error; return the round to come to, None when the error is this worker's own."""
        self._send({"failed": text[-_TEXT:], "trace": trace[-_TEXT:], "is_final": is_final})
        with self._told:
            self._told.wait_for(lambda: self._next is not None or self._is_own_fault)
            found, self._next = self._next, None
        return found

    def rejoined(self, number: int) -> None:
        """Tell the agent that the old gang is left behind."""
        self._number = number
        self._send({"rejoined": number})

    def _send(self, message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):  # the agent is gone, and the kernel ends us
            self._control.send(_packet({**message, "round": self._number}))

    def _serve(self) -> None:
        unblock_in: int | None = None
        # Not by select, which takes no more than 1024 files: an agent may have given us a later one.
        waiting = select.poll()
        waiting.register(self._control, select.POLLIN)
        while True:
            ready = waiting.poll(1000 * _ALIVE_EVERY_S)
            self.heart.alive()
            if ready:
                data = self._control.recv(_MESSAGE_BYTES)
                if not data:
                    return
                message = json.loads(data)
                with self._told:
                    if "round" in message:
                        self._next = Round(number=message["round"], env=message["env"])
                        unblock_in = int(_UNBLOCK_AFTER_S / _ALIVE_EVERY_S)
                    else:
                        self._is_own_fault = True
                    self._told.notify_all()
            elif unblock_in is not None and self._next is not None and self._unblock is not None:
                unblock_in -= 1
                if unblock_in <= 0:
                    unblock_in = None
                    with contextlib.suppress(Exception):  # where it cannot help, the agent kills us
                        self._unblock()


def _packet(message: dict[str, object]) -> bytes:
    """Return ``message`` as one packet that the agent reads whole: the ends of texts that are too long in bytes."""
    while len(data := json.dumps(message).encode()) > _MESSAGE_BYTES:
        message = {
            key: text[-(len(text) // 2) :] if isinstance(text, str) else text for key, text in message.items()
        }
    return data


_link: Link | None = None
_is_told_elsewhere = False


def tell_elsewhere() -> None:
    """Note that what runs this process' program tells the agent of its errors, as the template does."""
    global _is_told_elsewhere  # noqa: PLW0603  a fact about the process
    _is_told_elsewhere = True


def link() -> Link | None:
    """Return this worker's line to its launch agent; None where it has none, as under torchrun."""
    global _link  # noqa: PLW0603  one per process, as the file descriptors are
    if _link is None and (text := os.environ.pop(environment.AGENT_FDS, None)):
        page, control = (int(number) for number in text.split(","))
        os.set_inheritable(control, False)
        _link = Link(page, control, int(os.environ.get(environment.RESTART, "0")))
        if not _is_told_elsewhere:
            _link.tell_of_errors()
    return _link
