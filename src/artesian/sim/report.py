"""What a simulation came to: per job, over all jobs, over time, and as a waterfall."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from artesian.kernel import accounting
from artesian.kernel.lifecycle import JobRecord, JobState
from artesian.kernel.state import State
from artesian.model.job import Cause
from artesian.model.ledger import US, Loss, Stage, StageResult, Waterfall, to_us
from artesian.model.plan import Reason
from artesian.model.quota import Teams
from artesian.model.resources import MILLI
from artesian.sim.deadlines import Deadlines, deadlines_of
from artesian.sim.engine import Ran
from artesian.sim.fairness import finish_time_ratios
from artesian.sim.figures import Spread as Spread
from artesian.sim.figures import Summary as Summary
from artesian.sim.figures import summary_of
from artesian.sim.run import SimResult
from artesian.sim.teams import TeamFigures, team_figures


class JobResult(Struct, frozen=True, kw_only=True, gc=False):
    """What became of a job.

    ``wait_s`` runs from the submission to the first decision to start, ``jct_s`` (the job's completion
    time) to its end; None where it did not come to that. ``held_milli_us`` is what its attempts held, in
    thousandths of a device times microseconds. ``hold`` is why it still waits. ``accelerator`` is the model of
    device that it ran on last, ``milli`` what its last attempt held; None for a job that never started.
    ``finish_time_ratio`` is in ``fairness``; None where it is not known. ``met_deadline`` is whether it succeeded in
    time; None for a job without a deadline, or that still had time.
    """

    job_id: str
    team: str
    accelerator: str | None
    milli: int | None
    state: JobState
    submitted_s: float
    started_s: float | None
    ended_s: float | None
    attempts: int
    preemptions: int
    held_milli_us: int
    finish_time_ratio: float | None
    hold: Reason | None
    met_deadline: bool | None

    @property
    def wait_s(self) -> float | None:
        """Seconds from the submission to the first start."""
        return None if self.started_s is None else self.started_s - self.submitted_s

    @property
    def jct_s(self) -> float | None:
        """Seconds from the submission to the end."""
        return None if self.ended_s is None else self.ended_s - self.submitted_s


class Group(Struct, frozen=True, kw_only=True, gc=False):
    """Figures of some of the jobs: of a team, of a model of device."""

    jobs: int
    jct: Summary | None
    wait: Summary | None
    held_milli_us: int
    preemptions: int
    finish_time_ratio: Spread | None
    met: int
    missed: int
    """Deadlines."""


class Level(Struct, frozen=True, kw_only=True, gc=False):
    """From ``at_s`` on, ``milli`` thousandths of devices are allocated in all."""

    at_s: float
    milli: int


class Report(Struct, frozen=True, kw_only=True, gc=False):
    """Figures of a simulation.

    ``makespan_s`` runs from the first submission to the last end of an attempt. ``wait`` is over the jobs
    that started, ``jct`` over those that succeeded; None where there are none. ``owned_milli_us`` is what
    the fleet's nodes had over the makespan, lost ones included; ``allocation`` is what was held of it.
    ``deadlines`` is None where no job has one; ``teams`` where nobody told of teams. The policy decided in ``cycles``;
    in ``noticed`` of them it could not decide as it should, its solver failed, say, and ``notice`` is what it said first.
    """

    jobs: tuple[JobResult, ...]
    makespan_s: float | None
    wait: Summary | None
    jct: Summary | None
    owned_milli_us: int
    allocated_milli_us: int
    allocation: tuple[Level, ...]
    waterfall: Waterfall
    deadlines: Deadlines | None
    teams: dict[str, TeamFigures] | None
    cycles: int
    noticed: int
    notice: str | None

    @property
    def notice_text(self) -> str | None:
        """How often the policy could not decide as it should, and what it said first; None where it always could."""
        if self.notice is None:
            return None
        return (
            f"in {self.noticed:,} of {self.cycles:,} cycles it could not decide as it should: {self.notice}"
        )

    @property
    def preemptions(self) -> int:
        """How often a policy stopped a job, over all jobs."""
        return sum(job.preemptions for job in self.jobs)

    @property
    def finish_time_ratio(self) -> Spread | None:
        """How fair it was: see ``fairness``; None where no job succeeded."""
        return Spread.of(job.finish_time_ratio for job in self.jobs)

    @property
    def stranded_share(self) -> float | None:
        """Devices that were free although a job waited, of those owned; None when nothing was owned.

        It is what fragmentation, and rules such as the order of arrival, cost.
        """
        lost = self.waterfall.stages[1].lost_us.get(Loss.WAITING, 0)
        return lost / self.waterfall.nameplate_us if self.waterfall.nameplate_us else None

    @property
    def by_team(self) -> dict[str, Group]:
        """Figures of each team's jobs."""
        return _groups(self.jobs, lambda job: job.team)

    @property
    def by_accelerator(self) -> dict[str, Group]:
        """Figures of the jobs by the model of device that they ran on last; those that never ran are left out."""
        return _groups(self.jobs, lambda job: job.accelerator)

    @property
    def allocated_share(self) -> float | None:
        """Allocated of owned, from 0 to 1; None when nothing was owned, or for no time."""
        return self.allocated_milli_us / self.owned_milli_us if self.owned_milli_us else None

    @property
    def unstarted(self) -> tuple[JobResult, ...]:
        """Jobs that never started and still wait; ``hold`` says why."""
        return tuple(job for job in self.jobs if job.started_s is None and not job.state.is_final)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, marked as simulated."""
        return {
            "simulated": True,
            "makespan_s": self.makespan_s,
            "wait": _dict(self.wait),
            "jct": _dict(self.jct),
            "owned_device_s": _device_s(self.owned_milli_us),
            "allocated_device_s": _device_s(self.allocated_milli_us),
            "allocated_share": self.allocated_share,
            "stranded_share": self.stranded_share,
            "preemptions": self.preemptions,
            "cycles": self.cycles,
            "noticed_cycles": self.noticed,
            "notice": self.notice,
            "finish_time_ratio": _dict(self.finish_time_ratio),
            "deadlines": None if self.deadlines is None else self.deadlines.to_dict(),
            "teams": None
            if self.teams is None
            else {name: team.to_dict() for name, team in self.teams.items()},
            "by_team": {name: _group_dict(group) for name, group in self.by_team.items()},
            "by_accelerator": {name: _group_dict(group) for name, group in self.by_accelerator.items()},
            "allocation": [{"at_s": level.at_s, "devices": level.milli / MILLI} for level in self.allocation],
            "jobs": [
                {
                    "job_id": job.job_id,
                    "team": job.team,
                    "accelerator": job.accelerator,
                    "devices": None if job.milli is None else job.milli / MILLI,
                    "state": job.state.value,
                    "submitted_s": job.submitted_s,
                    "started_s": job.started_s,
                    "ended_s": job.ended_s,
                    "wait_s": job.wait_s,
                    "jct_s": job.jct_s,
                    "attempts": job.attempts,
                    "preemptions": job.preemptions,
                    "finish_time_ratio": job.finish_time_ratio,
                    "met_deadline": job.met_deadline,
                    "held_device_s": _device_s(job.held_milli_us),
                    "hold": None if job.hold is None else asdict(job.hold),
                }
                for job in self.jobs
            ],
            "waterfall": self.waterfall.to_dict(),
        }


def report(result: SimResult, teams: Teams | None = None) -> Report:
    """Return the figures of a finished simulation; with ``teams``, also what these had of what they are entitled to."""
    state = result.state
    deadlines, is_met = deadlines_of(state.jobs.values(), result.jobs, state.at_s)
    fleet_milli = MILLI * sum(known.node.devices for known in state.nodes.values())
    ratios = finish_time_ratios(list(state.jobs.values()), result.jobs, fleet_milli)
    jobs = tuple(
        _job(record, state.at_s, ratios.get(job_id), result.reasons.get(job_id), is_met.get(job_id))
        for job_id, record in state.jobs.items()
    )
    allocation, allocated_milli_us = _allocation(state)
    start_s = min((job.submitted_s for job in jobs), default=0.0)
    end_s = allocation[-1].at_s if allocation else start_s
    return Report(
        jobs=jobs,
        makespan_s=end_s - start_s if allocation else None,
        wait=summary_of(job.wait_s for job in jobs),
        jct=summary_of(job.jct_s for job in jobs if job.state is JobState.SUCCEEDED),
        owned_milli_us=_owned_milli_us(state, start_s, end_s),
        allocated_milli_us=allocated_milli_us,
        allocation=allocation,
        waterfall=_with_productive(
            accounting.waterfall(state, {}, start_s=start_s, end_s=end_s, ceilings={}, is_simulated=True),
            result.ran,
        ),
        deadlines=deadlines,
        teams=None if teams is None or not teams.teams else team_figures(state, teams),
        cycles=result.cycles,
        noticed=result.noticed,
        notice=result.notice,
    )


def _with_productive(waterfall: Waterfall, ran: Sequence[Ran]) -> Waterfall:
    """Return the waterfall with what the simulated attempts lost to starting up and to work done again.

    Nothing simulated reports its steps, so the kernel's accounting does not know; the engine does.
    """
    healthy, allocated, _, model_flops = waterfall.stages
    assert allocated.left_us is not None
    lost = dict.fromkeys((Loss.START_UP, Loss.RECOVERY, Loss.LOST_WORK), 0)
    for entry in ran:
        lost[Loss.START_UP if entry.epoch == 1 else Loss.RECOVERY] += entry.milli * to_us(entry.start_up_s)
        lost[Loss.LOST_WORK] += entry.milli * to_us(entry.lost_s)
    lost_us = {str(cause): milli_us // MILLI for cause, milli_us in lost.items() if milli_us}
    excess_us = sum(lost_us.values()) - allocated.left_us
    if excess_us > 0:  # each was rounded to whole microseconds by itself
        lost_us[max(lost_us, key=lost_us.__getitem__)] -= excess_us
    left_us = allocated.left_us - sum(lost_us.values())
    productive = StageResult(stage=Stage.PRODUCTIVE, left_us=left_us, lost_us=lost_us)
    return replace(
        waterfall,
        stages=(healthy, allocated, productive, model_flops),
        notes=("simulated: start-ups and lost work are those that the jobs were told to have",),
    )


def _groups(jobs: Iterable[JobResult], name_of: Callable[[JobResult], str | None]) -> dict[str, Group]:
    named: dict[str, list[JobResult]] = {}
    for job in jobs:
        if (name := name_of(job)) is not None:
            named.setdefault(name, []).append(job)
    return {
        name: Group(
            jobs=len(some),
            jct=summary_of(job.jct_s for job in some if job.state is JobState.SUCCEEDED),
            wait=summary_of(job.wait_s for job in some),
            held_milli_us=sum(job.held_milli_us for job in some),
            preemptions=sum(job.preemptions for job in some),
            finish_time_ratio=Spread.of(job.finish_time_ratio for job in some),
            met=sum(job.met_deadline is True for job in some),
            missed=sum(job.met_deadline is False for job in some),
        )
        for name, some in sorted(named.items())
    }


def _group_dict(group: Group) -> dict[str, Any]:
    return {
        "jobs": group.jobs,
        "jct": _dict(group.jct),
        "wait": _dict(group.wait),
        "held_device_s": _device_s(group.held_milli_us),
        "preemptions": group.preemptions,
        "finish_time_ratio": _dict(group.finish_time_ratio),
        "met_deadlines": group.met,
        "missed_deadlines": group.missed,
    }


def _dict(summary: Summary | Spread | None) -> dict[str, Any] | None:
    return None if summary is None else asdict(summary)


def _job(
    record: JobRecord, at_s: float, ratio: float | None, hold: Reason | None, is_met: bool | None
) -> JobResult:
    last = record.attempts[-1] if record.attempts else None
    return JobResult(
        job_id=record.job.id,
        team=record.job.team,
        accelerator=None if last is None else last.accelerator,
        milli=None if last is None else sum(len(s.devices) * s.milli for s in last.placement.shares),
        state=record.state,
        submitted_s=record.submitted_s,
        started_s=record.attempts[0].decided_s if record.attempts else None,
        ended_s=record.ended_s,
        attempts=len(record.attempts),
        preemptions=sum(attempt.stop_cause is Cause.PREEMPTED for attempt in record.attempts),
        finish_time_ratio=ratio,
        held_milli_us=sum(
            milli * (to_us(end_s) - to_us(start_s)) for start_s, end_s, milli in _holdings(record, at_s)
        ),
        hold=hold,
        met_deadline=is_met,
    )


def _holdings(record: JobRecord, at_s: float) -> Sequence[tuple[float, float, int]]:
    """Return from when to when each attempt held how many thousandths of devices.

    One that still runs, where the simulation was cut off, did so until then: ``at_s``.
    """
    holdings = []
    for attempt in record.attempts:
        milli = attempt.placement.milli
        holdings.append((attempt.decided_s, at_s if attempt.ended_s is None else attempt.ended_s, milli))
    return holdings


def _allocation(state: State) -> tuple[tuple[Level, ...], int]:
    """Return what is allocated from when on, and its integral in thousandths times microseconds."""
    changes: dict[float, int] = {}
    for record in state.jobs.values():
        for start_s, end_s, milli in _holdings(record, state.at_s):
            changes[start_s] = changes.get(start_s, 0) + milli
            changes[end_s] = changes.get(end_s, 0) - milli
    levels: list[Level] = []
    total = allocated = 0
    for at_s in sorted(changes):
        if levels:
            total += allocated * (to_us(at_s) - to_us(levels[-1].at_s))
        allocated += changes[at_s]
        levels.append(Level(at_s=at_s, milli=allocated))
    return tuple(levels), total


def _owned_milli_us(state: State, start_s: float, end_s: float) -> int:
    start, end = to_us(start_s), to_us(end_s)
    return sum(
        known.node.devices * MILLI * max(0, end - max(start, to_us(known.joined_s)))
        for known in state.nodes.values()
    )


def _device_s(milli_us: int) -> float:
    return milli_us / (MILLI * US)
