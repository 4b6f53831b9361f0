"""Orders: who goes first."""

import math
from dataclasses import dataclass

from artesian.model.queue import Key, WaitingJob


@dataclass(frozen=True, slots=True)
class PriorityFifo:
    """Higher priority first; within one, in the order of submission (the id breaks a tie)."""

    def key(self, entry: WaitingJob) -> Key:
        """Return what the waiting jobs are sorted by."""
        return (-entry.job.priority, entry.submitted_s)


@dataclass(frozen=True, slots=True)
class ShortestFirst:
    """Higher priority first; within one, the shortest estimated duration. Without an estimate a job goes last.

    It starves long jobs under load: a bound to compare with, rather than a policy to live under.
    """

    def key(self, entry: WaitingJob) -> Key:
        """Return what the waiting jobs are sorted by."""
        estimate_s = entry.job.estimated_duration_s
        return (-entry.job.priority, math.inf if estimate_s is None else estimate_s, entry.submitted_s)
