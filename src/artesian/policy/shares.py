"""Objectives over shares of time: which part of its time each job should have on which model of device.

Gavel's linear programs (Narayanan et al., OSDI 2020): x [J, K] >= 0, a job's shares sum to at most 1, and
the devices that all shares take of a kind, to at most what there is of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from msgspec.structs import replace

from artesian.model.capacity import BoolArray
from artesian.policy.solver import FloatArray, IntArray, LinearProgram, SolverFailed
from artesian.policy.throughput import Problem

_SLACK = 1e-6
"""What part of a level is given up, for the next program to have room beyond the solver's own 1e-7."""
_CLOSE = 1e-3
"""How near to the least the greatest rho is brought, in parts of it."""
_MOST_STEPS = 64
"""How often at most the greatest rho is doubled until it is enough, and then halved: there are 64 doublings from 1 to
2e19, and ten halvings are enough."""


class Objective(Protocol):
    """Decides about shares of time. ``name`` says in a reason by what."""

    @property
    def name(self) -> str:
        """What it goes by."""
        ...

    @property
    def looks_at_progress(self) -> bool:
        """Whether the shares depend on ``done``, ``left`` or ``age_s``, which always change."""
        ...

    def shares(self, problem: Problem) -> FloatArray:
        """Return the shares [J, K]. There is at least one job. Raises SolverFailed where the solver comes to none."""
        ...


@dataclass(frozen=True, slots=True)
class MaxMin:
    """Max-min fairness, which is least attained service: the least share is as large as it can be.

    A share is the throughput in units of what the job had if its time was spread over all devices that
    suit it, times its devices, over its weight. When the least share cannot grow any more, the jobs that keep it
    down are left at it, and the next least is made as large as it can be, and so on for ``levels``; then the
    sum is. One level is Gavel's, and all that a mean completion time wants: in its setting, 12 levels cost 3 % of it,
    for they take from those that gain most to give to the second and the third least. Where ``is_aware`` is False, all kinds of device count alike, and a job's time is spread over
    them as evenly as the rest allows.
    """

    is_aware: bool = True
    levels: int = 1
    looks_at_progress: bool = False

    @property
    def name(self) -> str:
        """What it goes by."""
        return "fair share of throughput" if self.is_aware else "fair share of time"

    def shares(self, problem: Problem) -> FloatArray:
        """Return the shares [J, K]."""
        if not self.is_aware:
            problem = replace(problem, rate=problem.can_run.astype(np.float64))
        worth = problem.rate / problem.alone_rate()[:, None]
        worth = worth * np.maximum(problem.devices, 1.0) / problem.weight[:, None]
        program = _Shares(problem, worth)
        # Those whose teams may have no more would hold all others back: each limit has a level of its own.
        least = program.max_min(self.levels + len(problem.limits))
        return program.best_sum(least) if self.is_aware else program.most_even(least)


@dataclass(frozen=True, slots=True)
class Makespan:
    """Let the job that would end last end as early as it can, if the shares stayed; weights count for nothing."""

    name: str = "earliest end of the last job"
    looks_at_progress: bool = True

    def shares(self, problem: Problem) -> FloatArray:
        """Return the shares [J, K]."""
        program = _Shares(problem, problem.rate / problem.left[:, None])
        return program.best_sum(program.max_min(1))


