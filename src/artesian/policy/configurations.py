"""How many devices of which model each gang is to have: the choice that makes the most goodput of the fleet.

After Sia (Jayaram Subramanya et al., SOSP 2023): every gang has a list of configurations, a model of device
and a number of them; each is worth something to it, and of each gang at most one is chosen, so that the sum of
what they are worth is greatest. Decision 0015 says what is Sia's in it and what is ours.
"""

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

import numpy as np

from artesian.model.queue import shape_of
from artesian.model.speeds import family_of
from artesian.policy.solver import FloatArray, IntArray, LinearProgram
from artesian.policy.throughput import Problem

_WHOLE = 1.0 - 1e-6
_ROUND_S = 360.0


@dataclass(frozen=True, slots=True)
class _Options:
    """All configurations of all jobs, as columns [C]: of which job, on which kind, how many devices, and how
    many times as fast the gang is as in its slowest one."""

    job: IntArray
    kind: IntArray
    count: FloatArray
    speed: FloatArray


@dataclass(slots=True)
class Configurations:
    """Choose a model of device and a number of devices for each gang, for the greatest sum of their worth.

    The worth of a configuration is ``bonus - (speed * devices at least) ** power``, where speed is in units of the
    slowest configuration: it grows with speed, and ever less, so that who has little is given more before who has
    much. The larger ``bonus`` is, the more gangs run at all, and the fewer devices they have.

    To go on in another way is worth less to a gang that runs: its speed counts (age - attempts * cost) / (age + cost)
    times, where ``restart_s`` and the work since its last checkpoint are the cost. So who is young, or was moved
    often, or has long not saved, stays.

    The worth counts for ``patience`` as much the longer a job has not run: what has waited for its whole life goes
    before what has always run, at last. So nothing starves.
    """

    power: float = -0.5
    bonus: float = 1.1
    restart_s: float = 60.0
    patience: float = 0.5
    name: str = "goodput of the fleet"
    _last: tuple[Problem, tuple[FloatArray, FloatArray]] | None = field(
        default=None, repr=False, compare=False
    )

    def priorities(self, problem: Problem) -> FloatArray:
        """Return what the chosen configuration of each job is worth [J, K]; 0: another one, or none."""
        return self._decide(problem)[0]

    def sizes(self, problem: Problem) -> FloatArray:
        """Return how many devices each gang is to have of the kind that was chosen for it [J, K]; 0: not said."""
        return self._decide(problem)[1]

    def _decide(self, problem: Problem) -> tuple[FloatArray, FloatArray]:
        if self._last is None or self._last[0] is not problem:
            self._last = (problem, self._choose(problem))
        return self._last[1]

    def _choose(self, problem: Problem) -> tuple[FloatArray, FloatArray]:
        options = _options(problem)
        worth = self._worth(problem, options)
        priorities, sizes = np.zeros_like(problem.rate), np.zeros_like(problem.rate)
        for column in _chosen(problem, options, worth):
            place = options.job[column], options.kind[column]
            priorities[place], sizes[place] = worth[column], options.count[column]
        return priorities, sizes

    def _worth(self, problem: Problem, options: _Options) -> FloatArray:
        """Return what each configuration is worth [C], above 0."""
        job = options.job
        cost_s = problem.lost_s[job] + self.restart_s
        age_s = problem.age_s[job]
        stays = (problem.on[job] < 0) | (
            (problem.on[job] == options.kind) & (problem.has[job] == options.count)
        )
        factor = np.where(
            stays, 1.0, np.clip((age_s - problem.begun[job] * cost_s) / (age_s + cost_s), 0.0, 1.0)
        )
        least = np.where(problem.can_run, problem.least, np.inf).min(1)[job]
        speed = np.maximum(options.speed * np.maximum(least, 1.0) * factor, 1e-9)
        worth = np.maximum(self.bonus - speed**self.power, 1e-6)
        ran_s = problem.held_s.sum(1)[job]
        waited = (age_s + _ROUND_S) / (np.minimum(ran_s, age_s) + _ROUND_S)
        found: FloatArray = worth * problem.weight[job] * waited**self.patience
        return found


