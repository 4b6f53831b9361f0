"""Sets of time, as disjoint intervals in whole microseconds."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

Interval = tuple[int, int]
"""From the first up to, but without, the second."""


class Times:
    """A set of moments. Overlaps in ``intervals`` count once; those that end before they start are empty."""

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._before: list[int] = []
        covered = 0
        for start, end in sorted(intervals):
            if end <= start:
                continue
            if self._ends and start <= self._ends[-1]:
                covered += max(0, end - self._ends[-1])
                self._ends[-1] = max(end, self._ends[-1])
                continue
            self._starts.append(start)
            self._ends.append(end)
            self._before.append(covered)
            covered += end - start
        self.length = covered
        """Microseconds in the set."""

    def __iter__(self) -> Iterator[Interval]:
        return zip(self._starts, self._ends, strict=True)

    def length_within(self, start: int, end: int) -> int:
        """Return how many microseconds of the set lie in [start, end)."""
        return max(0, self._length_until(end) - self._length_until(start))

    def clipped(self, start: int, end: int) -> "Times":
        """Return the part of the set in [start, end)."""
        return Times((max(first, start), min(last, end)) for first, last in self)

    def within(self, others: "Times") -> "Times":
        """Return the part of the set that is in one of ``others``."""
        return Times(piece for start, end in others for piece in self.clipped(start, end))

    def without(self, others: "Times") -> "Times":
        """Return the part of the set that is in none of ``others``."""
        left: list[Interval] = []
        for start, end in self:
            for gone, back in others:
                if back <= start:
                    continue
                if gone >= end:
                    break
                left.append((start, gone))
                start = max(start, back)
            left.append((start, end))
        return Times(left)

    def _length_until(self, moment: int) -> int:
        index = bisect_right(self._starts, moment) - 1
        if index < 0:
            return 0
        return self._before[index] + min(moment, self._ends[index]) - self._starts[index]
