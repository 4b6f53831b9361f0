"""Wall-clock time for measuring: comparable between processes, monotonic within one."""

import time


class AnchoredClock:
    """Seconds since the epoch that advance with the monotonic clock.

    Messages of several workers are laid side by side, so they need a shared (wall) clock; a ledger
    needs intervals that are never negative, so a step of the system clock must not reach it.
    """

    __slots__ = ("_offset_s",)

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now_s(self) -> float:
        """Return seconds since the Unix epoch; never less than an earlier call returned."""
        return self._offset_s + time.monotonic()
