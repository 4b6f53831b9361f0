"""Ports for servers that bind them some time after they were chosen.

They lie below those that the kernel gives to whoever asks for any (32768 and up): nobody who connects, or listens on
port 0, takes one in between. Who else looks for one draws by chance too, so that two seldom meet.
"""

import random
import socket

_FIRST, _LAST = 15_000, 32_000
_chance = random.SystemRandom()  # the generator of `random` is the same in each process where a test seeds it


def free_ports(count: int) -> list[int]:
    """Return so many different ports of 127.0.0.1 that nobody listens on."""
    found: set[int] = set()
    while len(found) < count:
        port = _chance.randrange(_FIRST, _LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.add(port)
    return list(found)


def free_port() -> int:
    (port,) = free_ports(1)
    return port
