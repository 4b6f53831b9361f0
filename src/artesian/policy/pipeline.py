"""A policy from parts: an order and a placement, served strictly in order."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from artesian.model.capacity import BoolArray, Capacity, Trial
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.plan import Hold, HoldCode, Plan, Reason, Start
from artesian.model.queue import shape_of
from artesian.model.snapshot import Snapshot
from artesian.policy import explain
from artesian.policy.base import Order, Place
from artesian.policy.line import Line, line_of, passes_with

_IMPOSSIBLE = frozenset(
    {
        HoldCode.LARGER_THAN_FLEET,
        HoldCode.NO_SUCH_DEVICES,
        HoldCode.OVER_QUOTA,
        HoldCode.KEPT_FOR_TEAMS,
    }
)
"""Why a job waits that keeps nothing from anybody."""


@dataclass(slots=True)
class _Cycle:
    """What one cycle has decided so far.

    ``blockers`` are the jobs that keep their nodes from all behind them, with these nodes [N].
    """

    line: Line
    starts: list[Start] = field(default_factory=list)
    started: list[tuple[Job, Placement]] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    blockers: list[tuple[Job, BoolArray]] = field(default_factory=list)

    def plan(self, at_s: float) -> Plan:
        """Return it as a plan."""
        return Plan(at_s=at_s, starts=tuple(self.starts), holds=tuple(self.holds))


@dataclass(frozen=True, slots=True)
class InOrder:
    """Serve jobs in order; one that cannot start yet keeps its nodes from all behind it.

    A job that waits blocks only the nodes that it could run on, so that a queue for one kind of
    device never holds up another. One that the whole fleet could not hold blocks nothing.
    """

    order: Order
    place: Place

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return the starts of this cycle, and the jobs that it looked at in vain."""
        with snapshot.capacity.trial() as trial:
            return self.plan_on(snapshot, trial)

    def plan_on(self, snapshot: Snapshot, trial: Trial) -> Plan:
        """Return the same, and leave what starts taken."""
        return self._serve(snapshot, trial).plan(snapshot.at_s)

    def _serve(self, snapshot: Snapshot, trial: Trial) -> _Cycle:
        cycle = _Cycle(line_of(self.order, snapshot))
        free, line = trial.capacity, cycle.line
        allowed = free.is_up
        for entry in line:
            job = entry.job
            if not explain.is_possible(job, free):
                code = explain.impossible_code(job, free)
                cycle.holds.append(Hold(job_id=job.id, code=code))
                line.leave_shape()
                continue
            placement = line.place(self.place, job, free, allowed)
            if placement is not None:
                trial.take(job, placement, at_s=snapshot.at_s)
                line.started(job, placement)
                cycle.started.append((job, placement))
                cycle.starts.append(
                    Start(
                        job_id=job.id,
                        epoch=entry.next_epoch,
                        placement=placement,
                        reason=explain.start(placement, is_first=not cycle.blockers),
                    )
                )
                continue
            line.leave_shape()
            if (refusal := line.refusal(job)) is not None:
                cycle.holds.append(Hold(job_id=job.id, code=refusal.code))
                continue
            allowed = self._hold(cycle, job, free, allowed)
            if not allowed.any():
                break
        return cycle

    @staticmethod
    def _hold(cycle: _Cycle, job: Job, free: Capacity, allowed: BoolArray) -> BoolArray:
        """Note that the job waits, and return the nodes [N] that are left for those behind it."""
        wanted = wanted_nodes(job, free)
        blocker = _blocker(cycle, wanted)
        if blocker is None:
            cycle.holds.append(Hold(job_id=job.id, code=HoldCode.DEVICES_BUSY))
        else:
            cycle.holds.append(Hold(job_id=job.id, code=HoldCode.BEHIND_ANOTHER, behind=blocker.id))
        if bool((wanted & allowed).any()):
            # Head-of-line blocking is FIFO's contract, not an oversight: without it a large gang
            # waits for ever behind small jobs that fit.
            cycle.blockers.append((job, wanted))
            allowed = allowed & ~wanted
        return allowed

    def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
        """Return why the job waits that ``plan`` would leave waiting; None where it would start."""
        job = snapshot.waiting[job_id].job
        with snapshot.capacity.trial() as trial:
            cycle = self._serve(snapshot, trial)
            if any(start.job_id == job_id for start in cycle.starts):
                return None
            free = trial.capacity
            reason = explain.impossible(job, free) or cycle.line.refusal(job)
            if reason is not None:
                return reason
            hold = next((hold for hold in cycle.holds if hold.job_id == job_id), None)
            if hold is None or hold.behind is not None:
                ahead = self._ahead(snapshot, cycle.holds, job).id if hold is None else hold.behind
                assert ahead is not None
                passes = passes_with(self.order, snapshot.waiting[job_id], snapshot.waiting[ahead])
                return explain.behind(snapshot.waiting[ahead].job, passes)
            holders = [(entry.job, entry.placement) for entry in snapshot.running.values()]
            allowed = partial(cycle.line.allowed, job, free=free)
            return explain.devices_busy(job, [*holders, *cycle.started], free, allowed)

    @staticmethod
    def _ahead(snapshot: Snapshot, holds: list[Hold], job: Job) -> Job:
        """Return the job that the cycle looked at in vain and that keeps ``job`` from being looked at."""
        held = [snapshot.waiting[hold.job_id].job for hold in holds if hold.code not in _IMPOSSIBLE]
        alike = next((ahead for ahead in held if shape_of(ahead) == shape_of(job)), None)
        if alike is not None:
            return alike
        wanted = wanted_nodes(job, snapshot.capacity)
        return next(ahead for ahead in held if bool((wanted_nodes(ahead, snapshot.capacity) & wanted).any()))


def _blocker(cycle: _Cycle, wanted: BoolArray) -> Job | None:
    return next((ahead for ahead, nodes in cycle.blockers if bool((nodes & wanted).any())), None)


def wanted_nodes(job: Job, capacity: Capacity) -> BoolArray:
    """Return the nodes [N] that one of the job's alternatives could use; not to be changed: it is remembered."""

    def found() -> BoolArray:
        wanted: BoolArray = np.logical_or.reduce([capacity.eligible(request) for request in job.devices])
        return wanted

    return capacity.remember(("wanted", job.devices), found)
