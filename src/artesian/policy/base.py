"""The seams of a policy: who goes first (Order), and where (Place). A Policy makes a Plan of both.

All are pure: what they return follows from their arguments alone. They see a Snapshot and must not
change it.
"""

from collections.abc import Sequence
from typing import Protocol

from artesian.model.capacity import BoolArray, Capacity
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.plan import Plan
from artesian.model.snapshot import Snapshot, WaitingJob


class Policy(Protocol):
    """Decides one scheduling cycle."""

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return what to stop and start now, and why each job that stays waits.

        The same snapshot gives the same plan. Gangs are whole or absent; no device is given twice.
        """
        ...


class Order(Protocol):
    """Decides who goes first."""

    def rank(self, snapshot: Snapshot) -> Sequence[WaitingJob]:
        """Return the waiting jobs, the first to be served first."""
        ...


class Place(Protocol):
    """Decides where a job goes."""

    def place(self, job: Job, capacity: Capacity, allowed: BoolArray) -> Placement | None:
        """Return a placement for the whole gang on nodes where ``allowed`` [N] holds, or None.

        The placement is not taken yet: the caller does that.
        """
        ...
