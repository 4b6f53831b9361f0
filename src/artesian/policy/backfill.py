"""EASY backfill: a job that waits keeps a reservation, not the nodes; others may use them until then.

The first job in order that cannot start is promised the devices that will be free soonest, as the estimates
of what runs say. A job behind it may start now if it leaves these devices alone, or ends before the promise
is due. So gaps are filled, and no promised start is put off by those who overtake (Lifka, JSSPP 1995).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from artesian.model.capacity import BoolArray, Capacity, Trial
from artesian.model.job import Job
from artesian.model.placement import NodeShare, Placement
from artesian.model.plan import Hold, HoldCode, Plan, Reason, Start
from artesian.model.queue import WaitingJob, Walk
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.model.units import format_duration
from artesian.policy import explain
from artesian.policy.base import Order, Place
from artesian.policy.pipeline import wanted_nodes

MilliArray = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a waiting job is promised: ``placement`` at ``at_s``, infinity where no estimate tells when.

    ``free_now`` is the part of it that is free already, and which others may use only until then;
    ``nodes`` [N] are those that the job could run on.
    """

    job: Job
    at_s: float
    free_now: Placement | None
    nodes: BoolArray


@dataclass(slots=True)
class _Cycle:
    starts: list[Start] = field(default_factory=list)
    started: list[tuple[WaitingJob, Placement]] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EasyBackfill:
    """Serve jobs in order; let others into the gaps that the first ones who wait leave.

    Each job that waits and shares no node with an earlier promise gets a promise of its own, so that a
    queue for one kind of device never holds up another. At most ``depth`` jobs are looked at behind the
    first that waits: a bound on the time of a cycle, not a rule.
    """

    order: Order
    place: Place
    depth: int = 100

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return the starts of this cycle, and the jobs that it looked at in vain."""
        with snapshot.capacity.trial() as trial:
            cycle = _Cycle()
            self._serve(snapshot, trial, cycle)
            return Plan(at_s=snapshot.at_s, starts=tuple(cycle.starts), holds=tuple(cycle.holds))

    def promises(self, snapshot: Snapshot) -> tuple[Promise, ...]:
        """Return what the jobs are promised that wait at the head of their queues, the first in order first."""
        with snapshot.capacity.trial() as trial:
            cycle = _Cycle()
            self._serve(snapshot, trial, cycle)
            return tuple(cycle.promises)

    def next_wake_s(self, snapshot: Snapshot) -> float | None:
        """Return None: only events change what can start."""
        del snapshot
        return None

    def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
        """Return why the job waits, with its promised start, or what would let it go ahead of others."""
        job = snapshot.waiting[job_id].job
        with snapshot.capacity.trial() as trial:
            cycle = _Cycle()
            self._serve(snapshot, trial, cycle)
            if any(start.job_id == job_id for start in cycle.starts):
                return None
            if (reason := explain.impossible(job, trial.capacity)) is not None:
                return reason
            promise = next((promise for promise in cycle.promises if promise.job.id == job_id), None)
            if promise is not None:
                busy = explain.devices_busy(job, self._holders(snapshot, cycle), trial.capacity)
                return Reason(
                    code=busy.code, text=busy.text, unblock=busy.unblock + _promised(promise, snapshot)
                )
            wanted = wanted_nodes(job, trial.capacity)
            ahead = [promise for promise in cycle.promises if bool((promise.nodes & wanted).any())]
            if ahead:
                return _behind(job, ahead[0], snapshot)
            return explain.devices_busy(job, self._holders(snapshot, cycle), trial.capacity)

    @staticmethod
    def _holders(snapshot: Snapshot, cycle: _Cycle) -> list[tuple[Job, Placement]]:
        running = [(entry.job, entry.placement) for entry in snapshot.running.values()]
        return running + [(entry.job, placement) for entry, placement in cycle.started]

    def _serve(self, snapshot: Snapshot, trial: Trial, cycle: _Cycle) -> None:
        free = trial.capacity
        looked = 0
        walk = snapshot.waiting.walk(self.order.key)
        for entry in walk:
            job = entry.job
            if not explain.is_possible(job, free):
                cycle.holds.append(Hold(job_id=job.id, code=explain.impossible_code(job, free)))
                walk.leave_shape()
                continue
            if cycle.promises:
                looked += 1
                if looked > self.depth or not bool((free.free_milli > 0).any()):
                    break
            wanted = wanted_nodes(job, free) if cycle.promises else None
            ahead = [p for p in cycle.promises if wanted is not None and bool((p.nodes & wanted).any())]
            placement = self._place(snapshot, trial, entry, ahead)
            if placement is not None:
                self._start(cycle, trial, entry, placement, is_first=not cycle.promises)
            elif not ahead:
                cycle.holds.append(Hold(job_id=job.id, code=HoldCode.DEVICES_BUSY))
                cycle.promises.append(self._promise(snapshot, trial, cycle, job))
                self._leave_if_hopeless(walk, job, free)
            else:
                cycle.holds.append(Hold(job_id=job.id, code=HoldCode.BEHIND_ANOTHER, behind=ahead[0].job.id))
                self._leave_if_hopeless(walk, job, free)

    def _leave_if_hopeless(self, walk: Walk, job: Job, free: Capacity) -> None:
        """Leave the job's shape out where none of it fits even into the gaps; else a shorter one may."""
        if self.place.place(job, free, free.is_up) is None:
            walk.leave_shape()

    def _place(
        self, snapshot: Snapshot, trial: Trial, entry: WaitingJob, ahead: Sequence[Promise]
    ) -> Placement | None:
        """Return where the job can start now without putting off a promise that is ahead of it."""
        free, job = trial.capacity, entry.job
        if not ahead:
            return self.place.place(job, free, free.is_up)
        end_s = math.inf if job.estimated_duration_s is None else snapshot.at_s + job.estimated_duration_s
        # Who is gone by then may use what is promised; for all others these devices are taken.
        broken = [promise for promise in ahead if end_s > promise.at_s or promise.at_s == math.inf]
        allowed = free.is_up
        for promise in broken:
            if promise.at_s == math.inf:
                allowed = allowed & ~promise.nodes  # nobody can say what would put it off
        with free.trial() as reserved:
            for promise in broken:
                # Part of it may be lent already, to a job that will be gone in time.
                if promise.free_now is not None and (
                    kept := _free_part(promise.free_now, free.free_milli, free)
                ):
                    reserved.take(promise.job, kept)
            return self.place.place(job, free, allowed)

    def _start(
        self, cycle: _Cycle, trial: Trial, entry: WaitingJob, placement: Placement, *, is_first: bool
    ) -> None:
        trial.take(entry.job, placement)
        cycle.started.append((entry, placement))
        reason = explain.start(placement, is_first=is_first)
        if not is_first:
            reason += "; it puts off no start that was promised to a job ahead of it"
        cycle.starts.append(
            Start(job_id=entry.job.id, epoch=entry.next_epoch, placement=placement, reason=reason)
        )

    def _promise(self, snapshot: Snapshot, trial: Trial, cycle: _Cycle, job: Job) -> Promise:
        """Return the earliest start of the job, as the estimates of what runs say."""
        free = trial.capacity
        nodes = wanted_nodes(job, free)
        was_free = free.free_milli.copy()
        with free.trial() as later:
            for end_s, running, placement in _ends(snapshot, cycle):
                if end_s == math.inf:
                    break
                later.give(running, placement)
                if not any(bool(nodes[free.row[share.node_id]]) for share in placement.shares):
                    continue
                if (found := self.place.place(job, free, free.is_up)) is not None:
                    return Promise(
                        job=job, at_s=end_s, free_now=_free_part(found, was_free, free), nodes=nodes
                    )
        return Promise(job=job, at_s=math.inf, free_now=None, nodes=nodes)