def _options(problem: Problem) -> _Options:
    alike: dict[Hashable, list[tuple[int, float, float]]] = {}
    rows: list[tuple[int, int, float, float]] = []
    for number, job in enumerate(problem.jobs):
        # Of thousands of jobs most are like others; one that runs may have a number of devices of its own.
        family = family_of(job) if len(problem.known.measured) else job.profile
        at = (int(problem.on[number]), float(problem.has[number]))
        key = (shape_of(job), job.parallel_share, family, at, job.team if problem.limits else None)
        if key not in alike:
            alike[key] = _of_one(problem, number)
        rows += [(number, *option) for option in alike[key]]
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 4)
    return _Options(
        job=table[:, 0].astype(np.int64),
        kind=table[:, 1].astype(np.int64),
        count=table[:, 2],
        speed=table[:, 3],
    )


def _of_one(problem: Problem, number: int) -> list[tuple[int, float, float]]:
    """Return kind, number of devices and relative speed of each configuration of a job."""
    found = [
        (kind, count, _rate(problem, number, kind, count))
        for kind in np.flatnonzero(problem.can_run[number]).tolist()
        for count in _counts(problem, number, kind)
    ]
    slowest = min((rate for _, _, rate in found if rate > 0), default=1.0)
    return [(kind, count, rate / slowest) for kind, count, rate in found if rate > 0]


def _counts(problem: Problem, number: int, kind: int) -> list[float]:
    """Return the numbers of devices that are looked at: the least and the most, doublings, parts and multiples of a
    node; and the number that it has."""
    least, most = float(problem.least[number, kind]), float(problem.devices[number, kind])
    if least < 1 or most <= least:
        return [most]
    node = float(problem.node_devices[kind])
    counts = {least, most, *_doublings(least, most), *_doublings(1.0, node), *_doublings(node, most)}
    if problem.on[number] == kind:
        counts.add(float(problem.has[number]))
    return sorted(count for count in counts if least <= count <= most)


def _doublings(first: float, last: float) -> Iterator[float]:
    while first <= last:
        yield first
        first *= 2


def _rate(problem: Problem, number: int, kind: int, count: float) -> float:
    """Return how fast the gang is; by its curve alone where its speeds are not known."""
    job, most = problem.jobs[number], float(problem.devices[number, kind])
    if problem.is_known[number] and count != most:
        known = problem.known.steps_per_s(job, problem.kinds[kind], count)
        if known is not None:
            return known
    if count == most:
        return float(problem.rate[number, kind]) * (
            1.0 if problem.is_known[number] else job.speedup(int(most))
        )
    scale = job.speedup(int(count))
    if problem.is_known[number]:
        scale /= job.speedup(int(most))
    return float(problem.rate[number, kind]) * scale


def _chosen(problem: Problem, options: _Options, worth: FloatArray) -> list[int]:
    """Return the columns that are chosen: one for a job at most, and no more devices than there are.

    A linear program splits no more jobs between configurations than there are kinds of device; these are made
    whole, the greatest worth first, with what the others leave.
    """
    jobs, kinds = problem.rate.shape
    columns = np.arange(len(worth))
    limit_row, limited, value, most = problem.limited(options.job, options.kind, options.count)
    program = LinearProgram(
        gain=worth,
        upper=np.ones(len(worth)),
        row_lower=np.full(jobs + kinds + len(most), -np.inf),
        row_upper=np.concatenate([np.ones(jobs), problem.capacity, most]),
        row=np.concatenate([options.job, jobs + options.kind, jobs + kinds + limit_row]),
        column=np.concatenate([columns, columns, limited]),
        value=np.concatenate([np.ones(len(worth)), options.count, value]),
    )
    parts = program.solve()
    whole = np.flatnonzero(parts >= _WHOLE)
    left = problem.capacity - np.bincount(options.kind[whole], options.count[whole], minlength=kinds)
    chosen, taken = whole.tolist(), set(options.job[whole].tolist())
    for column in sorted(columns.tolist(), key=lambda column: (-worth[column], column)):
        job, kind, count = int(options.job[column]), int(options.kind[column]), float(options.count[column])
        if job not in taken and count <= left[kind] + 1e-9 and not math.isclose(worth[column], 0.0):
            chosen.append(column)
            taken.add(job)
            left[kind] -= count
    return chosen
