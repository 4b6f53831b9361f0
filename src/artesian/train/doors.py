"""Where other agents find this one: the addresses that it listens at."""

import contextlib
import selectors
import socket
from collections.abc import Callable

from artesian.train.terms import Address


class Doors:
    """The listening sockets of an agent; ``on_knock`` gets the one at which somebody has come."""

    def __init__(self, selector: selectors.BaseSelector, on_knock: Callable[[socket.socket], object]) -> None:
        self._selector = selector
        self._on_knock = on_knock
        self._sockets: dict[Address, socket.socket] = {}

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
        listener = socket.create_server(address, backlog=256)
        self._sockets[address] = listener
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._on_knock(listener))
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
