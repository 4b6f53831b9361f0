"""Short ways to say what a simulation is about: ``run(a_fleet(2), a_sim_job("a", takes=10.0))``."""

from collections.abc import Sequence

from artesian.model.events import Event
from artesian.model.fleet import Fleet
from artesian.model.job import Cause, Outcome
from artesian.policy.base import Policy
from artesian.sim import (
    Failure,
    JobResult,
    SimJob,
    SimResult,
    report,
    simulate,
)
from builders import a_job, a_node, fifo

SIGNALLED = Outcome(cause=Cause.SIGNAL, signal=9)


def a_sim_job(
    id: str,
    devices: str = "cpu:1",
    *,
    at: float = 0.0,
    takes: float = 10.0,
    start_up_s: float = 0.0,
    fails: Sequence[tuple[float, Outcome]] = (),
    saves_every_s: float | None = None,
    **more: object,
) -> SimJob:
    return SimJob(
        job=a_job(id, devices=devices, **more),
        submit_s=at,
        duration_s=takes,
        start_up_s=start_up_s,
        checkpoint_every_s=saves_every_s,
        failures=tuple(Failure(after_s=after_s, outcome=outcome) for after_s, outcome in fails),
    )


def a_fleet(*devices: int) -> Fleet:
    return Fleet(nodes=tuple(a_node(f"n{number}", devices=count) for number, count in enumerate(devices, 1)))


def run(fleet: Fleet, *jobs: SimJob, events: Sequence[Event] = (), policy: Policy | None = None) -> SimResult:
    result = simulate(fleet, jobs, policy or fifo(), events=events)
    result.state.validate()
    return result


def times(result: SimResult) -> dict[str, tuple[float | None, float | None]]:
    """Return when each job first started and when it was over."""
    return {job.job_id: (job.started_s, job.ended_s) for job in report(result).jobs}


def job(result: SimResult, job_id: str) -> JobResult:
    return next(entry for entry in report(result).jobs if entry.job_id == job_id)
