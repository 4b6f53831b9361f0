"""Devices of several models, given out in rounds: who has which until the round is over."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace

from artesian.model.capacity import BoolArray, Trial
from artesian.model.job import Cause, Job
from artesian.model.placement import Placement
from artesian.model.plan import Hold, HoldCode, Plan, Reason, Start, Stop
from artesian.model.queue import shape_of
from artesian.model.resources import MILLI
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.model.units import format_duration
from artesian.policy import explain
from artesian.policy.base import Place
from artesian.policy.fallback import ranked
from artesian.policy.ranking import Ranking, targets
from artesian.policy.solver import FloatArray, IntArray
from artesian.policy.throughput import Problem, Throughputs, problem

ROUND_S = 360.0
"""Length of a round, as Gavel has it."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """Decide anew who runs on which model of device whenever a round is over; the rounds of all are one.

    Rounds end at the multiples of ``round_s``. Then running jobs are stopped that others go before, or
    that are to go on on another model of device. In between nothing is stopped: who comes gets what is free, and what
    a stopped job is about to give back is kept for whom it was stopped for. No device is left idle
    that somebody who waits could use.

    It has no memory: a round is over when one ended between the cycle before (``Snapshot.before_s``) and
    this one. A job whose retry policy does not allow preemption is never stopped.
    """

    ranking: Ranking
    place: Place
    throughputs: Throughputs = field(default_factory=Throughputs)
    round_s: float = ROUND_S

    def __post_init__(self) -> None:
        if not 0 < self.round_s < math.inf:
            raise ValueError(f"rounds: expected a length above 0, got {self.round_s} s")

    def next_wake_s(self, snapshot: Snapshot) -> float | None:
        """Return when the round is over."""
        return (self._round(snapshot.at_s) + 1) * self.round_s if snapshot.running else None

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return the stops and starts of this cycle, and who waits."""
        return self._decide(snapshot).plan

    def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
        """Return why the job waits that ``plan`` would leave waiting; None where it would start."""
        job = snapshot.waiting[job_id].job
        decision = self._decide(snapshot)
        if any(start.job_id == job_id for start in decision.plan.starts):
            return None
        capacity = snapshot.capacity
        if (reason := explain.impossible(job, capacity)) is not None:
            return reason
        holders = [(entry.job, entry.placement) for entry in snapshot.running.values()]
        with capacity.trial() as trial:
            for start in decision.plan.starts:
                started = snapshot.waiting[start.job_id].job
                trial.take(started, start.placement)
                holders.append((started, start.placement))
            if self.place.place(job, capacity, capacity.is_up) is None:
                reason = explain.devices_busy(job, holders, capacity)
            else:
                reason = Reason(
                    code=HoldCode.DEVICES_BUSY,
                    text="the devices that are free are kept for jobs that go before it, and that start when "
                    "the stopped ones have gone",
                    unblock="a device becomes free that no job wants that goes before it",
                )
        rest_s = (self._round(snapshot.at_s) + 1) * self.round_s - snapshot.at_s
        unknown = decision.unknown.get(job_id)
        known = "".join(f"; {what}" for what in (unknown, decision.plan.notice) if what is not None)
        return Reason(
            code=reason.code,
            text=f"{reason.text}; by {decision.by} others go before it{known}",
            unblock=f"{reason.unblock}, or its turn comes when the round is over, in {format_duration(rest_s)}",
        )

    # -- a cycle ------------------------------------------------------------------------------------

    def _decide(self, snapshot: Snapshot) -> "_Decision":
        is_round_over = self._is_round_over(snapshot)
        if not snapshot.waiting and not (is_round_over and snapshot.running):
            return _Decision(Plan(at_s=snapshot.at_s), {}, self.ranking.name)
        known, impossible = problem(snapshot, self.throughputs)
        holds = [
            Hold(job_id=job.id, code=explain.impossible_code(job, snapshot.capacity)) for job in impossible
        ]
        if not known.jobs:
            return _Decision(Plan(at_s=snapshot.at_s, holds=tuple(holds)), {}, self.ranking.name)
        found = ranked(self.ranking, known)
        cycle = _Cycle(snapshot, known, found.priorities, found.sizes, self.place, is_round_over)
        with snapshot.capacity.trial() as trial:
            cycle.choose(trial)
        starts = [
            Start(
                job_id=(entry := snapshot.waiting[known.jobs[number].id]).job.id,
                epoch=entry.next_epoch,
                placement=placement,
                reason=self._start_reason(known, number, placement, found.name),
            )
            for number, placement in cycle.startable()
        ]
        started = {start.job_id for start in starts}
        holds += [
            Hold(job_id=job.id, code=HoldCode.DEVICES_BUSY)
            for job in known.jobs
            if job.id in snapshot.waiting and job.id not in started
        ]
        plan = Plan(
            at_s=snapshot.at_s,
            stops=tuple(self._stop(entry, to, found.name) for entry, to in cycle.stops()),
            starts=tuple(starts),
            holds=tuple(holds),
            notice=found.notice,
        )
        unknown = {
            known.jobs[number].id: _unknown(known, number)
            for number in np.flatnonzero(~known.is_known).tolist()
        }
        return _Decision(plan, unknown, found.name)

    def _start_reason(self, known: Problem, number: int, placement: Placement, by: str) -> str:
        unknown = "" if known.is_known[number] else f" ({_unknown(known, number)})"
        return f"its turn by {by}, in rounds of {format_duration(self.round_s)}{unknown}: {placement}"

    @staticmethod
    def _stop(entry: RunningJob, to: str | None, by: str) -> Stop:
        what = "others go before it" if to is None else f"it goes on on {to}"
        return Stop(
            job_id=entry.job.id,
            epoch=entry.epoch,
            grace_s=entry.job.grace_s,
            cause=Cause.PREEMPTED,
            reason=f"the round is over, and by {by} {what}",
        )

    # -- rounds -------------------------------------------------------------------------------------

    def _is_round_over(self, snapshot: Snapshot) -> bool:
        return snapshot.before_s is not None and self._round(snapshot.before_s) < self._round(snapshot.at_s)

    def _round(self, at_s: float) -> int:
        """Return the number of the round; one begins at exactly its number times ``round_s``."""
        number = math.floor(at_s / self.round_s)
        # A quotient may be rounded across the whole number.
        if (number + 1) * self.round_s <= at_s:
            return number + 1
        return number - 1 if number * self.round_s > at_s else number


