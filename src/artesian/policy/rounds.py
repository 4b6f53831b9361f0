"""Devices of several models, given out in rounds: who has which until the round is over."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from artesian.model.job import Cause, Job
from artesian.model.placement import Placement
from artesian.model.plan import Hold, HoldCode, Plan, Reason, Start, Stop
from artesian.model.quota import Teams
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.model.units import format_duration
from artesian.policy import explain
from artesian.policy.accounts import Accounts
from artesian.policy.base import Place
from artesian.policy.fallback import ranked
from artesian.policy.ranking import Ranking
from artesian.policy.round import Cycle
from artesian.policy.round import refusals as refusals_of
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
    teams: Teams = field(default_factory=Teams)
    """What they are guaranteed they have first, and none has more than it may; weights count for nothing."""

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
        refused = decision.refusals.get(job_id)
        holders = [(entry.job, entry.placement) for entry in snapshot.running.values()]
        with capacity.trial() as trial:
            for start in decision.plan.starts:
                started = snapshot.waiting[start.job_id].job
                trial.take(started, start.placement)
                holders.append((started, start.placement))
            if refused is not None:
                reason = refused
            elif self.place.place(job, capacity, capacity.is_up) is None:
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
        others = None if refused is not None else f"by {decision.by} others go before it"
        known = "".join(f"; {what}" for what in (others, unknown, decision.plan.notice) if what is not None)
        return Reason(
            code=reason.code,
            text=f"{reason.text}{known}",
            unblock=f"{reason.unblock}, or its turn comes when the round is over, in {format_duration(rest_s)}",
        )

    # -- a cycle ------------------------------------------------------------------------------------

    def _decide(self, snapshot: Snapshot) -> "_Decision":
        is_round_over = self._is_round_over(snapshot)
        if not snapshot.waiting and not (is_round_over and snapshot.running):
            return _Decision(Plan(at_s=snapshot.at_s), {}, self.ranking.name, {})
        accounts = None if self.teams.is_plain else Accounts(self.teams, snapshot.capacity)
        known, impossible = problem(snapshot, self.throughputs, accounts)
        refusals = {} if accounts is None else refusals_of(accounts, snapshot.capacity, impossible)
        holds = [
            Hold(job_id=job.id, code=_impossible_code(job, snapshot, refusals.get(job.id)))
            for job in impossible
        ]
        if not known.jobs:
            plan = Plan(at_s=snapshot.at_s, holds=tuple(holds))
            return _Decision(plan, {}, self.ranking.name, refusals)
        found = ranked(self.ranking, known)
        teams = None if accounts is None else self.teams
        cycle = Cycle(snapshot, known, found.priorities, found.sizes, self.place, is_round_over, teams)
        with snapshot.capacity.trial() as trial:
            cycle.choose(trial)
        startable = cycle.startable()
        refusals |= cycle.refusals(startable)
        starts = [
            Start(
                job_id=(entry := snapshot.waiting[known.jobs[number].id]).job.id,
                epoch=entry.next_epoch,
                placement=placement,
                reason=self._start_reason(known, number, placement, found.name),
            )
            for number, placement in startable
        ]
        started = {start.job_id for start in starts}
        holds += [
            Hold(
                job_id=job.id,
                code=refusals[job.id].code if job.id in refusals else HoldCode.DEVICES_BUSY,
            )
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
        return _Decision(plan, unknown, found.name, refusals)

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


def _impossible_code(job: Job, snapshot: Snapshot, refused: Reason | None) -> HoldCode:
    if refused is not None:
        return refused.code
    reason = explain.impossible(job, snapshot.capacity)
    return HoldCode.DEVICES_BUSY if reason is None else reason.code


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
    """``unknown`` says of jobs, by id, what is not known of their speeds; ``by`` is what the turns went by; ``refusals``
    say which jobs wait for what their teams may have."""

    plan: Plan
    unknown: Mapping[str, str]
    by: str
    refusals: Mapping[str, Reason]
