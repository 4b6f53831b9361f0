"""Rounds on Gavel's own stream of jobs, in small: benchmarks/gavel.py has it in full."""

import statistics

from msgspec.structs import replace

from artesian.policy.base import Policy
from artesian.policy.registry import in_rounds
from artesian.policy.throughput import Throughputs
from artesian.sim import simulate
from artesian.sim.traces import gavel
from trace_files import real

JOBS = 24
FLEET = gavel.fleet(v100=8, p100=8, k80=8, devices_per_node=1)


def mean_s(policy: Policy) -> float:
    """The mean completion time of the first jobs, which move without a loss."""
    trace = gavel.read(real("gavel/jobs_seed0_4_per_hour.csv"))
    jobs = [replace(entry, checkpoint_every_s=0.0) for entry in trace.jobs[:JOBS]]
    state = simulate(FLEET, jobs, policy).state
    state.validate()
    times = []
    for record in state.jobs.values():
        assert record.ended_s is not None
        times.append(record.ended_s - record.submitted_s)
    return statistics.fmean(times)


def the_table() -> Throughputs:
    rates = gavel.read_throughputs(real("gavel/throughputs.json"))
    return Throughputs(
        {
            (model, accelerator, float(gang)): rate
            for (accelerator, is_consolidated, (model, gang)), rate in rates.alone.items()
            if is_consolidated
        }
    )


def test_who_knows_the_throughputs_ends_jobs_a_quarter_sooner_than_who_does_not() -> None:
    table = the_table()
    agnostic_s = mean_s(in_rounds("max-min-agnostic", table, round_s=3600.0))
    assert mean_s(in_rounds("max-min", table, round_s=3600.0)) < 0.75 * agnostic_s
    assert mean_s(in_rounds("min-jct", table, round_s=3600.0)) < 0.75 * agnostic_s
