"""Simulate a list of jobs on a fleet: virtual time around the very kernel that runs live."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TypeGuard

from msgspec import Struct

from artesian.kernel.collector import collector_paused
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import Record, State
from artesian.model.errors import ArtesianError
from artesian.model.events import (
    AttemptEnded,
    CancelRequested,
    ClockTicked,
    Event,
    JobSubmitted,
    NodeJoined,
    NodeLost,
)
from artesian.model.fleet import Fleet
from artesian.model.plan import Plan, Reason
from artesian.policy.base import Policy
from artesian.sim.engine import Ran, VirtualEngine
from artesian.sim.jobs import SimJob

MAX_RESTARTS = 1000
"""How often a job may start beyond its failures and the events told; a policy that preempts what it has
just started would go on for ever."""


class NoProgress(ArtesianError):  # noqa: N818 - reads as what it is
    """The simulation would never come to an end."""


class SimResult(Struct, frozen=True, kw_only=True, gc=False):
    """What happened. ``records`` is the journal, events and plans in order: replayed, it gives ``state``.

    A plan that changed nothing is left out. ``reasons`` says of each job that still waits at the end why.
    ``jobs`` are those that it was told of, ``ran`` what the attempts that ended have lost. The policy was asked in
    ``cycles``; ``noticed`` are those whose plan came with a notice (``Plan.notice``), and ``notice`` is the first one.
    """

    records: tuple[Record, ...]
    state: State
    reasons: Mapping[str, Reason]
    jobs: Mapping[str, SimJob]
    ran: tuple[Ran, ...]
    cycles: int = 0
    noticed: int = 0
    notice: str | None = None


def simulate(
    fleet: Fleet,
    jobs: Sequence[SimJob],
    policy: Policy,
    *,
    events: Iterable[Event] = (),
    faults: Iterator[Event] | None = None,
    until: Collection[str] | None = None,
    progress: Callable[[int], None] | None = None,
    keeps_records: bool = True,
    reports_every_s: float | None = None,
) -> SimResult:
    """Return what ``policy`` makes of ``jobs`` on ``fleet``, whose nodes join at time 0.

    ``events`` are what else happens: a node lost, a job cancelled; ``faults`` are more of them, in the order
    of their times and possibly without end (``NodeFaults``). What happens at one time is one cycle. The same arguments give the same records. A job that can never start ends the simulation where
    it waits: ``report`` lists it, with its reason. With ``until``, ids of jobs, it ends as soon as all of
    these are over, whatever else still runs or is to come: arrivals go on while those are looked at.
    Without ``keeps_records`` there are none in the result: of a million jobs they take more than all else.
    With ``reports_every_s``, attempts tell of checkpoints and steps so often, in virtual time, as live ones do:
    the scheduler then knows what a stop would lose, and learns how fast jobs are.
    ``progress`` is told how many jobs are over, after each cycle in which one more is.

    Raises ValueError when two jobs have one id or an event cannot be taken, NoProgress when the end would
    never come.
    """
    with collector_paused():
        return _simulate(
            fleet, jobs, policy, tuple(events), faults, until, progress, keeps_records, reports_every_s
        )


def _simulate(
    fleet: Fleet,
    jobs: Sequence[SimJob],
    policy: Policy,
    others: tuple[Event, ...],
    faults: Iterator[Event] | None,
    until: Collection[str] | None,
    progress: Callable[[int], None] | None,
    keeps_records: bool,
    reports_every_s: float | None,
) -> SimResult:
    known = {entry.job.id: entry for entry in jobs}
    if len(known) < len(jobs):
        raise ValueError(f"jobs: expected distinct ids, got {len(jobs)} jobs with {len(known)} ids")
    untimed = [event.at_s for event in others if not 0 <= event.at_s < math.inf]
    unknown = [event.job.id for event in others if isinstance(event, JobSubmitted)]
    if untimed:
        raise ValueError(f"events: expected finite times of at least 0, got {untimed[0]}")
    if unknown:
        raise ValueError(f"events: expected jobs to come as SimJobs, with a duration, got {unknown[0]}")
    if reports_every_s is not None and not 0 < reports_every_s < math.inf:
        raise ValueError(f"reports_every_s must be finite and positive, got {reports_every_s}")
    scheduler = Scheduler(policy)
    engine = VirtualEngine(known, reports_every_s, begins_quietly=not scheduler.heeds_starts)
    joins = (NodeJoined(at_s=0.0, node=node) for node in fleet.nodes)
    submits = (JobSubmitted(at_s=entry.submit_s, job=entry.told) for entry in jobs)
    engine.foresee(chain(joins, submits, others))
    if faults is not None:
        engine.follow(faults)

    records: list[Record] = []
    looked_at = None if until is None else set(until)
    over = noticed = 0
    notice: str | None = None
    told = len(others)
    while (at_s := _earlier(engine.next_s, scheduler.next_due_s)) is not None:
        happened = engine.pop(at_s)
        if not happened or happened[-1].at_s < at_s:
            if scheduler.next_due_s == at_s:
                happened.append(ClockTicked(at_s=at_s))
            elif not happened:
                continue  # only attempts that were stopped before had something to say
        if faults is not None:
            told += sum(isinstance(event, NodeLost) for event in happened)
        plan = scheduler.step(happened)
        if plan.notice is not None:
            noticed, notice = noticed + 1, notice or plan.notice
        if keeps_records:
            records += happened
            if not plan.is_empty:
                records.append(plan)
        if plan.starts or plan.stops:
            _check_progress(plan, known, engine, told)
            for command in plan.commands:
                engine.carry_out(command, at_s)
        if progress is not None and (more := sum(_is_over(event, scheduler.state) for event in happened)):
            over += more
            progress(over)
        if looked_at is not None:
            looked_at -= {event.job_id for event in happened if _is_over(event, scheduler.state)}
            if not looked_at:
                break
        if faults is not None and engine.is_quiet and _is_settled(scheduler):
            break  # from here on nodes would come and go for ever, and nobody would care
    reasons = {job_id: scheduler.why(job_id) for job_id in scheduler.state.waiting}
    return SimResult(
        records=tuple(records),
        state=scheduler.state,
        reasons={job_id: reason for job_id, reason in reasons.items() if reason is not None},
        jobs=known,
        ran=tuple(engine.ran),
        cycles=scheduler.cycles,
        noticed=noticed,
        notice=notice,
    )


def _earlier(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _is_settled(scheduler: Scheduler) -> bool:
    """Return whether nothing runs and, with every node up, nobody who waits could start."""
    state = scheduler.state
    if state.running or scheduler.next_due_s is not None:
        return False
    return not state.waiting or all(record.is_open for record in state.nodes.values())


def _is_over(event: Event, state: State) -> TypeGuard[AttemptEnded | CancelRequested]:
    return isinstance(event, AttemptEnded | CancelRequested) and state.jobs[event.job_id].state.is_final


def _check_progress(plan: Plan, jobs: dict[str, SimJob], engine: VirtualEngine, events: int) -> None:
    """Raise NoProgress if the plan starts a job once more that has started far too often in vain."""
    for start in plan.starts:
        if start.epoch <= MAX_RESTARTS:
            continue
        entry = jobs[start.job_id]
        in_vain = start.epoch - engine.useful_attempts.get(start.job_id, 0)
        if in_vain > MAX_RESTARTS + len(entry.failures) + events:
            raise NoProgress(
                f"simulation: job {entry.job.name} ({start.job_id}) starts for the {start.epoch}th time at "
                f"{plan.at_s:g} s, and no attempt is let run to its end",
                hint="the policy stops what it has just started; give a started job some time that is its own",
            )
