"""What processes hold over time: memory, files, threads, connections; and how fast that grows."""

import itertools
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_WARM_UP_S = 300.0
"""Of a process's life in one role: what it loads at first is no leak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a process held at one moment, and whether it led. ``at_s`` is of the monotonic clock."""

    at_s: float
    is_leading: bool
    rss_bytes: int
    threads: int
    files: int


@dataclass(slots=True)
class Life:
    """What one process held over its life; ``name`` says what it is."""

    name: str
    pid: int
    samples: list[Sample] = field(default_factory=list)

    def sample(self, *, is_leading: bool = False) -> None:
        """Take a sample; none where the process is gone."""
        with suppress(OSError, StopIteration, IndexError):
            self.samples.append(_sample(self.pid, is_leading=is_leading))

    @property
    def settled(self) -> Sequence[Sample]:
        """The samples of the longest time in which it led, or of its life where it never did, but for their beginning."""
        roles = itertools.groupby(self.samples, key=lambda sample: sample.is_leading)
        led = [list(samples) for is_leading, samples in roles if is_leading]
        chosen = max(led, key=lambda samples: samples[-1].at_s - samples[0].at_s, default=self.samples)
        return [sample for sample in chosen if sample.at_s >= chosen[0].at_s + _WARM_UP_S]

    @property
    def span_s(self) -> float:
        """How long the settled samples reach."""
        return self.settled[-1].at_s - self.settled[0].at_s if self.settled else 0.0

    def growth_per_hour(self) -> Mapping[str, float]:
        """Return the slope of each figure (least squares), per hour. There must be settled samples."""
        hours = [sample.at_s / 3600.0 for sample in self.settled]
        figures = {
            "rss_mb": [sample.rss_bytes / 1e6 for sample in self.settled],
            "threads": [float(sample.threads) for sample in self.settled],
            "files": [float(sample.files) for sample in self.settled],
        }
        return {
            name: statistics.linear_regression(hours, values).slope
            for name, values in figures.items()
            if len(set(hours)) > 1
        }

    def gained(self, name: str) -> float:
        """Return the median of a figure in the last quarter of its settled life, less that in the first."""
        values = [float(getattr(sample, name)) for sample in self.settled]
        part = max(1, len(values) // 4)
        return statistics.median(values[-part:]) - statistics.median(values[:part])


def _sample(pid: int, *, is_leading: bool) -> Sample:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")

    def number(key: str) -> int:
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{key}:"))

    return Sample(
        at_s=time.monotonic(),
        is_leading=is_leading,
        rss_bytes=number("VmRSS") * 1024,
        threads=number("Threads"),
        files=len(os.listdir(f"/proc/{pid}/fd")),
    )
