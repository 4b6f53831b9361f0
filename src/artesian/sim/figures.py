"""Figures over some values: means, medians, percentiles."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from msgspec import Struct


class Summary(Struct, frozen=True, kw_only=True, gc=False):
    """Figures over ``count`` values; ``p99_s`` is by nearest rank, so it is one of them."""

    count: int
    mean_s: float
    median_s: float
    p99_s: float


class Spread(Struct, frozen=True, kw_only=True, gc=False):
    """Of dimensionless values: their mean, ``p99`` by nearest rank, the largest."""

    count: int
    mean: float
    p99: float
    largest: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Return the spread of the values that are known; None where none is."""
        known = sorted(value for value in values if value is not None)
        if not known:
            return None
        return cls(
            count=len(known),
            mean=statistics.fmean(known),
            p99=known[math.ceil(0.99 * len(known)) - 1],
            largest=known[-1],
        )


def summary_of(values: Iterable[float | None]) -> Summary | None:
    """Return the figures of the values that are known; None where none is."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return Summary(
        count=len(known),
        mean_s=statistics.fmean(known),
        median_s=statistics.median(known),
        p99_s=known[math.ceil(0.99 * len(known)) - 1],
    )
