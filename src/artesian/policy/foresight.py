"""When a job that waits is likely to start: the policy itself, run ahead on a copy until it does.

It takes the estimates of what runs and of what starts meanwhile for true, and that nobody else comes. What
has no estimate never ends.
"""

import heapq
import math

from msgspec.structs import replace

from artesian.model.capacity import Capacity
from artesian.model.ends import expected_end_s
from artesian.model.plan import Plan
from artesian.model.queue import WaitingJob, WaitingQueue
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.policy.base import Policy, Timed

_MOST_CYCLES = 200
_COARSE_S = 600.0
"""How far time goes on where nothing happens: a policy that looks every minute would not get far otherwise."""


def nearest_start_s(policy: Policy, snapshot: Snapshot, job_id: str) -> float | None:
    """Return when the job would start under the policy; None where no estimate tells, or not within 200 cycles.

    Raises KeyError for a job that does not wait.
    """
    if job_id not in snapshot.waiting:
        raise KeyError(job_id)
    world = _World(snapshot)
    for _ in range(_MOST_CYCLES):
        plan = policy.plan(world.snapshot())
        if any(start.job_id == job_id for start in plan.starts):
            return world.at_s
        stopped = world.carry_out(plan)
        if not stopped and not world.go_on(policy):
            return None
    return None


class _World:
    """A copy of a snapshot in which time goes on."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.at_s = snapshot.at_s
        self._before_s = snapshot.before_s
        self._speeds, self._history = snapshot.speeds, snapshot.history
        self._capacity: Capacity = snapshot.capacity.copy()
        self.waiting = WaitingQueue(snapshot.waiting.values())
        self._running = dict(snapshot.running)
        self._ends: list[tuple[float, str, int]] = []
        for job_id in sorted(self._running):
            self._foresee_end(self._running[job_id])

    def snapshot(self) -> Snapshot:
        """Return what a policy sees."""
        return Snapshot(
            at_s=self.at_s,
            waiting=self.waiting,
            running=self._running,
            capacity=self._capacity,
            before_s=self._before_s,
            speeds=self._speeds,
            history=self._history,
        )

    def carry_out(self, plan: Plan) -> bool:
        """Start and stop; return whether somebody has left, who leaves at once."""
        for stop in plan.stops:
            self._leave(stop.job_id, waits=True)
        for start in plan.starts:
            entry = self.waiting[start.job_id]
            self.waiting.discard(start.job_id)
            self._capacity.take(entry.job, start.placement)
            self._capacity.expect(entry.job, start.placement, self.at_s)
            holder = RunningJob.begun(entry, start, self.at_s)
            self._running[start.job_id] = holder
            self._foresee_end(holder)
        for claim in plan.claims:
            entry = self.waiting[claim.job_id]
            self.waiting.discard(claim.job_id)
            self.waiting.add(replace(entry, claim=claim.placement))
        self._before_s = self.at_s
        return bool(plan.stops)

    def go_on(self, policy: Policy) -> bool:
        """Let time pass until something happens; return whether something does."""
        while self._ends and not self._is_current(self._ends[0]):
            heapq.heappop(self._ends)
        next_s = self._ends[0][0] if self._ends else math.inf
        if isinstance(policy, Timed) and self._running:
            wake_s = policy.next_wake_s(self.snapshot())
            next_s = min(next_s, math.inf if wake_s is None else max(wake_s, self.at_s + _COARSE_S))
        if next_s == math.inf:
            return False
        self.at_s = next_s
        while self._ends and self._ends[0][0] <= next_s:
            end = heapq.heappop(self._ends)
            if self._is_current(end):
                # One that is to go on elsewhere is not over.
                self._leave(end[1], waits=self._running[end[1]].claim is not None)
        return True

    def _is_current(self, end: tuple[float, str, int]) -> bool:
        holder = self._running.get(end[1])
        return holder is not None and holder.epoch == end[2]

    def _leave(self, job_id: str, *, waits: bool) -> None:
        holder = self._running.pop(job_id)
        self._capacity.give(holder.job, holder.placement)
        if waits:
            self.waiting.add(
                WaitingJob(
                    job=holder.job,
                    submitted_s=holder.submitted_s,
                    next_epoch=holder.epoch + 1,
                    waits_since_s=self.at_s,
                    served_device_s=holder.served_s(self.at_s),
                    claim=holder.claim,
                )
            )

    def _foresee_end(self, holder: RunningJob) -> None:
        """Note when it ends; one that is stopping does so at once, one without an estimate never."""
        if holder.is_stopping:
            end_s: float = self.at_s
        else:
            end_s = expected_end_s(holder.since_s, holder.job.estimated_duration_s, self.at_s)
        if end_s < math.inf:
            heapq.heappush(self._ends, (end_s, holder.job.id, holder.epoch))
