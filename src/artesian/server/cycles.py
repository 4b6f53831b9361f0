"""How long scheduling cycles take: counted by the driver's process, read by the server's beside it for /metrics.

The file between them has one number per bucket and the sum of seconds, in memory that both have mapped: a cycle
costs no system call, and a driver that is killed loses nothing. A new driver begins at 0, as Prometheus expects of a
process that starts.
"""

import mmap
import os
import struct
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_FORM = struct.Struct(f"={len(BUCKETS_S) + 3}d")
"""Cycles per bucket, each for itself, those above all buckets, those with a notice, and the sum of seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycles:
    """``counts``: cycles up to each of BUCKETS_S, those of the smaller ones included, and then all of them.
    ``noticed``: those whose plan came with a notice (``Plan.notice``)."""

    counts: tuple[int, ...]
    noticed: int
    total_s: float


class CycleLog:
    """Counts the cycles of one driver in ``path``, for its user only. Raises OSError where it cannot be written."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, _FORM.size)
            self._mapped = mmap.mmap(fd, _FORM.size)
        finally:
            os.close(fd)
        self._numbers = [0.0] * (len(BUCKETS_S) + 3)
        self._mapped[:] = _FORM.pack(*self._numbers)

    def observe(self, seconds: float, has_notice: bool) -> None:
        """Count a cycle that took so long; ``has_notice``: its plan came with one."""
        self._numbers[bisect_left(BUCKETS_S, seconds)] += 1
        self._numbers[-2] += has_notice
        self._numbers[-1] += seconds
        self._mapped[:] = _FORM.pack(*self._numbers)


def read_cycles(path: Path) -> Cycles | None:
    """Return what the last driver of this folder has counted; None where there was none yet."""
    try:
        *single, noticed, total_s = _FORM.unpack(path.read_bytes())
    except (FileNotFoundError, struct.error):
        return None
    counts, so_far = [], 0
    for count in single:
        so_far += int(count)
        counts.append(so_far)
    return Cycles(counts=tuple(counts), noticed=int(noticed), total_s=total_s)
