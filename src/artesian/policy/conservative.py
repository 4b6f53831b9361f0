"""Conservative backfill: everybody who waits has a reservation, and nobody overtakes who would put one off.

EASY promises a start to the first that waits, and may put off the second again and again. Here each job, in
order, gets the earliest time at which enough devices of one kind are free for as long as it is estimated
to take, given all reservations before its own (Mu'alem and Feitelson, TPDS 2001). Who can have it now starts.

Like promises, reservations count devices of a kind, and do not name them. They are worked out anew in each
cycle, in order: with true estimates none is ever put off by a job that comes later, and where a job ends early
everybody moves up.
"""

import math
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile

import numpy as np
from msgspec.structs import replace

from artesian.model.capacity import BoolArray, Capacity, Trial
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.plan import Hold, HoldCode, Plan, Reason, Start
from artesian.model.resources import MILLI, DeviceRequest
from artesian.model.snapshot import Snapshot
from artesian.model.units import format_duration
from artesian.policy import explain
from artesian.policy.base import Order, Place
from artesian.policy.line import Line, line_of, passes_with
from artesian.policy.pipeline import wanted_nodes
from artesian.policy.profile import Profile

_DEPTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """When a job that waits is to start, on devices of the ``kind``; infinity where no estimate tells."""

    job: Job
    at_s: float
    kind: int | None
    nodes: BoolArray


