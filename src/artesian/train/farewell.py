"""That a gang's leader stays after a good end, until all the others know of it.

Who was cut off at that very moment would else take the leader for lost, and wait for the end of its gang.
"""

import time
from collections.abc import Iterable


class Farewell:
    """For ``patience_s`` seconds at most. One that was cut off needs a while to see it, and less to come back."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._unaware: set[str] = set()
        self._until_s: float | None = None

    @property
    def is_on(self) -> bool:
        """Whether it has begun, be it over or not."""
        return self._until_s is not None

    def begin(self, others: Iterable[str]) -> None:
        """Wait for the word of ``others``, who are being told."""
        self._unaware = set(others)
        self._until_s = time.monotonic() + self._patience_s

    def note(self, member: str) -> None:
        """Note that ``member`` knows."""
        self._unaware.discard(member)

    def is_over(self, now_s: float) -> bool:
        """Return whether all know, or have had the time to."""
        return self._until_s is not None and (not self._unaware or now_s >= self._until_s)
