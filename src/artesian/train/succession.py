"""Who leads once the leader is lost: the first of the others, in the order of their coming, who answers."""

import time
from collections.abc import Callable, Mapping

from artesian.train.terms import Address

RETURN_S = 2.0
"""How long who is to lead may take to notice it, and who is to follow, to come."""


def seek_leader(
    members: Mapping[str, Address], own: str, follow: Callable[[Address], bool]
) -> list[str] | None:
    """Return whom of ``members``, in their order, this node passed over and so leads; None where it follows one.

    ``own`` is this node, ``follow`` says whether who is at an address leads, and is followed from here on.
    """
    passed_over: list[str] = []
    for member, address in members.items():
        if member == own:
            break
        deadline_s = time.monotonic() + RETURN_S
        while time.monotonic() < deadline_s:
            if follow(address):
                return None
            time.sleep(0.02)
        passed_over.append(member)
    return passed_over


class Shortage:
    """That a leader has too few nodes, and waits for more: for ``timeout_s`` seconds at most."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._until_s: float | None = None

    @property
    def is_on(self) -> bool:
        """Whether nodes are missing."""
        return self._until_s is not None

    def begin(self) -> None:
        """Note that nodes are missing; again changes nothing."""
        self._until_s = self._until_s or time.monotonic() + self._timeout_s

    def end(self) -> None:
        """Note that enough are there."""
        self._until_s = None

    def is_over(self, now_s: float) -> bool:
        """Return whether the time for them to come is over."""
        return self._until_s is not None and now_s >= self._until_s
