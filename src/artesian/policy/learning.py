"""Placements that need no list of jobs in advance: they take what runs for what is yet to come."""

from collections.abc import Callable
from dataclasses import dataclass

from artesian.model.capacity import BoolArray, Capacity
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.policy.mix import Mix
from artesian.policy.scored import Boards, Scorer, place_by


@dataclass(slots=True)
class _Learnt:
    """What was made of the mix the last time; ``as_of`` is the capacity's ``mix_changes`` then."""

    as_of: int
    boards: Boards


@dataclass(frozen=True, slots=True)
class Learning:
    """Put a job where the scorer that ``make`` makes of the mix of the running jobs wants it.

    Counts of jobs are rounded down to powers of two, and of the rarest classes ``1 - covered`` is left
    out: so the mix is a new one, and all is scored anew, only when something has changed that matters.
    What it returns follows from what runs, not from how that came about.
    """

    make: Callable[[Mix], Scorer]
    covered: float = 1.0

    def place(self, job: Job, capacity: Capacity, allowed: BoolArray) -> Placement | None:
        """Return where the job goes, or None when no alternative fits on the allowed nodes."""
        learnt = capacity.remember(("learnt", self), lambda: self._learn(capacity))
        if learnt.as_of != capacity.mix_changes:
            fresh = self._learn(capacity)
            learnt.as_of, learnt.boards = fresh.as_of, fresh.boards
        return place_by(learnt.boards, job, capacity, allowed)

    def _learn(self, capacity: Capacity) -> _Learnt:
        mix = Mix.of_what_runs(capacity, self.covered)
        return _Learnt(as_of=capacity.mix_changes, boards=Boards(self.make(mix), capacity))