def _unknown(problem: Problem, number: int) -> str:
    """Return what is not known of the job's speeds, and what that means for it."""
    job, rates = problem.jobs[number], {}
    for kind in np.flatnonzero(problem.can_run[number]).tolist():
        name = problem.kinds[kind]
        rates[name] = problem.known.steps_per_s(job, name, float(problem.devices[number, kind]))
    known = ", ".join(f"{rate:.3g} on {name}" for name, rate in rates.items() if rate is not None)
    missing = ", ".join(name for name, rate in rates.items() if rate is None)
    told = f" ({known})" if known else ""
    return f"its steps/s are not known yet on {missing}{told}, so all models of device count alike for it"


@dataclass(frozen=True, slots=True)
class _Decision:
    """``unknown`` says of jobs, by id, what is not known of their speeds; ``by`` is what the turns went by."""

    plan: Plan
    unknown: Mapping[str, str]
    by: str


class _Cycle:
    """One cycle: who stays, who goes, and where the others go.

    ``placed`` has the jobs, by number, that have got a place, in order; it may be free only when a stopped
    job has gone.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        known: Problem,
        priorities: FloatArray,
        sizes: FloatArray | None,
        place: Place,
        is_round_over: bool,
    ) -> None:
        self._sizes = sizes
        if sizes is not None:
            known = replace(known, devices=np.where(sizes > 0, sizes, known.devices))
        self._known = known
        self._priorities = priorities
        self._place = place
        self._capacity = snapshot.capacity
        self._is_round_over = is_round_over
        self._running = {
            number: entry
            for number, job in enumerate(known.jobs)
            if (entry := snapshot.running.get(job.id)) is not None
        }
        self._others = [entry for id, entry in snapshot.running.items() if entry.is_stopping]
        self._busy: BoolArray = np.zeros(len(snapshot.capacity.nodes), dtype=np.bool_)
        self._staying: set[int] = set()
        self._moving: dict[int, str] = {}
        self.placed: list[tuple[int, Placement]] = []

    def stops(self) -> list[tuple[RunningJob, str | None]]:
        """Return the running jobs that stop, and the devices on which each is to go on, if any."""
        return [
            (entry, self._moving.get(number))
            for number, entry in self._running.items()
            if not entry.is_stopping and number not in self._staying
        ]

    def startable(self) -> list[tuple[int, Placement]]:
        """Return the waiting jobs that have a place and what is there now suffices for, in order."""
        waiting = [pair for pair in self.placed if pair[0] not in self._running]
        if not any(self._busy[self._rows(placement)].any() for _, placement in self.placed):
            return waiting
        startable = []
        with self._capacity.trial() as trial:
            for number, placement in waiting:
                if self._capacity.fits(self._known.jobs[number], placement):
                    trial.take(self._known.jobs[number], placement)
                    startable.append((number, placement))
        return startable

    def choose(self, trial: Trial) -> None:
        """Find out who stays and who goes where, on the capacity that is there when the stopped ones have gone."""
        known = self._known
        movable = {number: entry for number, entry in self._running.items() if not entry.is_stopping}
        # Preemption would be the end of a job that does not allow it.
        fixed = {n for n, entry in movable.items() if Cause.PREEMPTED not in entry.job.retry.causes}
        if not self._is_round_over:
            fixed = set(movable)
        free = known.capacity.copy()
        for number in fixed:
            free[known.on[number]] -= movable[number].placement.whole_devices
        others = [number for number in range(len(known.jobs)) if number not in fixed]
        target = targets(known, self._priorities, jobs=others, free=np.maximum(free, 0.0))
        self._staying = fixed | {number for number in movable if self._goes_on(number, int(target[number]))}
        going = [entry for number, entry in movable.items() if number not in self._staying]
        for entry in (*going, *self._others):
            trial.give(entry.job, entry.placement)
            self._busy[self._rows(entry.placement)] = True
        self._place_targets(trial, target)
        self._place_rest(trial)

    def _goes_on(self, number: int, target: int) -> bool:
        """Return whether the job, which runs, has what it is to have."""
        if target != self._known.on[number]:
            return False
        if self._sizes is None or not self._sizes[number, target]:
            return True
        return bool(self._sizes[number, target] == self._known.has[number])

    def _rows(self, placement: Placement) -> list[int]:
        return [self._capacity.row[share.node_id] for share in placement.shares]

    def _place_targets(self, trial: Trial, target: IntArray) -> None:
        wanted = [number for number in np.flatnonzero(target >= 0).tolist() if number not in self._staying]
        wanted.sort(key=lambda number: (-self._priorities[number, target[number]], number))
        for number in wanted:
            self._put(trial, number, int(target[number]))

    def _place_rest(self, trial: Trial) -> None:
        """Let nothing be idle: who has no place yet takes what is left, where it is fastest."""
        known = self._known
        placed = {number for number, _ in self.placed} | self._staying
        rest = [number for number in range(len(known.jobs)) if number not in placed]
        best = self._priorities.max(1)
        rest.sort(key=lambda number: (-best[number], number))
        full: set[object] = set()
        for number in rest:
            job = known.jobs[number]
            entry = self._running.get(number)
            if entry is not None and not entry.is_stopping:
                if self._capacity.fits(job, entry.placement):
                    trial.take(job, entry.placement)
                    self._staying.add(number)
                continue
            shape = shape_of(job)
            if shape in full:
                continue
            kinds = sorted(
                np.flatnonzero(known.can_run[number]).tolist(),
                key=lambda kind: (-known.rate[number, kind], kind),
            )
            if not any(self._put(trial, number, kind) for kind in kinds):
                full.add(shape)

    def _put(self, trial: Trial, number: int, kind: int) -> bool:
        """Give the job a place on the kind, where nothing has to go first if it can be; return whether it has one."""
        job = self._asked(number, kind)
        allowed = self._capacity.is_up & (self._capacity.kind == kind)
        placement = self._place.place(job, self._capacity, allowed & ~self._busy)
        if placement is None:
            placement = self._place.place(job, self._capacity, allowed)
        if placement is None:
            return False
        entry = self._running.get(number)
        if entry is not None and not entry.is_stopping:
            is_same_kind = kind == self._known.on[number]
            if is_same_kind and placement.devices == entry.placement.devices:
                if not self._capacity.fits(job, entry.placement):
                    return False
                # There is no more to be had after all: it has what it would get.
                trial.take(job, entry.placement)
                self._staying.add(number)
                return True
            name = self._known.kinds[kind]
            self._moving[number] = f"{placement.devices} {name}" if is_same_kind else name
        trial.take(job, placement)
        self.placed.append((number, placement))
        return True

    def _asked(self, number: int, kind: int) -> Job:
        """Return the job, asking for no more devices than it is to have."""
        job = self._known.jobs[number]
        most = 0.0 if self._sizes is None else float(self._sizes[number, kind])
        if not most or all(request.max_devices <= most for request in job.devices):
            return job
        return replace(
            job,
            devices=tuple(
                replace(request, max_milli=max(request.min_milli, min(request.max_milli, int(most) * MILLI)))
                for request in job.devices
            ),
        )