def estimated_end_s(entry: RunningJob, at_s: float) -> float:
    """Return when the job ends by its estimate, infinity without one.

    A job that has outlived its estimate is taken to need as long again, and again: a guess that is never
    in the past, and never far off for long.
    """
    estimate_s = entry.job.estimated_duration_s
    if estimate_s is None or estimate_s <= 0:
        return math.inf
    had_s = at_s - entry.since_s
    doublings = max(0, math.floor(math.log2(had_s / estimate_s)) + 1) if had_s >= estimate_s else 0
    return entry.since_s + estimate_s * 2.0**doublings


def _ends(snapshot: Snapshot, cycle: _Cycle) -> Iterator[tuple[float, Job, Placement]]:
    """Yield what holds devices in the order of its estimated end; what is to start now included."""
    ends = [
        (
            snapshot.at_s if entry.is_stopping else estimated_end_s(entry, snapshot.at_s),
            entry.job,
            entry.placement,
        )
        for entry in snapshot.running.values()
    ]
    for started, placement in cycle.started:
        estimate_s = started.job.estimated_duration_s
        ends.append((math.inf if estimate_s is None else snapshot.at_s + estimate_s, started.job, placement))
    yield from sorted(ends, key=lambda end: (end[0], end[1].id))


def _free_part(placement: Placement, was_free: MilliArray, capacity: Capacity) -> Placement | None:
    """Return the devices of the placement that are free now; None where there are none."""
    shares = []
    for share in placement.shares:
        free = was_free[capacity.row[share.node_id]]
        devices = tuple(device for device in share.devices if free[device] >= share.milli)
        if devices:
            shares.append(NodeShare(node_id=share.node_id, devices=devices, milli=share.milli))
    return Placement(shares=tuple(shares)) if shares else None


def _promised(promise: Promise, snapshot: Snapshot) -> str:
    if promise.at_s == math.inf:
        return "; when is not known, for what runs there has no estimated duration"
    return f", in {format_duration(max(0.0, promise.at_s - snapshot.at_s))} by the estimates of what runs"


def _behind(job: Job, ahead: Promise, snapshot: Snapshot) -> Reason:
    behind = explain.behind(ahead.job)
    if ahead.at_s == math.inf:
        return behind
    gap = format_duration(max(0.0, ahead.at_s - snapshot.at_s))
    known = (
        "it has no estimated duration"
        if job.estimated_duration_s is None
        else (f"its estimated duration is {format_duration(job.estimated_duration_s)}")
    )
    return Reason(
        code=behind.code,
        text=f"{behind.text}; {known}",
        unblock=f"{behind.unblock}; or it fits into a gap of {gap} (estimated_duration), before {ahead.job.name} is due",
    )
