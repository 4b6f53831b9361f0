"""How often memory is brought up to date where nobody says: as often as it costs little."""

import math
import time
from collections import deque
from collections.abc import Callable

_SHARE = 0.02
"""Of the time, what snapshots to memory may cost."""
_LEAST_S = 0.1
"""One snapshot in so many seconds, at most: steps that are shorter are made again more cheaply than each is kept."""
_COSTS = 5
"""Snapshots whose least cost counts: any single one may have met something else."""


class SnapshotPace:
    """Says when a snapshot is due. Times are of the monotonic clock, but for the tenths of seconds.

    Those are of the clock that nodes share: ranks whose snapshots came after different steps would each hold all
    others up in turn.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tenth = -math.inf
        self._costs_s: deque[float] = deque(maxlen=_COSTS)
        self._taken = 0
        self.last_s = -math.inf
        """When the last snapshot was begun; the first one is due at once."""

    def taken(self, at_s: float) -> None:
        """Note that a snapshot was begun."""
        self._taken += 1
        self.last_s = at_s
        self._tenth = self._clock() // _LEAST_S

    def cost(self, cost_s: float) -> None:
        """Learn what the last snapshot has cost; the first one finds its memory, and is no measure."""
        if self._taken > 1:
            self._costs_s.append(cost_s)

    def is_due(self, now_s: float) -> bool:
        """Return whether the time since the last one is long against what one costs, and worth one at all."""
        is_cheap = now_s - self.last_s >= min(self._costs_s, default=0.0) / _SHARE
        return is_cheap and self._clock() // _LEAST_S != self._tenth
