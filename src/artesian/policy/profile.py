"""How many devices of one kind will be free when: steps over time, as the estimates of what runs say."""

import math

import numpy as np

from artesian.model.capacity import FloatArray, IntArray


class Profile:
    """Free devices from ``at_s`` on: ``free[i]`` from ``times_s[i]`` to the next time, the last one for ever."""

    def __init__(self, ends_s: FloatArray, at_s: float) -> None:
        """Start from when each device comes free; -inf where it is, inf where nobody can tell."""
        ends_s = ends_s[ends_s < math.inf]
        times_s, counts = np.unique(np.maximum(ends_s, at_s), return_counts=True)
        if times_s.size == 0 or times_s[0] > at_s:
            times_s, counts = np.append(at_s, times_s), np.append(0, counts)
        self.times_s: FloatArray = times_s
        self.free: IntArray = np.cumsum(counts)

    def least(self, start_s: float, lasts_s: float) -> int:
        """Return the fewest devices that are free at any time from ``start_s``, for so long."""
        first = self._step(start_s)
        last = int(np.searchsorted(self.times_s, start_s + lasts_s, side="left"))
        return int(self.free[first : max(last, first + 1)].min())

    def earliest_s(self, devices: int, lasts_s: float) -> float:
        """Return when so many devices are free for so long; inf where that is never."""
        short = np.flatnonzero(self.free < devices)  # steps in which there are too few
        step = 0
        while True:
            nearest = int(np.searchsorted(short, step))
            if nearest == short.size:
                return float(self.times_s[step])
            blocked = int(short[nearest])
            if blocked > step and self.times_s[blocked] >= self.times_s[step] + lasts_s:
                return float(self.times_s[step])
            step = blocked + 1
            # All that is short without a gap in between is passed at once.
            while nearest + 1 < short.size and short[nearest + 1] == step:
                nearest += 1
                step += 1
            if step >= self.times_s.size:
                return math.inf

    def take(self, start_s: float, lasts_s: float, devices: int) -> None:
        """Have so many devices taken from ``start_s`` on, for so long."""
        first = self._cut(start_s)
        last = self._cut(start_s + lasts_s) if lasts_s < math.inf else self.times_s.size
        self.free[first:last] -= devices

    def _step(self, at_s: float) -> int:
        return max(0, int(np.searchsorted(self.times_s, at_s, side="right")) - 1)

    def _cut(self, at_s: float) -> int:
        """Have a step begin there; return which."""
        step = self._step(at_s)
        if self.times_s[step] >= at_s:
            return step
        self.times_s = np.insert(self.times_s, step + 1, at_s)
        self.free = np.insert(self.free, step + 1, self.free[step])
        return step + 1
