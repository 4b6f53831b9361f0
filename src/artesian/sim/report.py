"""What a simulation came to: per job, over all jobs, over time, and as a waterfall."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from artesian.kernel import accounting
from artesian.kernel.lifecycle import JobRecord, JobState
from artesian.kernel.state import State
from artesian.model.ledger import US, Waterfall, to_us
from artesian.model.plan import Reason
from artesian.model.resources import MILLI
from artesian.sim.run import SimResult


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What became of a job.

    ``wait_s`` runs from the submission to the first decision to start, ``jct_s`` (the job's completion
    time) to its end; None where it did not come to that. ``held_milli_us`` is what its attempts held, in
    thousandths of a device times microseconds. ``hold`` is why it still waits.
    """

    job_id: str
    state: JobState
    submitted_s: float
    started_s: float | None
    ended_s: float | None
    attempts: int
    held_milli_us: int
    hold: Reason | None

    @property
    def wait_s(self) -> float | None:
        """Seconds from the submission to the first start."""
        return None if self.started_s is None else self.started_s - self.submitted_s

    @property
    def jct_s(self) -> float | None:
        """Seconds from the submission to the end."""
        return None if self.ended_s is None else self.ended_s - self.submitted_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Figures over ``count`` values; ``p99_s`` is by nearest rank, so it is one of them."""

    count: int
    mean_s: float
    median_s: float
    p99_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """From ``at_s`` on, ``milli`` thousandths of devices are allocated in all."""

    at_s: float
    milli: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Figures of a simulation.

    ``makespan_s`` runs from the first submission to the last end of an attempt. ``wait`` is over the jobs
    that started, ``jct`` over those that succeeded; None where there are none. ``owned_milli_us`` is what
    the fleet's nodes had over the makespan, lost ones included; ``allocation`` is what was held of it.
    """

    jobs: tuple[JobResult, ...]
    makespan_s: float | None
    wait: Summary | None
    jct: Summary | None
    owned_milli_us: int
    allocated_milli_us: int
    allocation: tuple[Level, ...]
    waterfall: Waterfall

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
            "wait": None if self.wait is None else asdict(self.wait),
            "jct": None if self.jct is None else asdict(self.jct),
            "owned_device_s": _device_s(self.owned_milli_us),
            "allocated_device_s": _device_s(self.allocated_milli_us),
            "allocated_share": self.allocated_share,
            "allocation": [{"at_s": level.at_s, "devices": level.milli / MILLI} for level in self.allocation],
            "jobs": [
                {
                    "job_id": job.job_id,
                    "state": job.state.value,
                    "submitted_s": job.submitted_s,
                    "started_s": job.started_s,
                    "ended_s": job.ended_s,
                    "wait_s": job.wait_s,
                    "jct_s": job.jct_s,
                    "attempts": job.attempts,
                    "held_device_s": _device_s(job.held_milli_us),
                    "hold": None if job.hold is None else asdict(job.hold),
                }
                for job in self.jobs
            ],
            "waterfall": self.waterfall.to_dict(),
        }


def report(result: SimResult) -> Report:
    """Return the figures of a finished simulation."""
    state = result.state
    jobs = tuple(
        _job(record, state.at_s, result.reasons.get(job_id)) for job_id, record in state.jobs.items()
    )
    allocation, allocated_milli_us = _allocation(state)
    start_s = min((job.submitted_s for job in jobs), default=0.0)
    end_s = allocation[-1].at_s if allocation else start_s
    return Report(
        jobs=jobs,
        makespan_s=end_s - start_s if allocation else None,
        wait=_summary(job.wait_s for job in jobs),
        jct=_summary(job.jct_s for job in jobs if job.state is JobState.SUCCEEDED),
        owned_milli_us=_owned_milli_us(state, start_s, end_s),
        allocated_milli_us=allocated_milli_us,
        allocation=allocation,
        waterfall=accounting.waterfall(
            state, {}, start_s=start_s, end_s=end_s, ceilings={}, is_simulated=True
        ),
    )


def _job(record: JobRecord, at_s: float, hold: Reason | None) -> JobResult:
    return JobResult(
        job_id=record.job.id,
        state=record.state,
        submitted_s=record.submitted_s,
        started_s=record.attempts[0].decided_s if record.attempts else None,
        ended_s=record.ended_s,
        attempts=len(record.attempts),
        held_milli_us=sum(
            milli * (to_us(end_s) - to_us(start_s)) for start_s, end_s, milli in _holdings(record, at_s)
        ),
        hold=hold,
    )


def _holdings(record: JobRecord, at_s: float) -> Sequence[tuple[float, float, int]]:
    """Return from when to when each attempt held how many thousandths of devices.

    One that still runs, where the simulation was cut off, did so until then: ``at_s``.
    """
    holdings = []
    for attempt in record.attempts:
        milli = sum(len(share.devices) * share.milli for share in attempt.placement.shares)
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


def _summary(values: Iterable[float | None]) -> Summary | None:
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return Summary(
        count=len(known),
        mean_s=statistics.fmean(known),
        median_s=statistics.median(known),
        p99_s=known[math.ceil(0.99 * len(known)) - 1],
    )


def _device_s(milli_us: int) -> float:
    return milli_us / (MILLI * US)
