"""Orders: who goes first."""

from dataclasses import dataclass

from artesian.model.queue import Key, WaitingJob


@dataclass(frozen=True, slots=True)
class PriorityFifo:
    """Higher priority first; within one, in the order of submission (the id breaks a tie)."""

    def key(self, entry: WaitingJob) -> Key:
        """Return what the waiting jobs are sorted by."""
        return (-entry.job.priority, entry.submitted_s)
