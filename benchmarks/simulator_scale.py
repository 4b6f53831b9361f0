"""How many jobs a second does the simulator get through, and how much memory does it take?

    python benchmarks/simulator_scale.py [--jobs F] [--policy NAME] [--load 0.9] [--million] [-o json] [--quick]

The first figure is Philly's list of jobs, all of it, on a fleet that it is a load of 0.9 for: reading aside,
from the first event to the last, in one process. With ``--million`` also a million made-up jobs on 100,000
devices (12,500 nodes), in a process of its own, whose largest memory is the second figure. ``--quick`` has
10,000 jobs of the list.

The trace is traces/philly in the folder ARTESIAN_DATA, or in ../shared/data beside the repository; without it
jobs are made up in its likeness.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import harness
from artesian.policy import registry
from artesian.sim import simulate
from artesian.sim.traces import ReadOptions, Trace, fleet_for_load, read_trace, with_estimates
from artesian.sim.traces.synthetic import philly_like
from harness import Result

BAR_PER_S, BAR_MILLION_S, BAR_GIB = 10_000.0, 180.0, 3.0
MILLION, MILLION_DEVICES = 1_000_000, 100_000
QUICK_JOBS = 10_000


def simulated_s(trace: Trace, policy: str) -> float:
    """Return how long the simulation took, in seconds."""
    assert trace.fleet is not None
    begun_s = time.perf_counter()
    result = simulate(trace.fleet, trace.jobs, registry.policy(policy), keeps_records=False)
    taken_s = time.perf_counter() - begun_s
    assert all(record.state.is_final for record in result.state.jobs.values())
    return taken_s


def million(policy: str) -> None:
    """Simulate the million, and print what it took: the child's part."""
    trace = with_estimates(philly_like(1, MILLION, 0.9, MILLION_DEVICES), error=0.5, seed=1)
    taken_s = simulated_s(trace, policy)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"taken_s": taken_s, "peak_bytes": peak_bytes}))


def run(is_quick: bool, jobs: Path, policy: str, load: float, is_million: bool) -> list[Result]:
    """Measure the list, and the million where it is asked for."""
    if jobs.exists():
        trace = read_trace(jobs, options=ReadOptions())
        trace = trace.first(QUICK_JOBS) if is_quick else trace
        fleet = fleet_for_load(trace.jobs, load)
        trace = trace.on(fleet)
    else:
        harness.say(f"{jobs} is not there: jobs are made up in its likeness")
        trace = philly_like(1, QUICK_JOBS if is_quick else 82_247, load, 448)
        assert trace.fleet is not None
        fleet = trace.fleet
    trace = with_estimates(trace, error=0.5, seed=1)
    taken_s = simulated_s(trace, policy)
    results = [
        Result(
            case=f"{len(trace.jobs):,} jobs on {fleet.devices:,} devices, {policy}",
            value=len(trace.jobs) / taken_s,
            unit="jobs/s",
            better="higher",
            bar=None if is_quick else BAR_PER_S,
        )
    ]
    if is_million:
        found: dict[str, Any] = json.loads(
            subprocess.run(
                [sys.executable, __file__, "--child", "--policy", policy],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
        )
        case = f"{MILLION:,} made-up jobs on {MILLION_DEVICES:,} devices, {policy}"
        results += [
            Result(case=case, value=found["taken_s"], unit="s", better="lower", bar=BAR_MILLION_S),
            Result(
                case=f"{case}: memory",
                value=found["peak_bytes"] / 2**30,
                unit="GiB",
                better="lower",
                bar=BAR_GIB,
            ),
        ]
    return results


def main() -> None:
    """Read the arguments that only this benchmark has, and leave the others to the harness."""
    root = Path(__file__).resolve().parent.parent
    data = Path(os.environ.get("ARTESIAN_DATA") or root.parent / "shared" / "data") / "traces" / "philly"
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--jobs", type=Path, default=data / "philly.csv")
    parser.add_argument("--policy", default=registry.DEFAULT)
    parser.add_argument("--load", type=float, default=0.9)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--child", action="store_true")
    own, rest = parser.parse_known_args()
    registry.policy(own.policy)
    if own.child:
        million(own.policy)
        return
    sys.argv[1:] = rest
    harness.main(
        "simulator_scale", lambda is_quick: run(is_quick, own.jobs, own.policy, own.load, own.million)
    )


if __name__ == "__main__":
    main()
