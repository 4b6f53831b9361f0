"""Orders: who goes first."""

from collections.abc import Sequence
from dataclasses import dataclass

from artesian.model.snapshot import Snapshot, WaitingJob


@dataclass(frozen=True, slots=True)
class PriorityFifo:
    """Higher priority first; within one, in the order of submission (the id breaks a tie)."""

    def rank(self, snapshot: Snapshot) -> Sequence[WaitingJob]:
        """Return the waiting jobs in this order."""
        return sorted(
            snapshot.waiting, key=lambda entry: (-entry.job.priority, entry.submitted_s, entry.job.id)
        )
