"""The seams of a policy: who goes first (Order), and where (Place). A Policy makes a Plan of both.

All are pure: what they return follows from their arguments alone. They see a Snapshot and must not
change it.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from artesian.model.capacity import BoolArray, Capacity, Trial
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


@runtime_checkable
class Timed(Protocol):
    """A policy that also decides when nothing but time has passed; most only answer what happens.

    One that lends devices for a time says when that is over: without it, a job that holds a device would
    keep it to its end. A seam of its own, so that no other policy, and no cycle of one, knows about it.
    """

    def next_wake_s(self, snapshot: Snapshot) -> float | None:
        """Return when, after ``snapshot.at_s``, it wants a cycle at the latest; None: when something happens.

        It is asked only while a job runs: where none does, time alone makes nobody fit.
        """
        ...


@runtime_checkable
class Steady(Protocol):
    """A policy that can tell without a cycle that jobs which have just come change nothing.

    On a full fleet most of what happens is that one more job waits.
    """

    def is_unmoved(self, snapshot: Snapshot, came: Sequence[Job]) -> bool:
        """Return True only if ``plan`` would decide nothing new; ``came`` waits, and else nothing has changed since it
        was asked last. False is always right, and costs a cycle."""
        ...


@runtime_checkable
class Trying(Protocol):
    """A policy that can decide on a trial of the caller's, and leave taken there what it starts.

    Once that is checked it stays taken, and nothing is given back only to be taken again.
    """

    def plan_on(self, snapshot: Snapshot, trial: Trial) -> Plan:
        """Return what ``plan`` would return. ``trial`` has taken its starts then, in order, each from ``snapshot.at_s``
        on, and nothing else."""
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
