"""A way from one agent to another that a test can cut, and mend."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress


class Relay:
    """Passes on to port ``target`` what comes to ``port``, both on loopback, for as long as it is not cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self.connections = 0
        """How many there have been that reached the target."""
        self._is_cut = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def cut(self) -> None:
        """End all connections, and let no new ones through."""
        with self._lock:
            self._is_cut = True
            for side in self._open:
                _end(side)

    def mend(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._is_cut = False

    def close(self) -> None:
        """End all that it does."""
        self.cut()
        _end(self._door)
        for thread in self._threads:  # the one that adds to them comes first
            thread.join()
        self._door.close()

    def _start(self, run: object, *sides: socket.socket) -> None:
        thread = threading.Thread(target=run, args=sides)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._door.accept()
                self._start(self._serve, caller)

    def _serve(self, caller: socket.socket) -> None:
        with (
            closing(caller),
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self._target)) as called,
        ):
            with self._lock:
                if self._is_cut:
                    return
                self.connections += 1
                self._open |= {caller, called}
            back = threading.Thread(target=_pump, args=(called, caller))
            back.start()
            _pump(caller, called)
            back.join()
            with self._lock:
                self._open -= {caller, called}


@contextmanager
def relay_to(target: int) -> Iterator[Relay]:
    """Give a relay, and end it."""
    relay = Relay(target)
    with closing(relay):
        yield relay


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    _end(source)
    _end(sink)


def _end(side: socket.socket) -> None:
    with suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)
