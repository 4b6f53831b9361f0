"""Finish-time fairness: how much later a job ended than on its own part of the fleet.

rho = completion time / (duration alone x mean contention), contention being what the jobs that are there ask
for over what the fleet has, at least 1, over the job's own time there (finish-time fairness: Themis, Mahajan
et al., NSDI 2020; with this estimate of the share: Shockwave, Zheng et al., NSDI 2023). 1 or less is fair.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from artesian.kernel.lifecycle import JobRecord, JobState
from artesian.model.resources import MILLI
from artesian.sim.jobs import SimJob


def finish_time_ratios(
    records: Sequence[JobRecord], jobs: Mapping[str, SimJob], fleet_milli: int
) -> dict[str, float]:
    """Return rho of each job that succeeded, by id; ``fleet_milli`` is what the fleet has, in thousandths.

    Left out are jobs that take no time, and those that hold no device.
    """
    timed = [record for record in records if record.attempts]
    if not timed or fleet_milli <= 0:
        return {}
    last_s = max(record.ended_s or record.submitted_s for record in timed)
    begin = np.array([record.submitted_s for record in timed])
    end = np.array([last_s if record.ended_s is None else record.ended_s for record in timed])
    asked = np.array([_asked_milli(record) for record in timed], dtype=np.float64)

    # What is asked for, as steps over time, and the integral of the contention up to each step.
    at_s = np.concatenate([begin, end])
    order = np.argsort(at_s, kind="stable")
    at_s = at_s[order]
    asked_for = np.cumsum(np.concatenate([asked, -asked])[order])
    contention = np.maximum(1.0, asked_for / fleet_milli)
    integral = np.concatenate([[0.0], np.cumsum(contention[:-1] * np.diff(at_s))])
    spent = np.interp(end, at_s, integral) - np.interp(begin, at_s, integral)

    ratios = {}
    for position, record in enumerate(timed):
        there_s = float(end[position] - begin[position])
        alone_s = jobs[record.job.id].duration_s
        if record.state is not JobState.SUCCEEDED or there_s <= 0 or asked[position] <= 0:
            continue
        fair_s = alone_s * float(spent[position]) / there_s
        if fair_s > 0:  # times of a job may be too short for the sums of all
            ratios[record.job.id] = there_s / fair_s
    return ratios


def _asked_milli(record: JobRecord) -> int:
    request = record.job.devices[0]
    if request.is_host_only:
        return 0
    return request.max_milli if request.is_fraction else request.max_devices * MILLI