@dataclass(frozen=True, slots=True)
class FinishTimeFairness:
    """Let nobody end much later than with an equal part of the fleet for itself (Themis, NSDI 2020).

    Makes the greatest rho as small as it can be: rho is when a job ends with these shares, over when it
    would have ended with 1/J of every kind from its submission on, were there as many jobs all the time.
    """

    name: str = "finish-time fairness"
    looks_at_progress: bool = True

    def shares(self, problem: Problem) -> FloatArray:
        """Return the shares [J, K]."""
        takes = _takes(problem)
        alone_rate = problem.alone_rate() * np.minimum(1.0, takes)
        alone_s = (problem.done + problem.left) / alone_rate / problem.weight
        # No job can end at once: at this rho and below, one would have to.
        low = float((problem.age_s / alone_s).max())
        if not math.isfinite(low):
            raise SolverFailed(f"a job would have ended at once on its own: the least rho is {low}")
        # Beside a large rho a step of 1 is none: a float has no room for it.
        step = max(1.0, _CLOSE * low)
        high = low + step
        program = _Shares(problem, problem.rate)
        reaches = program.reach()

        def need(rho: float) -> FloatArray:
            gain: FloatArray = problem.left / np.maximum(rho * alone_s - problem.age_s, 1e-9)
            return gain

        for _ in range(_MOST_STEPS):
            if reaches(need(high)):
                break
            step *= 2
            low, high = high, high + step
        else:
            raise SolverFailed(f"no rho up to {high:.3g} is one that all jobs can have")
        for _ in range(_MOST_STEPS):
            if high - low <= _CLOSE * high:
                break
            middle = (low + high) / 2
            low, high = (low, middle) if reaches(need(middle)) else (middle, high)
        return program.best_sum(need(high) * (1 - _SLACK))


def _takes(problem: Problem) -> FloatArray:
    """Return how often each job [J] would fit into its equal part of the fleet, or of what its teams may have."""
    devices = np.maximum(problem.devices.max(1), 1e-9)
    takes: FloatArray = problem.capacity.sum() / devices / len(problem.jobs)
    for limit in problem.limits:
        is_bound = limit.jobs & ~(problem.can_run & ~limit.kinds).any(1)
        part = limit.most / devices / np.count_nonzero(limit.jobs)
        takes = np.where(is_bound, np.minimum(takes, part), takes)
    return takes


