"""A policy for each pool: each decides about its own nodes, and nobody starts in two of them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from artesian.model.capacity import BoolArray, Capacity
from artesian.model.job import Job
from artesian.model.plan import Hold, HoldCode, Plan, Reason
from artesian.model.queue import WaitingJob
from artesian.model.snapshot import Snapshot
from artesian.policy import explain
from artesian.policy.base import Policy, Timed
from artesian.policy.claims import keep

_IMPOSSIBLE = frozenset({HoldCode.LARGER_THAN_FLEET, HoldCode.NO_SUCH_DEVICES})


@dataclass(slots=True)
class _Cycle:
    """What the pools have decided so far, and why a job waits that somebody asked about."""

    plans: list[Plan] = field(default_factory=list)
    placed: set[str] = field(default_factory=set)
    reasons: list[Reason] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pools:
    """Ask the policy of each pool in turn, in the order of ``by_pool``, then ``other`` for the rest of the nodes.

    A job may run in any pool that has the devices it asks for: who finds no place in one is asked about
    in the next. A gang stays within one. A policy sees all that waits and only its own nodes.
    """

    by_pool: Mapping[str, Policy]
    other: Policy

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return what all of them decide, and why those wait that none of them has a place for."""
        cycle = self._decide(snapshot)
        return Plan(
            at_s=snapshot.at_s,
            stops=tuple(stop for plan in cycle.plans for stop in plan.stops),
            starts=tuple(start for plan in cycle.plans for start in plan.starts),
            holds=_holds(cycle),
            claims=tuple(claim for plan in cycle.plans for claim in plan.claims),
            notice="; ".join(dict.fromkeys(plan.notice for plan in cycle.plans if plan.notice)) or None,
        )

    def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
        """Return why the job waits that ``plan`` would leave waiting; None where it would start."""
        entry = snapshot.waiting[job_id]
        cycle = self._decide(snapshot, entry)
        if any(start.job_id == job_id for plan in cycle.plans for start in plan.starts):
            return None
        possible = (reason for reason in cycle.reasons if reason.code not in _IMPOSSIBLE)
        return next(possible, None) or self._impossible(entry.job, snapshot, cycle.reasons)

    def _impossible(self, job: Job, snapshot: Snapshot, reasons: list[Reason]) -> Reason:
        """Return why no pool could run the job: what all have, or what the one has that could give it most."""
        larger = [reason for reason in reasons if reason.code is HoldCode.LARGER_THAN_FLEET]
        if not larger:
            nowhere = explain.impossible(job, snapshot.capacity)
            assert nowhere is not None, job.id
            return nowhere
        most = max(explain.most_devices(job, snapshot.capacity) for _ in self.each(snapshot))
        return explain.larger_than_pools(job, most) if most else larger[0]

    def next_wake_s(self, snapshot: Snapshot) -> float | None:
        """Return the earliest time at which one of them wants a cycle."""
        timed = (policy for policy in (*self.by_pool.values(), self.other) if isinstance(policy, Timed))
        wakes = [policy.next_wake_s(snapshot) for policy in timed]
        return min((at_s for at_s in wakes if at_s is not None), default=None)

    def each(self, snapshot: Snapshot) -> Iterator[Policy]:
        """Yield the policy of each pool; meanwhile nothing can start but on its nodes."""
        for name, policy in (*self.by_pool.items(), (None, self.other)):
            with snapshot.capacity.within(self._nodes(name, snapshot.capacity), ("pool", name)):
                yield policy

    def _decide(self, snapshot: Snapshot, asked: WaitingJob | None = None) -> _Cycle:
        cycle = _Cycle()
        capacity = snapshot.capacity
        with capacity.trial() as trial:
            for name, policy in (*self.by_pool.items(), (None, self.other)):
                with (
                    capacity.within(self._nodes(name, capacity), ("pool", name)),
                    snapshot.waiting.without(cycle.placed),
                ):
                    plan = policy.plan(snapshot)
                    if asked is not None and asked.job.id not in cycle.placed:
                        reason = policy.explain(snapshot, asked.job.id)
                        cycle.reasons += [] if reason is None else [reason]
                    jobs = {start.job_id: snapshot.waiting[start.job_id].job for start in plan.starts}
                    waiting = {
                        claim.job_id: snapshot.waiting[claim.job_id].job
                        for claim in plan.claims
                        if claim.job_id in snapshot.waiting
                    }
                cycle.plans.append(plan)
                cycle.placed |= jobs.keys() | waiting.keys()
                for start in plan.starts:
                    trial.take(jobs[start.job_id], start.placement, at_s=snapshot.at_s)
                for claim in plan.claims:
                    if claim.job_id in waiting:
                        keep(waiting[claim.job_id], claim.placement, trial, snapshot.at_s)
        return cycle

    def _nodes(self, name: str | None, capacity: Capacity) -> BoolArray:
        def found() -> BoolArray:
            pools = [node.pool for node in capacity.nodes]
            named = self.by_pool.keys()
            return np.array(
                [pool == name if name is not None else pool not in named for pool in pools], dtype=np.bool_
            )

        return capacity.remember(("nodes of pool", name, tuple(self.by_pool)), found)


def _holds(cycle: _Cycle) -> tuple[Hold, ...]:
    """Return one hold for each job: of a pool that could run it, or, where none could, of the first."""
    started = {start.job_id for plan in cycle.plans for start in plan.starts}
    holds = [hold for plan in cycle.plans for hold in plan.holds if hold.job_id not in started]
    larger = {hold.job_id for hold in holds if hold.code is HoldCode.LARGER_THAN_FLEET}
    times_impossible = Counter(hold.job_id for hold in holds if hold.code in _IMPOSSIBLE)
    found: dict[str, Hold] = {}
    passed_over: set[str] = set()
    for hold in holds:
        if hold.code in _IMPOSSIBLE and times_impossible[hold.job_id] < len(cycle.plans):
            continue
        if hold.job_id in found or hold.job_id in passed_over:
            continue
        if hold.code is HoldCode.NO_SUCH_DEVICES and hold.job_id in larger:
            continue  # another pool has such devices, and too few
        if hold.behind in started:
            passed_over.add(
                hold.job_id
            )  # who is ahead of it starts elsewhere: it is looked at in the next cycle
        else:
            found[hold.job_id] = hold
    return tuple(found.values())
