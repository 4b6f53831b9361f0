"""Scheduling over several models of device, in Gavel's setting: 36 V100, 36 P100, 36 K80, its stream of jobs.

    python benchmarks/gavel.py [--jobs F] [--throughputs F] [--policies A,B] [--ids 100-199] [--learn]
                               [--elastic N] [--faster X] [-o json] [--quick]

One device per job, rounds of 360 s, no cost for moving. The figure is the mean time from submission to
end of the jobs with these ids, while others go on to arrive until the last of them has ended. The peer is
what Gavel's own simulator gives on the same stream. Its margin is what knowing the throughputs gains for
least attained service, and the bar for ours. The floor is what the jobs would take if each had its fastest
device from its submission on: no policy can be below it. With ``--learn`` the policies are told no throughputs:
they learn them from what jobs report every minute.

With ``--elastic N`` every job may have 1 to N devices, of which 95 % of its work makes use (Amdahl), on nodes of
four; and to stop costs something: jobs save every ten minutes and take a minute to start. ``--faster X`` has them
arrive X times as fast. Neither is Gavel's setting, and nothing there is a peer. ``--quick`` has the first 60 jobs only.

The trace is traces/gavel in the folder ARTESIAN_DATA, or in ../shared/data beside the repository.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

import harness
from artesian.model.capacity import Capacity
from artesian.model.queue import WaitingJob, WaitingQueue
from artesian.model.resources import MILLI
from artesian.model.snapshot import Snapshot
from artesian.policy.base import Policy
from artesian.policy.registry import RANKINGS, in_rounds, policy
from artesian.policy.throughput import Throughputs, problem
from artesian.sim import SimJob, simulate
from artesian.sim.traces import gavel
from harness import Result

STREAM = "jobs_seed0_4_per_hour.csv"
IDS = "100-199"

PEERS_S = {
    "fifo": ("FIFO", 58_210.0),
    "max-min-agnostic": ("LAS", 75_148.0),
    "max-min": ("heterogeneity-aware LAS", 50_564.0),
    "allox": ("AlloX", 50_290.0),
    "min-jct": ("AlloX", 50_290.0),
}
"""What Gavel's simulator gives for job ids 100-199 of the stream, in seconds."""

BARS_S = {"min-jct": 50_290.0, "max-min": 50_564.0}

PARALLEL_SHARE = 0.95
QUICK_JOBS = 60
DECISIONS = 5


def policies(names: Sequence[str], rates: gavel.Throughputs | None, most: int = 1) -> dict[str, Policy]:
    """Return new policies by name, those in rounds with the measured throughputs, if they are to know them.

    An elastic job, of up to ``most`` devices, is known by what it does on one and by its curve.
    """
    if rates is None:
        return {name: policy(name) for name in names}
    table = {
        (model, accelerator, float(gang)): rate
        for (accelerator, is_consolidated, (model, gang)), rate in rates.alone.items()
        if is_consolidated and (most == 1 or gang == 1)
    }
    known = Throughputs(table)
    return {name: in_rounds(name, known) if name in RANKINGS else policy(name) for name in names}


def elastic(entry: SimJob, most: int, faster: float) -> SimJob:
    """Return the job as one that may have up to ``most`` devices, and that loses something where it stops."""
    submit_s = entry.submit_s / faster
    if most == 1:
        return replace(entry, submit_s=submit_s)
    devices = tuple(replace(request, max_milli=most * MILLI) for request in entry.job.devices)
    job = replace(entry.job, devices=devices, parallel_share=PARALLEL_SHARE)
    gain = job.speedup(most)
    return replace(
        entry,
        job=job,
        submit_s=submit_s,
        duration_s=entry.duration_s / gain,
        steps_per_s={name: gain * rate for name, rate in entry.steps_per_s.items()},
        checkpoint_every_s=600.0,
        start_up_s=60.0,
    )


def simulated(
    jobs: Sequence[SimJob],
    one: Policy,
    ids: Sequence[str],
    *,
    reports_every_s: float | None = None,
    devices_per_node: int = 1,
) -> tuple[float, int, float]:
    """Return the mean completion time of ``ids`` in seconds, all attempts started, and how long it took."""
    begun_s = time.perf_counter()
    # One device per node, as in Gavel's simulations, unless jobs have several.
    fleet = gavel.fleet(devices_per_node=devices_per_node)
    state = simulate(fleet, jobs, one, until=ids, reports_every_s=reports_every_s).state
    taken_s = time.perf_counter() - begun_s
    times_s = []
    for id in ids:
        record = state.jobs[id]
        assert record.ended_s is not None, id
        times_s.append(record.ended_s - record.submitted_s)
    return statistics.fmean(times_s), sum(len(record.attempts) for record in state.jobs.values()), taken_s


def floor_s(jobs: Sequence[SimJob], ids: Sequence[str]) -> float:
    """Return the mean of what the jobs take at the least, each on its fastest device all the time."""
    wanted = set(ids)
    return statistics.fmean(
        entry.work / max(entry.steps_per_s.values()) for entry in jobs if entry.job.id in wanted
    )


