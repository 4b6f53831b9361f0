"""Who comes next in a cycle, and what they may have: the part of a policy that orders and quotas share.

An order that depends on the job alone is a sorted queue. One that depends on what others have got, such as
a fair share between teams, is ``Shared``: it makes a line of its own in each cycle, and is told of every
start.
"""

from collections.abc import Iterator
from functools import cache
from typing import Protocol, TypeGuard, runtime_checkable

from msgspec.structs import replace

from artesian.model.capacity import BoolArray, Capacity
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.plan import Reason
from artesian.model.queue import WaitingJob, Walk
from artesian.model.resources import DeviceRequest
from artesian.model.snapshot import Snapshot
from artesian.policy.accounts import Accounts
from artesian.policy.base import Order, Place

_MOST_PRIORITY = 2**20
"""Nobody asks for more, and no order takes more to have one job go before another."""


class Line(Protocol):
    """Goes through the waiting jobs of one cycle, best first."""

    @property
    def shape(self) -> int:
        """Number of the shape of the job that came last: with the same number, the same will fit."""
        ...

    @property
    def accounts(self) -> Accounts | None:
        """What teams hold, kept up to date by ``started``; None where nobody is guaranteed anything, or limited."""
        ...

    def __iter__(self) -> Iterator[WaitingJob]: ...

    def __next__(self) -> WaitingJob: ...

    def leave_shape(self) -> None:
        """Leave out all other jobs that are like the one that came last."""
        ...

    def leave_later(self, at_s: float, until_s: float) -> None:
        """Leave out those next like the one that came last that, started at ``at_s``, would end after ``until_s``."""
        ...

    def place(self, place: Place, job: Job, free: Capacity, allowed: BoolArray) -> Placement | None:
        """Return where the job goes, given what it may have; None where that is nowhere."""
        ...

    def started(self, job: Job, placement: Placement) -> None:
        """Take note of a start."""
        ...

    def refusal(self, job: Job) -> Reason | None:
        """Return why the job may have no devices now, though some be free; None where it may.

        One that is over its quota waits for its own team; from others its devices are kept (``KEPT_FOR_TEAMS``).
        """
        ...

    def allowed(self, job: Job, request: DeviceRequest, free: Capacity) -> BoolArray:
        """Return the nodes [N] that the job may have this alternative on, if it is free there."""
        ...


@runtime_checkable
class Shared(Protocol):
    """An order that depends on who has what."""

    def line(self, snapshot: Snapshot) -> Line:
        """Return the line of a cycle."""
        ...


class Sorted(Walk):
    """The line of an order that depends on each job alone: the queue as it is sorted."""

    accounts: Accounts | None = None

    def place(self, place: Place, job: Job, free: Capacity, allowed: BoolArray) -> Placement | None:
        """Return where the job goes."""
        return place.place(job, free, allowed)

    def started(self, job: Job, placement: Placement) -> None:
        """Nobody's turn depends on it."""
        del job, placement

    def refusal(self, job: Job) -> Reason | None:
        """Nobody is refused."""
        del job
        return None

    def allowed(self, job: Job, request: DeviceRequest, free: Capacity) -> BoolArray:
        """Return all nodes [N] that are up."""
        del job, request
        return free.is_up


def line_of(order: Order, snapshot: Snapshot) -> Line:
    """Return the line of a cycle by this order."""
    return order.line(snapshot) if is_shared(order) else snapshot.waiting.walk_as(Sorted, order.key)


def passes_with(order: Order, entry: WaitingJob, ahead: WaitingJob) -> int | None:
    """Return the least priority with which the one would go before the other; None where none does, or teams decide."""
    if is_shared(order) and entry.job.team != ahead.job.team:
        return None
    bar = (order.key(ahead), ahead.job.id)

    def passes(priority: int) -> bool:
        higher = replace(entry, job=replace(entry.job, priority=priority))
        return (order.key(higher), higher.job.id) < bar

    low = entry.job.priority
    if passes(low):
        return None  # it goes before it as it is
    more = 1
    while not passes(low + more):
        more *= 2
        if more > _MOST_PRIORITY:
            return None
    high = low + more
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def is_shared(order: Order) -> TypeGuard[Shared]:
    """Return whether the order depends on who has what."""
    return _is_shared(type(order))


@cache
def _is_shared(kind: type) -> bool:
    """Return whether orders of this class are Shared: asked once, for the question costs more than a short cycle."""
    return issubclass(kind, Shared)
