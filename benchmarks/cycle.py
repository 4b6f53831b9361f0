"""One live scheduling cycle on a large fleet: how long does the brain think between two events?

    python benchmarks/cycle.py [--nodes 10000] [--waiting 10000] [--policies A,B] [--stopping A,B] [-o json] [--quick]

A full fleet of nodes with 8 devices, jobs shaped like Philly's waiting behind those that run. In every cycle
one job ends and one is submitted, and ``kernel.Scheduler.step`` decides, as it does live. With the policies that stop
running jobs for others (``--stopping``) only those end that the cycle before has stopped, the job that is submitted
has a right to what others hold, and those cycles are counted that stop somebody. It is of a higher class of priority;
with ``fair-share`` it is of a team that holds nothing of the half of the fleet that it is guaranteed, while the
others, guaranteed equal parts of the other half, hold all; with ``least-attained`` it is any job, for it has had
nothing yet. ``--quick`` has a tenth of the nodes and jobs.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from msgspec.structs import replace

import harness
from artesian.kernel.scheduler import Scheduler
from artesian.model.events import AttemptEnded, AttemptStarted, Event, JobSubmitted, NodeJoined
from artesian.model.job import PRIORITY_CLASSES, Cause, Job, Outcome
from artesian.model.plan import Plan
from artesian.model.quota import ANY, Team, Teams
from artesian.policy import registry
from artesian.policy.base import Policy
from artesian.sim.traces import with_estimates
from artesian.sim.traces.synthetic import philly_like
from harness import Result

CYCLES = 200
BAR_MS = 100.0
DEVICES_PER_NODE = 8


STOPPING_CYCLES = 60
APART_S = 400.0
"""Time between the cycles that stop somebody: longer than an attempt is let run at least."""
OWNER = "owner"
"""The team that comes for what it is guaranteed."""


def cycles_ms(name: str, nodes: int, waiting: int, *, is_stopping: bool = False) -> list[float]:
    """Return how long each of the cycles took, in milliseconds; of those that stop somebody, where ``is_stopping``."""
    devices = nodes * DEVICES_PER_NODE
    # As many jobs as fill the fleet, wait, and come while we look.
    jobs = nodes * DEVICES_PER_NODE + waiting + CYCLES
    trace = with_estimates(philly_like(1, jobs, 0.9, devices), error=0.5, seed=1)
    assert trace.fleet is not None
    scheduler = Scheduler(_policy(name, devices, {job.told.team for job in trace.jobs}, is_stopping))
    coming = iter(trace.jobs)
    scheduler.step([NodeJoined(at_s=0.0, node=node) for node in trace.fleet.nodes])
    running: list[tuple[str, int]] = []
    leaving: set[tuple[str, int]] = set()

    def step(at_s: float, events: Sequence[Event]) -> tuple[float, Plan]:
        begun_s = time.perf_counter()
        first = plan = scheduler.step(events)
        taken_ms = 1e3 * (time.perf_counter() - begun_s)
        while True:
            leaving.update((stop.job_id, stop.epoch) for stop in plan.stops)
            running.extend((start.job_id, start.epoch) for start in plan.starts)
            if not plan.starts:
                return taken_ms, first
            plan = scheduler.step(
                [AttemptStarted(at_s=at_s, job_id=s.job_id, epoch=s.epoch) for s in plan.starts]
            )

    at_s = 1.0
    while len(scheduler.state.waiting) < waiting:
        batch = [JobSubmitted(at_s=at_s, job=next(coming).told) for _ in range(500)]
        step(at_s, batch)
        at_s += 1.0
    times = []
    for number in range(STOPPING_CYCLES if is_stopping else CYCLES):
        at_s += APART_S if is_stopping else 1.0
        job = next(coming).told
        # Those leave that an earlier cycle stopped: whichever policy it is.
        events: list[Event] = [_ended(at_s, *attempt, Cause.SIGNAL) for attempt in sorted(leaving)]
        running[:] = [attempt for attempt in running if attempt not in leaving]
        leaving.clear()
        if is_stopping:
            job = _with_right(name, job)
        else:
            job_id, epoch = running.pop(number * 7919 % len(running))
            events.append(_ended(at_s, job_id, epoch, Cause.COMPLETED))
        taken_ms, plan = step(at_s, [*events, JobSubmitted(at_s=at_s, job=job)])
        if not is_stopping or plan.stops:
            times.append(taken_ms)
    assert times, f"{name} stopped nobody"
    return times


def _policy(name: str, devices: int, borrowers: set[str], is_stopping: bool) -> Policy:
    """Return the policy; where it stops others by what teams are guaranteed, with such teams."""
    if not is_stopping or name not in registry.TEAM_POLICIES:
        return registry.policy(name)
    half = devices // 2
    parts = [Team(name=team, guaranteed=((ANY, half // len(borrowers)),)) for team in sorted(borrowers)]
    return registry.policy(name, Teams((Team(name=OWNER, guaranteed=((ANY, half),)), *parts)))


def _with_right(name: str, job: Job) -> Job:
    """Return the job as one that may have others stopped by the policy."""
    if name in registry.TEAM_POLICIES:
        return replace(job, team=OWNER)
    return job if name == "least-attained" else replace(job, priority=PRIORITY_CLASSES["high"])


def _ended(at_s: float, job_id: str, epoch: int, cause: Cause) -> AttemptEnded:
    return AttemptEnded(at_s=at_s, job_id=job_id, epoch=epoch, outcome=Outcome(cause=cause, exit_code=0))


def run(
    is_quick: bool, nodes: int, waiting: int, names: Sequence[str], stopping: Sequence[str]
) -> list[Result]:
    """Measure each policy."""
    if is_quick:
        nodes, waiting = max(1, nodes // 10), max(1, waiting // 10)
    results = []
    for name, is_stopping in [*((name, False) for name in names), *((name, True) for name in stopping)]:
        times = cycles_ms(name, nodes, waiting, is_stopping=is_stopping)
        case = f"{name}, {nodes:,} nodes, {waiting:,} waiting"
        if is_stopping:
            case += ", somebody is stopped"
        results.append(harness.measured(case, times, "ms", "lower", bar=None if is_quick else BAR_MS))
        harness.say(f"{case}: longest of {len(times)}: {max(times):.1f} ms")
    return results


def main() -> None:
    """Read the arguments that only this benchmark has, and leave the others to the harness."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument(
        "--policies",
        type=lambda text: text.split(",") if text else [],
        default=[registry.DEFAULT, "fifo", "easy", "fair-share", "least-attained"],
    )
    parser.add_argument(
        "--stopping",
        type=lambda text: text.split(",") if text else [],
        default=["priority", "fair-share", "least-attained"],
    )
    own, rest = parser.parse_known_args()
    for name in [*own.policies, *own.stopping]:
        registry.policy(name)
    sys.argv[1:] = rest
    names = list(dict.fromkeys(own.policies))
    harness.main("cycle", lambda is_quick: run(is_quick, own.nodes, own.waiting, names, own.stopping))


if __name__ == "__main__":
    main()
