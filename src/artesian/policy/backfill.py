"""EASY backfill: a job that waits keeps a promise, not the nodes; others may use them until it is due.

The first job in order that cannot start is promised the earliest time at which enough devices of one kind
will be free, as the estimates of what runs say. A job behind it may start now if it ends before that, or if
enough devices are left at that time all the same. So gaps are filled, and no promised start is put off by
those who overtake (Lifka, JSSPP 1995).

Promises count devices and do not name them: a gang may run on any devices of one kind, on one node or on
several. CPUs and memory are not promised.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from artesian.model.capacity import Capacity, IntArray, Trial
from artesian.model.job import Job
from artesian.model.levels import bits
from artesian.model.placement import Placement
from artesian.model.plan import Hold, HoldCode, Plan, Reason, Start
from artesian.model.queue import WaitingJob, shape_of
from artesian.model.resources import MILLI, DeviceRequest
from artesian.model.snapshot import Snapshot
from artesian.model.units import format_duration
from artesian.policy import explain
from artesian.policy.accounts import Accounts
from artesian.policy.base import Order, Place
from artesian.policy.line import Line, is_shared, line_of, passes_with
from artesian.policy.pipeline import wanted_nodes
from artesian.policy.promises import Promise, due, promise_of

_DEPTH = 100


class _Needs(Struct, frozen=True, gc=False):
    """What jobs of one shape need, for as long as the nodes stay the same.

    ``nodes`` are those that they could run on. ``pools`` has, for each kind of devices, how many it takes, and
    where they are among all devices [N * D].
    """

    is_possible: bool
    nodes: int
    least: int
    pools: tuple[tuple[int, int, IntArray], ...]

    @classmethod
    def of(cls, job: Job, free: Capacity) -> "_Needs":
        """Return what jobs of this one's shape need."""
        return free.remember(("needs", shape_of(job)), lambda: cls._found(job, free))

    @classmethod
    def _found(cls, job: Job, free: Capacity) -> "_Needs":
        pools = [
            (max(1, request.min_devices), kind, _devices(request, kind, free))
            for request in job.devices
            for kind in np.unique(free.kind[free.eligible(request)]).tolist()
        ]
        return cls(
            is_possible=explain.is_possible(job, free),
            nodes=bits(wanted_nodes(job, free)),
            least=min(request.min_devices for request in job.devices),
            pools=tuple(pools),
        )


def _devices(request: DeviceRequest, kind: int, free: Capacity) -> IntArray:
    """Return where the devices of the kind that the request may be met with are among all [N * D]."""

    def found() -> IntArray:
        rows = free.eligible(request) & (free.kind == kind)
        width = free.free_milli.shape[1]
        return (np.flatnonzero(rows)[:, None] * width + np.arange(width)).ravel()

    # Jobs of a thousand shapes may want devices of one kind.
    return free.remember(("devices", request.vendor, request.accelerator, request.memory_bytes, kind), found)


class _Shape(Struct, gc=False):
    """What holds for all jobs of one shape in a cycle.

    ``ahead`` are the promises to jobs that want some of the nodes that they could run on, of the first
    ``promises`` of the cycle. ``placement`` is where they fit, whatever is promised to others, after
    ``starts`` starts of the cycle.
    """

    needs: _Needs
    ahead: list[Promise] = []
    promises: int = 0
    placement: Placement | None = None
    starts: int = -1
    is_held: bool = False


class _Cycle(Struct, gc=False):
    """What one cycle has decided so far."""

    line: Line
    starts: list[Start] = []
    started: list[tuple[Job, Placement]] = []
    holds: list[Hold] = []
    promises: list[Promise] = []
    shapes: dict[int, _Shape] = {}

    def holders(self, snapshot: Snapshot) -> list[tuple[Job, Placement]]:
        """Return who has devices, those included that the cycle has started."""
        return [*((entry.job, entry.placement) for entry in snapshot.running.values()), *self.started]

    def are_all_promised(self, free: Capacity) -> bool:
        """Return whether each node that is up is one that somebody is promised devices of."""
        promised = 0
        for promise in self.promises:
            promised |= promise.nodes
        return promised == free.remember("bits of those up", lambda: bits(free.is_up))


