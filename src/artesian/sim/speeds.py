"""The speeds that the jobs of a simulation were told with, as a policy may know them."""

from collections.abc import Iterable

from artesian.policy.throughput import Throughputs
from artesian.sim.jobs import SimJob


def throughputs_of(jobs: Iterable[SimJob]) -> Throughputs:
    """Return the steps per second of the jobs that have a profile, by profile, accelerator and gang size.

    Of several jobs with one profile and one size, the last one's speeds count: a profile means one speed.
    """
    table: dict[tuple[str, str, float], float] = {}
    for entry in jobs:
        profile = entry.job.profile
        if profile is None:
            continue
        for accelerator, steps_per_s in entry.steps_per_s.items():
            for request in entry.job.devices:
                if request.accelerator in (None, accelerator):
                    table[profile, accelerator, float(request.max_devices)] = steps_per_s
    return Throughputs(table)