class _Shares:
    """The program: a column per pair of job and kind that can be, and one for the level of the least.

    Rows: a job's shares [J], a kind's devices [K], then what a job gains, its ``worth`` times its shares,
    less its need times the level [J].

    The solver is exact to 1e-7 of whatever it is given. So each job's gain is told to it as a part of the ``most``
    [J] that the job could gain, and the level as a part of the least of these, the ``unit``.
    """

    def __init__(self, problem: Problem, worth: FloatArray) -> None:
        jobs, kinds = worth.shape
        self._pairs: BoolArray = problem.can_run
        self._job, self._kind = np.nonzero(self._pairs)
        self._capacity = problem.capacity
        self._spread = problem.spread()[self._pairs]
        self._worth = worth[self._pairs]
        self._devices = problem.devices[self._pairs]
        self._limited = problem.limited(self._job, self._kind, self._devices)
        self._counts = (jobs, kinds)
        most = np.zeros(jobs)
        np.maximum.at(most, self._job, self._worth)
        self._most: FloatArray = np.where(most > 0, most, 1.0)
        self._unit = float(self._most.min(initial=np.inf))

    def _program(
        self,
        gain: FloatArray,
        *,
        need: FloatArray,
        least: FloatArray,
        even: FloatArray | None = None,
        highest: float = np.inf,
    ) -> LinearProgram:
        """``even`` [C]: a pair's share is at least that times the level, which is at most ``highest``."""
        jobs, kinds = self._counts
        columns = len(self._job)
        level = np.full(jobs, columns)
        row = [self._job, jobs + self._kind, jobs + kinds + self._job, jobs + kinds + np.arange(jobs)]
        column: list[IntArray] = [np.arange(columns)] * 3 + [level]
        value = [
            np.ones(columns),
            self._devices,
            self._worth / self._most[self._job],
            -need * (self._unit / self._most),
        ]
        lower = [np.full(jobs + kinds, -np.inf), least / self._most]
        upper = [np.ones(jobs), self._capacity, np.full(jobs, np.inf)]
        if even is not None:
            rows = 2 * jobs + kinds + np.arange(columns)
            row += [rows, rows]
            column += [np.arange(columns), np.full(columns, columns)]
            value += [np.ones(columns), -even]
            lower.append(np.zeros(columns))
            upper.append(np.full(columns, np.inf))
        limit_row, limited, taken, most = self._limited
        row.append(sum(len(part) for part in upper) + limit_row)
        column.append(limited)
        value.append(taken)
        lower.append(np.full(len(most), -np.inf))
        upper.append(most)
        return LinearProgram(
            gain=gain,
            upper=np.append(np.full(columns, np.inf), highest),
            row_lower=np.concatenate(lower),
            row_upper=np.concatenate(upper),
            row=np.concatenate(row),
            column=np.concatenate(column),
            value=np.concatenate(value),
        )

    def _level_gain(self) -> FloatArray:
        gain = np.zeros(len(self._job) + 1)
        gain[-1] = 1.0
        return gain

    def max_min(self, levels: int) -> FloatArray:
        """Return the gain [J] that each job has at least when the least, by levels, are as large as they can be."""
        jobs, kinds = self._counts
        program = self._program(self._level_gain(), need=np.ones(jobs), least=np.zeros(jobs))
        least = np.zeros(jobs)
        is_open = np.ones(jobs, dtype=np.bool_)
        unit = self._unit
        for _ in range(levels):
            level = program.solve()[-1] * unit * (1 - _SLACK)
            least[is_open] = level
            # Who has a price is at the level in every optimum: nobody can give it more and keep the others there.
            # And a job alone on the fleet has no more than its best.
            has_price = program.prices()[jobs + kinds : 2 * jobs + kinds] * (unit / self._most) > _SLACK
            is_last = is_open & (has_price | (self._most <= level * (1 + 2 * _SLACK)))
            is_open &= ~is_last
            if not is_open.any() or not is_last.any():
                break
            for job in np.flatnonzero(is_last):
                row = int(jobs + kinds + job)
                program.set_value(row, len(self._job), 0.0)
                program.set_row(row, lower=level / self._most[job])
            if (least_most := float(self._most[is_open].min())) > unit:
                # Beside much larger ones, what is left of the level would be below all that the solver sees.
                unit = least_most
                for job in np.flatnonzero(is_open):
                    program.set_value(int(jobs + kinds + job), len(self._job), -unit / self._most[job])
        return least

    def reach(self) -> Callable[[FloatArray], bool]:
        """Return what tells whether every job [J] can gain what it needs."""
        jobs, kinds = self._counts
        # Where all needs are less than the solver sees, nothing else would hold the level back.
        program = self._program(self._level_gain(), need=np.ones(jobs), least=np.zeros(jobs), highest=2.0)

        def reaches(need: FloatArray) -> bool:
            if (need > self._most * (1 + _SLACK)).any():
                return False  # not even with all of its time; and of a number far too large the solver knows nothing
            for job in range(jobs):
                part = -float(need[job] / self._most[job])
                program.set_value(jobs + kinds + job, len(self._job), part)
            return bool(program.solve()[-1] >= 1.0)

        return reaches

    def best_sum(self, least: FloatArray) -> FloatArray:
        """Return the shares [J, K] with the greatest sum of gains that give every job its ``least`` [J]."""
        jobs, _ = self._counts
        gain = np.append(self._worth / self._most.max(initial=0.0), 0.0)
        return self._shares(self._program(gain, need=np.zeros(jobs), least=least))

    def most_even(self, least: FloatArray) -> FloatArray:
        """Return the shares [J, K] that give every job its ``least`` [J], each spread over its kinds by their size."""
        jobs, _ = self._counts
        spread = self._spread
        total = (least / np.bincount(self._job, self._worth * spread, minlength=jobs))[self._job]
        program = self._program(self._level_gain(), need=np.zeros(jobs), least=least, even=spread * total)
        return self._shares(program)

    def _shares(self, program: LinearProgram) -> FloatArray:
        shares = np.zeros(self._counts)
        shares[self._pairs] = np.clip(program.solve()[:-1], 0.0, 1.0)
        return shares
