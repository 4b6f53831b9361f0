"""Where other agents find this one: the addresses that it listens at."""

import contextlib
import resource
import selectors
import socket
import time
from collections.abc import Callable

from artesian.train.listening import listen
from artesian.train.neighbour import Guest, Neighbour, ask
from artesian.train.terms import Address

_PATIENCE_S = 5.0
_MOST_GUESTS = 512
_MANY_FILES = 65_536


class Doors:
    """The listening sockets of an agent; ``on_guest`` gets who has come there and says something.

    The agent has one thread, and who says nothing, such as a scanner of ports, must not hold it up.
    """

    def __init__(self, selector: selectors.BaseSelector, on_guest: Callable[[Guest], object]) -> None:
        self._selector = selector
        self._on_guest = on_guest
        self._sockets: dict[Address, socket.socket] = {}
        self._guests: list[Guest] = []
        """Who has not said anything yet, in the order of their coming."""

    def open_towards(self, endpoint: Address) -> Address | None:
        """Listen where ``endpoint``'s network knows this node, and return that; None if some door is open, or none can be."""
        if self._sockets:
            return None
        with contextlib.suppress(OSError), socket.create_connection(endpoint, timeout=2.0) as probe:
            host = probe.getsockname()[0]
            return (host, self.open((host, 0)))
        return None

    def is_open(self, address: Address) -> bool:
        """Return whether this node listens at ``address`` itself."""
        return address in self._sockets

    def open(self, address: Address) -> int:
        """Listen at ``address``, and return the port. Raises OSError where it cannot be had."""
        if (known := self._sockets.get(address)) is not None:
            return int(known.getsockname()[1])
        _allow_many_files()
        listener = listen(address, backlog=256)
        self._sockets[address] = listener
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._let_in(listener))
        return int(listener.getsockname()[1])

    def shut(self, address: Address) -> None:
        """Listen at ``address`` no more."""
        listener = self._sockets.pop(address, None)
        if listener is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(listener)
            listener.close()

    def close(self) -> None:
        """Listen nowhere any more. Calling it again does nothing."""
        for address in list(self._sockets):
            self.shut(address)
        while self._guests:
            self._forget(self._guests[0]).close()

    def _let_in(self, listener: socket.socket) -> None:
        self._see_out()
        try:
            connection, _ = listener.accept()
        except OSError:  # it has gone again, or there is no room for another file
            return
        guest = ask(connection)
        self._guests.append(guest)
        self._selector.register(guest.peer.socket, selectors.EVENT_READ, lambda: self._hear(guest))

    def _hear(self, guest: Guest) -> None:
        self._forget(guest)
        self._on_guest(guest)

    def _see_out(self) -> None:
        """Send away who has been silent for long, and where there are many who has been for longest."""
        before_s = time.monotonic() - _PATIENCE_S
        while self._guests and (self._guests[0].peer.heard_s < before_s or len(self._guests) >= _MOST_GUESTS):
            self._forget(self._guests[0]).close()

    def _forget(self, guest: Guest) -> Neighbour:
        self._guests.remove(guest)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(guest.peer.socket)
        return guest.peer


def _allow_many_files() -> None:
    """Let this process have a file for each of many nodes: it may be the leader, and a soft limit of 1024 is common.

    No more than that: old programs that a worker starts close every file that they might have, one by one.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if most == resource.RLIM_INFINITY else min(_MANY_FILES, most)
    if resource.RLIM_INFINITY != now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