def decisions(jobs: Sequence[SimJob], name: str, rates: gavel.Throughputs) -> Result:
    """Measure one decision about that many waiting jobs on the fleet, in milliseconds."""
    snapshot = Snapshot(
        at_s=jobs[-1].submit_s,
        waiting=WaitingQueue(
            WaitingJob(job=e.job, submitted_s=e.submit_s, next_epoch=1, waits_since_s=e.submit_s)
            for e in jobs
        ),
        running={},
        capacity=Capacity(gavel.fleet(devices_per_node=1).nodes),
    )
    times_ms = []
    for _ in range(DECISIONS):
        [one] = policies([name], rates).values()  # a new one: it has nothing remembered
        begun_s = time.perf_counter()
        one.plan(snapshot)
        times_ms.append(1e3 * (time.perf_counter() - begun_s))
    assert len(problem(snapshot, Throughputs())[0].jobs) == len(jobs)
    return harness.measured(f"{name}, one decision about {len(jobs)} jobs", times_ms, "ms", "lower")


def run(
    is_quick: bool,
    stream: Path,
    throughputs: Path,
    names: Sequence[str],
    ids: str,
    *,
    is_learned: bool = False,
    most: int = 1,
    faster: float = 1.0,
) -> list[Result]:
    """Simulate each policy, and time its decisions."""
    rates = gavel.read_throughputs(throughputs)
    # Nothing is lost where a job stops: it goes on from there.
    jobs = [replace(entry, checkpoint_every_s=0.0) for entry in gavel.read(stream, throughputs=rates).jobs]
    jobs = [elastic(entry, most, faster) for entry in jobs]
    first, _, last = ids.partition("-")
    measured = [f"job-{number}" for number in range(int(first), int(last or first) + 1)]
    if is_quick:
        jobs = jobs[:QUICK_JOBS]
        measured = [entry.job.id for entry in jobs]
    is_gavels = most == 1 and faster == 1.0 and not is_quick and stream.name == STREAM and ids == IDS
    means_s: dict[str, float] = {}
    results = []
    learned = ", throughputs learned" if is_learned else ""
    for name, one in policies(names, None if is_learned else rates, most).items():
        means_s[name], attempts, taken_s = simulated(
            jobs,
            one,
            measured,
            reports_every_s=60.0 if is_learned else None,
            devices_per_node=1 if most == 1 else 4,
        )
        harness.say(f"{name}: {means_s[name]:,.0f} s, {attempts:,} attempts, simulated in {taken_s:.1f} s")
        peer, peer_s = PEERS_S.get(name, (None, None)) if is_gavels else (None, None)
        results.append(
            Result(
                case=f"{name}{learned}, mean completion time",
                value=means_s[name],
                unit="s",
                better="lower",
                bar=BARS_S.get(name) if is_gavels else None,
                peer=None if peer is None else f"{peer}, Gavel's simulator",
                peer_value=peer_s,
            )
        )
    results.append(
        Result(case="floor of any policy", value=floor_s(jobs, measured), unit="s", better="lower")
    )
    if {"max-min", "max-min-agnostic"} <= means_s.keys():
        margin = PEERS_S["max-min"][1] / PEERS_S["max-min-agnostic"][1]
        results.append(
            Result(
                case="max-min / max-min-agnostic",
                value=means_s["max-min"] / means_s["max-min-agnostic"],
                unit="",
                better="lower",
                bar=margin if is_gavels else None,
                peer="Gavel's simulator" if is_gavels else None,
                peer_value=margin if is_gavels else None,
            )
        )
    sizes = [len(jobs)] if is_quick else [100, 1000]
    results += [decisions(jobs[:size], name, rates) for name in names if name in RANKINGS for size in sizes]
    return results


def main() -> None:
    """Read the arguments that only this benchmark has, and leave the others to the harness."""
    root = Path(__file__).resolve().parent.parent
    data = Path(os.environ.get("ARTESIAN_DATA") or root.parent / "shared" / "data") / "traces" / "gavel"
    known = ["fifo", *RANKINGS]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--jobs", type=Path, default=data / STREAM)
    parser.add_argument("--throughputs", type=Path, default=data / "throughputs.json")
    parser.add_argument("--policies", type=lambda text: text.split(","), default=known)
    parser.add_argument("--ids", default=IDS)
    parser.add_argument("--learn", action="store_true")
    parser.add_argument("--elastic", type=int, default=1)
    parser.add_argument("--faster", type=float, default=1.0)
    own, rest = parser.parse_known_args()
    unknown = [name for name in own.policies if name not in known]
    if unknown:
        parser.error(f"no such policy: {unknown[0]!r}; there are: {', '.join(known)}")
    if own.elastic < 1 or own.faster <= 0:
        parser.error("expected --elastic of at least 1, and --faster of more than 0")
    sys.argv[1:] = rest
    harness.main(
        "gavel",
        lambda is_quick: run(
            is_quick,
            own.jobs,
            own.throughputs,
            own.policies,
            own.ids,
            is_learned=own.learn,
            most=own.elastic,
            faster=own.faster,
        ),
    )


if __name__ == "__main__":
    main()
