"""What one caller may take: a token bucket for each, and how large what they send may be."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MOST_CALLERS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of the server.

    ``requests_per_s`` and ``burst`` hold for each caller. ``body_bytes`` is the largest body, except
    ``bulk_bytes`` of a bulk submit, which has up to ``bulk_jobs`` jobs. ``queued_jobs`` is how many jobs may
    wait before submits are refused. ``streams`` is how many event streams may be open at once.
    """

    requests_per_s: float = 500.0
    burst: float = 1_000.0
    body_bytes: int = 2**21
    bulk_bytes: int = 2**24
    bulk_jobs: int = 1_000
    queued_jobs: int = 1_000_000
    streams: int = 1_000


class Buckets:
    """One token bucket per caller; the one who has been away longest is forgotten first."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._now_s = rate, burst, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, caller: str) -> float | None:
        """Return the seconds until ``caller`` may take 1 again; None where they may now."""
        level, at_s = self._levels.get(caller, (self._burst, 0.0))
        level = min(self._burst, level + (self._now_s() - at_s) * self._rate)
        return None if level >= 1.0 else (1.0 - level) / self._rate

    def take(self, caller: str, cost: float = 1.0) -> float | None:
        """Take ``cost``; None where it was there, else the seconds until it will be."""
        now_s = self._now_s()
        level, at_s = self._levels.pop(caller, (self._burst, now_s))
        level = min(self._burst, level + (now_s - at_s) * self._rate)
        is_there = level >= cost
        self._levels[caller] = (level - cost if is_there else level, now_s)
        if len(self._levels) > _MOST_CALLERS:
            self._levels.popitem(last=False)
        return None if is_there else (cost - level) / self._rate