@dataclass(frozen=True, slots=True)
class EasyBackfill:
    """Serve jobs in order; let others into the gaps that the first ones who wait leave.

    Each job that waits and shares no node with an earlier promise gets a promise of its own, so that a
    queue for one kind of device never holds up another. At most ``depth`` jobs are looked at behind the
    first that waits: a bound on the time of a cycle, not a rule. Those that are like one that would put a promise
    off, and take no less time, do not count.
    """

    order: Order
    place: Place
    depth: int = _DEPTH

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return the starts of this cycle, and the jobs that it looked at in vain."""
        with snapshot.capacity.trial() as trial:
            return self.plan_on(snapshot, trial)

    def plan_on(self, snapshot: Snapshot, trial: Trial) -> Plan:
        """Return the same, and leave what starts taken."""
        cycle = self._serve(snapshot, trial)
        return Plan(at_s=snapshot.at_s, starts=tuple(cycle.starts), holds=tuple(cycle.holds))

    def is_unmoved(self, snapshot: Snapshot, came: Sequence[Job]) -> bool:
        """Return whether nothing is free, and each of those that came is behind another one like it.

        A cycle on a full fleet ends with the first job that it looks at and that could run at all.
        """
        if snapshot.capacity.open_devices or is_shared(self.order):
            return False
        waiting, key = snapshot.waiting, self.order.key
        return not any(job.id in waiting and waiting.leads(key, job.id) for job in came)

    def promises(self, snapshot: Snapshot) -> tuple[Promise, ...]:
        """Return what the jobs are promised that wait at the head of their queues, the first in order first."""
        with snapshot.capacity.trial() as trial:
            return tuple(self._serve(snapshot, trial, is_whole=True).promises)

    def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
        """Return why the job waits, with its promised start, or what would let it go ahead of others."""
        job = snapshot.waiting[job_id].job
        with snapshot.capacity.trial() as trial:
            cycle = self._serve(snapshot, trial, is_whole=True)
            if any(start.job_id == job_id for start in cycle.starts):
                return None
            free = trial.capacity
            reason = explain.impossible(job, free) or cycle.line.refusal(job)
            if reason is not None:
                mine = next((promise for promise in cycle.promises if promise.job.id == job_id), None)
                when = "" if mine is None else due(mine, snapshot.at_s)
                return replace(reason, unblock=reason.unblock + when)
            wanted = _Needs.of(job, free).nodes
            ahead = [promise for promise in cycle.promises if promise.nodes & wanted]
            allowed = partial(cycle.line.allowed, job, free=free)
            if ahead[0].job.id == job_id:
                busy = explain.devices_busy(job, cycle.holders(snapshot), free, allowed)
                when = due(ahead[0], snapshot.at_s)
                return Reason(code=busy.code, text=busy.text, unblock=busy.unblock + when)
            passes = passes_with(self.order, snapshot.waiting[job_id], snapshot.waiting[ahead[0].job.id])
            behind = explain.behind(ahead[0].job, passes)
            if cycle.line.place(self.place, job, free, free.is_up) is None:
                # Who holds what is for the one ahead to hear: on a large fleet these are thousands.
                busy = explain.devices_busy(job, None, free, allowed)
                return replace(behind, text=f"{behind.text}; {busy.text}")
            return _fitting(job, behind, ahead, snapshot.at_s)

    def _serve(self, snapshot: Snapshot, trial: Trial, *, is_whole: bool = False) -> _Cycle:
        """Go through the queue; ``is_whole``: make a promise also where it could not help anybody start."""
        cycle = _Cycle(line_of(self.order, snapshot))
        free, line = trial.capacity, cycle.line
        looked = 0
        for entry in line:
            job = entry.job
            shape = cycle.shapes.get(line.shape)
            if shape is None or shape.promises < len(cycle.promises):
                shape = _shape(cycle, line.shape, job, free)
            if shape.ahead:
                looked += 1
                if looked > self.depth:
                    # Others may wait for devices that nobody was promised.
                    if cycle.are_all_promised(free):
                        break
                    line.leave_shape()
                    continue
            if not shape.needs.is_possible:
                cycle.holds.append(Hold(job_id=job.id, code=explain.impossible_code(job, free)))
                line.leave_shape()
                continue
            ends_s = _ends_s(job, snapshot.at_s)
            until_s = _until_s(shape, job, line.accounts) if shape.ahead else math.inf
            if ends_s <= until_s:
                placement = self._fit(cycle, shape, job, free)
                if placement is not None and _keeps(shape.ahead, ends_s, job, placement, cycle, free):
                    self._start(cycle, trial, entry, placement, snapshot.at_s)
                    continue
                if placement is None:
                    line.leave_shape()  # nor does any other of its shape
            else:
                line.leave_later(snapshot.at_s, until_s)
            refusal = line.refusal(job)
            if refusal is not None:
                cycle.holds.append(Hold(job_id=job.id, code=refusal.code))
                line.leave_shape()
                if refusal.code is HoldCode.OVER_QUOTA:
                    continue  # it is not the devices that it waits for, so none are promised to it
            elif not shape.is_held:
                shape.is_held = True
                _hold(cycle, job, shape.ahead)
            if not shape.ahead:
                if not is_whole and not free.open_devices and not snapshot.waiting.host_only:
                    if refusal is not None:
                        continue  # others may yet have a right to what is held
                    break  # the usual end of a cycle on a full fleet
                needs, holders = shape.needs, partial(cycle.holders, snapshot)
                promise = promise_of(
                    job, needs.nodes, needs.pools, free, snapshot.at_s, line.accounts, holders
                )
                if promise is not None:
                    cycle.promises.append(promise)
        return cycle

    def _fit(self, cycle: _Cycle, shape: _Shape, job: Job, free: Capacity) -> Placement | None:
        """Return where the job fits now, whatever is promised to others."""
        if not free.open_devices and shape.needs.least:
            return None  # the usual answer on a full fleet
        if shape.starts != len(cycle.starts):
            shape.placement = cycle.line.place(self.place, job, free, free.is_up)
            shape.starts = len(cycle.starts)
        return shape.placement

    @staticmethod
    def _start(cycle: _Cycle, trial: Trial, entry: WaitingJob, placement: Placement, at_s: float) -> None:
        trial.take(entry.job, placement, at_s=at_s)
        cycle.line.started(entry.job, placement)
        cycle.started.append((entry.job, placement))
        reason = explain.start(placement, is_first=not cycle.promises)
        if cycle.promises:
            reason += "; it puts off no start that was promised to a job ahead of it"
        cycle.starts.append(
            Start(job_id=entry.job.id, epoch=entry.next_epoch, placement=placement, reason=reason)
        )


def _hold(cycle: _Cycle, job: Job, ahead: list[Promise]) -> None:
    if ahead:
        cycle.holds.append(Hold(job_id=job.id, code=HoldCode.BEHIND_ANOTHER, behind=ahead[0].job.id))
    else:
        cycle.holds.append(Hold(job_id=job.id, code=HoldCode.DEVICES_BUSY))


def _shape(cycle: _Cycle, number: int, job: Job, free: Capacity) -> _Shape:
    """Return what holds for the shape of the job, which has this number in the walk."""
    shape = cycle.shapes.get(number)
    if shape is None:
        shape = cycle.shapes[number] = _Shape(_Needs.of(job, free))
    while shape.promises < len(cycle.promises):
        promise = cycle.promises[shape.promises]
        if promise.nodes & shape.needs.nodes:
            shape.ahead.append(promise)
        shape.promises += 1
    return shape


def _ends_s(job: Job, at_s: float) -> float:
    return math.inf if job.estimated_duration_s is None else at_s + job.estimated_duration_s


def _until_s(shape: _Shape, job: Job, accounts: Accounts | None) -> float:
    """Return until when jobs of the shape may hold devices that are promised to those ahead; infinity: for ever."""
    until_s = math.inf
    for promise in shape.ahead:
        if promise.spare < shape.needs.least:
            if promise.keepers and accounts is not None:
                kinds = {kind for _, kind, _ in shape.needs.pools if promise.kind in (None, kind)}
                own = max((accounts.own(job.team, kind, promise.keepers) for kind in kinds), default=0)
                if promise.spare + own // MILLI >= shape.needs.least:
                    continue
            until_s = min(until_s, promise.at_s if promise.at_s < math.inf else -math.inf)
    return until_s


def _keeps(
    ahead: list[Promise], ends_s: float, job: Job, placement: Placement, cycle: _Cycle, free: Capacity
) -> bool:
    """Return whether a start there puts off none of the promises; if so, what is left of them is noted."""
    late = [promise for promise in ahead if ends_s > promise.at_s or promise.at_s == math.inf]
    if not late:
        return True
    kind = int(free.kind[free.row[placement.shares[0].node_id]])
    bound = [promise for promise in late if promise.kind in (None, kind)]
    taken = [placement.devices] * len(bound)
    if (accounts := cycle.line.accounts) is not None:
        taken = [
            max(0, placement.devices - accounts.own(job.team, kind, promise.keepers) // MILLI)
            for promise in bound
        ]
    if any(promise.spare < count for promise, count in zip(bound, taken, strict=True)):
        return False
    for promise, count in zip(bound, taken, strict=True):
        promise.spare -= count
    return True


def _fitting(job: Job, behind: Reason, ahead: list[Promise], at_s: float) -> Reason:
    """Return why a job waits that there are devices for: what it would put off, and how short it would have to be."""
    least = min(request.min_devices for request in job.devices)
    first = min(
        (promise for promise in ahead if promise.spare < least),
        key=lambda promise: promise.at_s,
        default=None,
    )
    if first is None or any(promise.at_s == math.inf for promise in ahead):
        return behind
    gap_s = math.floor(first.at_s - at_s)
    estimate_s = job.estimated_duration_s
    if gap_s < 1:
        return behind
    if estimate_s is not None and estimate_s <= first.at_s - at_s:
        return replace(
            behind, text=f"{behind.text}; it would end before that, but a cycle does not look as far behind"
        )
    known = (
        "it has no estimated duration"
        if estimate_s is None
        else f"its estimated duration is {format_duration(estimate_s)}"
    )
    return replace(
        behind,
        text=f"{behind.text}; {known}",
        unblock=f"{behind.unblock}; or it fits into a gap of {format_duration(gap_s)} (estimated_duration), before {first.job.name} is due",
    )
