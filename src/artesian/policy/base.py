"""The seams of a policy: who goes first (Order), and where (Place). A Policy makes a Plan of both.

All are pure: what they return follows from their arguments alone. They see a Snapshot and must not
change it.
"""

from typing import Protocol

from artesian.model.capacity import BoolArray, Capacity
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.plan import Plan, Reason
from artesian.model.queue import Key, WaitingJob
from artesian.model.snapshot import Snapshot


class Policy(Protocol):
    """Decides one scheduling cycle."""

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return what to stop and start now, and which jobs it looked at in vain.

        The same snapshot gives the same plan. Gangs are whole or absent; no device is given twice.
        """
        ...

    def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
        """Return why the job waits that ``plan`` would leave waiting; None where it would start.

        Raises KeyError for a job that does not wait.
        """
        ...


class Order(Protocol):
    """Decides who goes first."""

    def key(self, entry: WaitingJob) -> Key:
        """Return what the waiting jobs are sorted by, the least first. It depends on the entry alone."""
        ...


class Place(Protocol):
    """Decides where a job goes."""

    def place(self, job: Job, capacity: Capacity, allowed: BoolArray) -> Placement | None:
        """Return a placement for the whole gang on nodes where ``allowed`` [N] holds, or None.

        The placement is not taken yet: the caller does that.
        """
        ...
