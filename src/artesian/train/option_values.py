"""The values that the launch agent's options take, read from the words of a command line.

Each raises argparse.ArgumentTypeError where the text is no such value.
"""

import argparse
import math

from artesian.train.recovery import CAUSES
from artesian.train.terms import Address
from artesian.train.torchrun_options import counted

_LAST_PORT = 65_535


def count(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def workers(text: str) -> int:
    """Return a number of workers, also of those that ``gpu``, ``cpu`` or ``auto`` stand for here."""
    return counted(text) if text in ("gpu", "cpu", "auto") else count(text)


def span(text: str) -> tuple[int, int]:
    """Return the least and the most of ``N`` or ``MIN:MAX``."""
    low, _, high = text.partition(":")
    found = count(low), count(high or low)
    if found[0] > found[1]:
        raise argparse.ArgumentTypeError(f"expected MIN:MAX with MIN at most MAX, got {text!r}")
    return found


def endpoints(text: str) -> tuple[Address, ...]:
    """Return hosts and ports of ``HOST:PORT``, several separated by commas."""
    found = []
    for item in text.split(","):
        host, _, port = item.rpartition(":")
        if not host or not port.isdigit() or int(port) > _LAST_PORT:
            raise argparse.ArgumentTypeError(f"expected HOST:PORT, got {item!r}")
        found.append((host.strip("[]"), int(port)))
    return tuple(found)


def port(text: str) -> int:
    """Return the number of a TCP port; 0 is any that is free."""
    if not text.isascii() or not text.isdigit() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to {_LAST_PORT}, got {text!r}")
    return int(text)


def causes(text: str) -> frozenset[str]:
    """Return causes of a restart, separated by commas."""
    found = frozenset(text.split(","))
    if unknown := found - {*CAUSES}:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(CAUSES)}, got {min(unknown)!r}")
    return found


def whole(text: str) -> int:
    """Return a whole number, 0 or more."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Return seconds, 0 or more."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more, got {text!r}")
    return found
