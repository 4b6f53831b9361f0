"""Philly's jobs on fleets that they are a load of 70, 90 and 110% for: who waits, and for how long?

    python benchmarks/philly.py [--jobs F] [--loads 0.7,0.9,1.1] [--policies A,B] [--estimate-error 0.5]
                                [--seed 0] [-o json] [--quick]

All 82,247 jobs, with estimated durations that are off by a log-normal error. The bar for the default policy is
the mean completion time of ``srtf``, which goes by the same estimates and lets long jobs starve. Of gangs
that take more than one node (over 8 devices) the 99th percentile of the wait is reported. ``--quick`` has the
first 10,000 jobs, at one load.

The trace is traces/philly in the folder ARTESIAN_DATA, or in ../shared/data beside the repository.
"""

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from artesian.policy import registry
from artesian.sim import simulate
from artesian.sim.traces import ReadOptions, Trace, fleet_for_load, read_trace, with_estimates
from harness import Result

PEER = "srtf"
QUICK_JOBS = 10_000
NODE_DEVICES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Mean completion time, and the 99th percentile of the wait of large gangs, in seconds."""

    mean_s: float
    large_p99_s: float | None


def simulated(trace: Trace, name: str) -> Figures:
    """Return what the policy makes of the trace on its fleet."""
    assert trace.fleet is not None
    begun_s = time.perf_counter()
    state = simulate(trace.fleet, trace.jobs, registry.policy(name), keeps_records=False).state
    taken_s = time.perf_counter() - begun_s
    done_s, large_s = [], []
    for record in state.jobs.values():
        assert record.ended_s is not None, record.job.id
        done_s.append(record.ended_s - record.submitted_s)
        if record.job.devices[0].min_devices > NODE_DEVICES:
            large_s.append(record.attempts[0].decided_s - record.submitted_s)
    large_s.sort()
    harness.say(f"{name}: {statistics.fmean(done_s):,.0f} s, {len(done_s) / taken_s:,.0f} jobs/s")
    return Figures(
        mean_s=statistics.fmean(done_s),
        large_p99_s=large_s[math.ceil(0.99 * len(large_s)) - 1] if large_s else None,
    )


def run(
    is_quick: bool, jobs: Path, loads: Sequence[float], names: Sequence[str], error: float, seed: int
) -> list[Result]:
    """Simulate each policy at each load."""
    whole = read_trace(jobs, options=ReadOptions())
    if is_quick:
        whole, loads = whole.first(QUICK_JOBS), loads[:1]
    results = []
    for load in loads:
        fleet = fleet_for_load(whole.jobs, load)
        trace = with_estimates(whole.on(fleet), error=error, seed=seed)
        harness.say(f"load {load:.0%}: {fleet.devices} devices")
        found = {name: simulated(trace, name) for name in dict.fromkeys([PEER, *names])}
        peer_s = found[PEER].mean_s
        for name, figures in found.items():
            is_bound = name == registry.DEFAULT and not is_quick
            results.append(
                Result(
                    case=f"load {load:.0%}, {name}: mean completion time",
                    value=figures.mean_s,
                    unit="s",
                    better="lower",
                    bar=peer_s if is_bound else None,
                    peer=None if name == PEER else PEER,
                    peer_value=None if name == PEER else peer_s,
                )
            )
            results.append(
                Result(
                    case=f"load {load:.0%}, {name}: large gangs' wait, p99",
                    value=figures.large_p99_s,
                    unit="s",
                    better="lower",
                )
            )
    return results


def main() -> None:
    """Read the arguments that only this benchmark has, and leave the others to the harness."""
    root = Path(__file__).resolve().parent.parent
    data = Path(os.environ.get("ARTESIAN_DATA") or root.parent / "shared" / "data") / "traces" / "philly"
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--jobs", type=Path, default=data / "philly.csv")
    parser.add_argument(
        "--loads", type=lambda text: [float(part) for part in text.split(",")], default=[0.7, 0.9, 1.1]
    )
    parser.add_argument(
        "--policies", type=lambda text: text.split(","), default=[registry.DEFAULT, "fifo", "easy"]
    )
    parser.add_argument("--estimate-error", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    own, rest = parser.parse_known_args()
    for name in own.policies:
        registry.policy(name)
    sys.argv[1:] = rest
    harness.main(
        "philly",
        lambda is_quick: run(is_quick, own.jobs, own.loads, own.policies, own.estimate_error, own.seed),
    )


if __name__ == "__main__":
    main()
