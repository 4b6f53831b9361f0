"""One live scheduling cycle on a large fleet: how long does the brain think between two events?

    python benchmarks/cycle.py [--nodes 10000] [--waiting 10000] [--policies A,B] [-o json] [--quick]

A full fleet of nodes with 8 devices, jobs shaped like Philly's waiting behind those that run. In every cycle
one job ends and one is submitted, and ``kernel.Scheduler.step`` decides, as it does live. ``--quick`` has a
tenth of the nodes and jobs.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import harness
from artesian.kernel.scheduler import Scheduler
from artesian.model.events import AttemptEnded, AttemptStarted, Event, JobSubmitted, NodeJoined
from artesian.model.job import Cause, Outcome
from artesian.policy import registry
from artesian.sim.traces import with_estimates
from artesian.sim.traces.synthetic import philly_like
from harness import Result

CYCLES = 200
BAR_MS = 100.0
DEVICES_PER_NODE = 8


def cycles_ms(name: str, nodes: int, waiting: int) -> list[float]:
    """Return how long each of the cycles took, in milliseconds."""
    devices = nodes * DEVICES_PER_NODE
    # As many jobs as fill the fleet, wait, and come while we look.
    jobs = nodes * DEVICES_PER_NODE + waiting + CYCLES
    trace = with_estimates(philly_like(1, jobs, 0.9, devices), error=0.5, seed=1)
    assert trace.fleet is not None
    scheduler = Scheduler(registry.policy(name))
    coming = iter(trace.jobs)
    scheduler.step([NodeJoined(at_s=0.0, node=node) for node in trace.fleet.nodes])
    running: list[tuple[str, int]] = []

    def step(at_s: float, events: Sequence[Event]) -> float:
        begun_s = time.perf_counter()
        plan = scheduler.step(events)
        taken_ms = 1e3 * (time.perf_counter() - begun_s)
        started = [AttemptStarted(at_s=at_s, job_id=s.job_id, epoch=s.epoch) for s in plan.starts]
        running.extend((start.job_id, start.epoch) for start in plan.starts)
        if started:
            scheduler.step(started)
        return taken_ms

    at_s = 1.0
    while len(scheduler.state.waiting) < waiting:
        batch = [JobSubmitted(at_s=at_s, job=next(coming).told) for _ in range(500)]
        step(at_s, batch)
        at_s += 1.0
    times = []
    for number in range(CYCLES):
        job_id, epoch = running.pop(number * 7919 % len(running))
        at_s += 1.0
        ended = AttemptEnded(
            at_s=at_s, job_id=job_id, epoch=epoch, outcome=Outcome(cause=Cause.COMPLETED, exit_code=0)
        )
        times.append(step(at_s, [ended, JobSubmitted(at_s=at_s, job=next(coming).told)]))
    return times


def run(is_quick: bool, nodes: int, waiting: int, names: Sequence[str]) -> list[Result]:
    """Measure each policy."""
    if is_quick:
        nodes, waiting = max(1, nodes // 10), max(1, waiting // 10)
    results = []
    for name in names:
        times = cycles_ms(name, nodes, waiting)
        case = f"{name}, {nodes:,} nodes, {waiting:,} waiting"
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
        type=lambda text: text.split(","),
        default=[registry.DEFAULT, "fifo", "easy", "fair-share"],
    )
    own, rest = parser.parse_known_args()
    for name in own.policies:
        registry.policy(name)
    sys.argv[1:] = rest
    names = list(dict.fromkeys(own.policies))
    harness.main("cycle", lambda is_quick: run(is_quick, own.nodes, own.waiting, names))


if __name__ == "__main__":
    main()
