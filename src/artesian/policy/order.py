"""Orders: who goes first.

A key depends on the entry alone, so that an index can grow with the queue. Those that age say how long
a job has to wait to make up for something: a key is then a time, the one of submission put off or brought
forward, and who waits long enough is before anybody who is yet to come. So nothing starves.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from artesian.model.capacity import FloatArray, IntArray
from artesian.model.job import Job
from artesian.model.queue import Key, WaitingJob

PRIORITY_STEP_S = 3600.0
"""How long one more of priority is worth: a class of ten goes ten hours ahead."""
PATIENCE_S = 7 * 86400.0
LEVELS_DEVICE_S = (3600.0, 10 * 3600.0, 100 * 3600.0)
LEVEL_STEP_S = 86400.0


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


@dataclass(frozen=True, slots=True)
class ShortestAged:
    """Higher priority first; within one, short jobs before long ones, until these have waited long enough.

    A job goes by the time of its submission plus ``patience`` times its estimated duration, times the square root
    of its devices: by that much later may a job come and still overtake it. So nothing starves, and where
    there is work for many times as long as jobs take, it is the shortest first. A gang is charged for its
    size, as the small ones that could run in its place are many, but not for all of it, or none would ever
    start. Without an estimate a job counts as one of ``unknown_s``.
    """

    patience: float = 100.0
    unknown_s: float = 4 * 3600.0

    def key(self, entry: WaitingJob) -> Key:
        """Return what the waiting jobs are sorted by."""
        job = entry.job
        estimate_s = self.unknown_s if job.estimated_duration_s is None else job.estimated_duration_s
        length_s = estimate_s * math.sqrt(max(1, job.devices[0].min_devices))
        return (-job.priority, entry.submitted_s + self.patience * length_s)


@dataclass(frozen=True, slots=True)
class AgedPriority:
    """Higher priority first, until the others have waited long enough.

    One more of priority is worth ``step_s`` of waiting, in seconds.
    """

    step_s: float = PRIORITY_STEP_S

    def key(self, entry: WaitingJob) -> Key:
        """Return what the waiting jobs are sorted by."""
        priority = entry.job.priority
        # Nearly all have none: then it is the same number, and not one more for each of 100,000 jobs.
        return (entry.submitted_s - self.step_s * priority if priority else entry.submitted_s,)


@dataclass(frozen=True, slots=True)
class EarliestDeadline:
    """The earliest deadline first. One more of priority brings it ``step_s`` forward.

    A job without a deadline has one that nobody told: ``patience_s`` after its submission. So it goes
    behind those with a near one, and starves behind none.
    """

    patience_s: float = PATIENCE_S
    step_s: float = PRIORITY_STEP_S

    def key(self, entry: WaitingJob) -> Key:
        """Return what the waiting jobs are sorted by."""
        within_s = self.patience_s if entry.job.deadline_s is None else entry.job.deadline_s
        return (entry.submitted_s + within_s - self.step_s * entry.job.priority, entry.submitted_s)


@dataclass(frozen=True, slots=True)
class LeastAttained:
    """Who has been served least goes first, in levels: a job sinks by one with each amount that it has had.

    ``levels_device_s`` are these amounts, in device-seconds, rising. Within a level it is first come, first
    served: jobs of one length do not take turns for ever (Gu et al., *Tiresias*, NSDI 2019). Nothing needs
    to be known in advance, and short jobs are done early. A level is worth ``step_s`` of waiting, and so is each of
    priority.
    """

    levels_device_s: tuple[float, ...] = LEVELS_DEVICE_S
    step_s: float = LEVEL_STEP_S

    def level(self, served_device_s: float) -> int:
        """Return how far a job has sunk that has had so much; 0 is the top."""
        return bisect_right(self.levels_device_s, served_device_s)

    def levels(self, served_device_s: FloatArray) -> IntArray:
        """Return the levels [S] of jobs that have had so much [S]."""
        levels: IntArray = np.zeros(len(served_device_s), dtype=np.int64)
        for amount_device_s in self.levels_device_s:  # few: several times quicker than np.searchsorted
            levels += served_device_s >= amount_device_s
        return levels

    def key(self, entry: WaitingJob) -> Key:
        """Return what the waiting jobs are sorted by."""
        return (self.rank_s(entry.job, entry.submitted_s, entry.served_device_s),)

    def rank_s(self, job: Job, submitted_s: float, served_device_s: float) -> float:
        """Return the key of a job that has had so much, as a time."""
        return submitted_s + self.step_s * (self.level(served_device_s) - job.priority)