@dataclass(slots=True)
class _Cycle:
    line: Line
    starts: list[Start] = field(default_factory=list)
    started: list[tuple[Job, Placement]] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    reservations: list[Reservation] = field(default_factory=list)
    profiles: dict[int, Profile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conservative:
    """Serve jobs in order; let those start now who put off no reservation before theirs.

    At most ``depth`` jobs are looked at behind the first that waits: who is further behind has no
    reservation yet, and does not start. ``reservations`` looks at all.
    """

    order: Order
    place: Place
    depth: int = _DEPTH

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return the starts of this cycle, and the jobs that it looked at in vain."""
        with snapshot.capacity.trial() as trial:
            cycle = self._serve(snapshot, trial, self.depth)
        return Plan(at_s=snapshot.at_s, starts=tuple(cycle.starts), holds=tuple(cycle.holds))

    def reservations(self, snapshot: Snapshot) -> tuple[Reservation, ...]:
        """Return when everybody who waits is to start, in order."""
        with snapshot.capacity.trial() as trial:
            return tuple(self._serve(snapshot, trial, math.inf).reservations)

    def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
        """Return why the job waits, and when it is to start."""
        job = snapshot.waiting[job_id].job
        with snapshot.capacity.trial() as trial:
            cycle = self._serve(snapshot, trial, self.depth)
            if any(start.job_id == job_id for start in cycle.starts):
                return None
            reason = explain.impossible(job, trial.capacity) or cycle.line.refusal(job)
            if reason is not None:
                return reason
            holders = [(entry.job, entry.placement) for entry in snapshot.running.values()]
            allowed = partial(cycle.line.allowed, job, free=trial.capacity)
            busy = explain.devices_busy(job, [*holders, *cycle.started], trial.capacity, allowed)
        nodes = wanted_nodes(job, snapshot.capacity)
        reservations = self.reservations(snapshot)
        mine = next((entry for entry in reservations if entry.job.id == job_id), None)
        # Who is behind more jobs than a cycle looks at has none in it, though it might start if it looked at all.
        due = "; a cycle does not look as far behind" if mine is None else _due(mine, snapshot.at_s)
        others = takewhile(lambda entry: entry is not mine, reservations)
        ahead = next((entry for entry in others if bool((entry.nodes & nodes).any())), None)
        if ahead is None:
            return Reason(code=busy.code, text=busy.text, unblock=busy.unblock + due)
        passes = passes_with(self.order, snapshot.waiting[job_id], snapshot.waiting[ahead.job.id])
        behind = explain.behind(ahead.job, passes)
        return Reason(code=behind.code, text=behind.text, unblock=behind.unblock + due)

    def _serve(self, snapshot: Snapshot, trial: Trial, depth: float) -> _Cycle:
        cycle = _Cycle(line_of(self.order, snapshot))
        free, line = trial.capacity, cycle.line
        held: set[int] = set()
        reserved = np.zeros_like(free.is_up)
        looked = 0
        for entry in line:
            job = entry.job
            if not explain.is_possible(job, free):
                cycle.holds.append(Hold(job_id=job.id, code=explain.impossible_code(job, free)))
                line.leave_shape()
                continue
            nodes = wanted_nodes(job, free)
            if bool((reserved & nodes).any()):
                looked += 1
                if looked > depth:
                    if bool((reserved | ~free.is_up).all()):
                        break
                    line.leave_shape()  # others may wait for devices that nobody has a reservation of
                    continue
            placement = self._now(cycle, job, free, snapshot.at_s)
            if placement is not None:
                trial.take(job, placement, at_s=snapshot.at_s)
                line.started(job, placement)
                cycle.started.append((job, placement))
                reason = explain.start(placement, is_first=not cycle.reservations)
                if cycle.reservations:
                    reason += "; it puts off no reservation of a job ahead of it"
                cycle.starts.append(
                    Start(job_id=job.id, epoch=entry.next_epoch, placement=placement, reason=reason)
                )
                continue
            if (refusal := line.refusal(job)) is not None:
                cycle.holds.append(Hold(job_id=job.id, code=refusal.code))
                line.leave_shape()
                continue
            if line.shape not in held:
                held.add(line.shape)
                cycle.holds.append(_hold(cycle, job, nodes))
            if depth < math.inf and not free.open_devices and not snapshot.waiting.host_only:
                break  # the usual end of a cycle on a full fleet
            cycle.reservations.append(_reserve(cycle, job, nodes, free, snapshot.at_s))
            reserved |= nodes
        return cycle

    def _now(self, cycle: _Cycle, job: Job, free: Capacity, at_s: float) -> Placement | None:
        """Return where the job may start now, and take it off what is reserved from."""
        lasts_s = _lasts_s(job)
        for request in job.devices:
            for kind in _kinds(request, free):
                profile = _profile(cycle, kind, free, at_s)
                fitted = _fitted(request, profile.least(at_s, lasts_s))
                if fitted is None:
                    continue
                allowed = free.is_up & (free.kind == kind)
                placement = cycle.line.place(self.place, replace(job, devices=(fitted,)), free, allowed)
                if placement is None:
                    continue
                if not request.is_fraction:
                    profile.take(at_s, lasts_s, placement.devices)
                    return placement
                if _take_share(profile, placement, free, at_s, lasts_s):
                    return placement
        return None


def _fitted(request: DeviceRequest, devices: int) -> DeviceRequest | None:
    """Return the request, with no more devices than there are; None where that is too few."""
    if request.is_fraction or request.is_host_only:
        return request  # whether a share has to have a device to itself shows when it is placed
    if devices < request.min_devices:
        return None
    return replace(request, max_milli=min(request.max_milli, devices * MILLI))


def _take_share(profile: Profile, placement: Placement, free: Capacity, at_s: float, lasts_s: float) -> bool:
    """Take the device that a share is of, from when it would have come free; return whether that puts off nobody."""
    share = placement.shares[0]
    held_s = max(at_s, float(free.expected_ends_s(at_s)[free.row[share.node_id], share.devices[0]]))
    beyond_s = at_s + lasts_s - held_s
    if held_s == math.inf or beyond_s <= 0:
        return True
    if profile.least(held_s, beyond_s) < 1:
        return False
    profile.take(held_s, beyond_s, 1)
    return True


def _reserve(cycle: _Cycle, job: Job, nodes: BoolArray, free: Capacity, at_s: float) -> Reservation:
    """Return the earliest start of the job, and take it off what is reserved from."""
    lasts_s = _lasts_s(job)
    best: tuple[float, int, int] | None = None
    for request in job.devices:
        needed = 0 if request.is_host_only else max(1, request.min_devices)
        for kind in _kinds(request, free):
            start_s = _profile(cycle, kind, free, at_s).earliest_s(needed, lasts_s)
            if start_s < math.inf and (best is None or start_s < best[0]):
                best = (start_s, kind, needed)
    if best is None:
        return Reservation(job=job, at_s=math.inf, kind=None, nodes=nodes)
    start_s, kind, needed = best
    _profile(cycle, kind, free, at_s).take(start_s, lasts_s, needed)
    return Reservation(job=job, at_s=start_s, kind=kind, nodes=nodes)


def _hold(cycle: _Cycle, job: Job, nodes: BoolArray) -> Hold:
    ahead = next((entry for entry in cycle.reservations if bool((entry.nodes & nodes).any())), None)
    if ahead is None:
        return Hold(job_id=job.id, code=HoldCode.DEVICES_BUSY)
    return Hold(job_id=job.id, code=HoldCode.BEHIND_ANOTHER, behind=ahead.job.id)


def _profile(cycle: _Cycle, kind: int, free: Capacity, at_s: float) -> Profile:
    profile = cycle.profiles.get(kind)
    if profile is None:
        ends_s = free.expected_ends_s(at_s)[(free.kind == kind) & free.is_up]
        profile = cycle.profiles[kind] = Profile(ends_s.ravel(), at_s)
    return profile


def _kinds(request: DeviceRequest, free: Capacity) -> list[int]:
    return free.remember(
        ("kinds in order", request), lambda: sorted(set(free.kind[free.eligible(request)].tolist()))
    )


def _lasts_s(job: Job) -> float:
    return math.inf if job.estimated_duration_s is None else job.estimated_duration_s


def _due(mine: Reservation, at_s: float) -> str:
    if mine.at_s == math.inf:
        return (
            "; when is not known, for of what runs there or goes before it not all has an estimated duration"
        )
    return f"; its start is reserved in {format_duration(max(0.0, mine.at_s - at_s))}"
