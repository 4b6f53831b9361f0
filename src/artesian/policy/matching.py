"""Rankings that match jobs and devices for the time being, without shares."""

from dataclasses import dataclass

import numpy as np

from artesian.policy.solver import FloatArray, LinearProgram
from artesian.policy.throughput import Problem


@dataclass(frozen=True, slots=True)
class ShortestRemaining:
    """Least mean completion time: shortest remaining first, each where it is fastest.

    Gives the devices out so that the sum over the jobs that run of (rate / steps left) ** ``emphasis`` is
    greatest. 1 is the greatest rate of jobs coming to an end, and lets a job that is nearly done take a
    fast device from one that gains much more from it; 0 only asks who is how much faster where. One half was
    best on ids 100-199 of Gavel's stream, and within 1.1 % of the best on 300-399 and 600-699.
    Where devices are short, a long job waits for as long as shorter ones come: nothing here keeps it from starving.
    ``move_s`` is what it costs a job to go on somewhere else: it counts as part of what is left there.
    """

    emphasis: float = 0.5
    move_s: float = 0.0
    name: str = "shortest remaining time"

    def priorities(self, problem: Problem) -> FloatArray:
        """Return who should go first where [J, K]; 0: not at all."""
        left_s = _with_moves(problem, self.move_s)
        worth = np.zeros_like(left_s)
        best_s = left_s.min(1, keepdims=True)
        # With emphasis 0 it is the rate in units of the best that counts.
        np.divide(best_s ** (1 - self.emphasis), left_s, out=worth, where=problem.can_run)
        worth *= problem.weight[:, None]
        chosen = _fill(problem, worth)
        return np.where(chosen > _HALF, worth, 0.0)


@dataclass(frozen=True, slots=True)
class AlloX:
    """Least mean completion time by matching each job to a kind and a place in the order (EuroSys 2020).

    A job that is p-th from the end on a device delays p jobs by the time that it takes there, itself
    included: so the sum of all completion times is a sum of costs, and its minimum a min-cost matching.
    It decides about the jobs that are known, anew in each round, running ones included; AlloX itself
    moves no job that runs. ``move_s`` is what a move costs.
    """

    move_s: float = 0.0
    name: str = "AlloX matching"

    def priorities(self, problem: Problem) -> FloatArray:
        """Return who should go first where [J, K]; 0: not at all."""
        left_s = _with_moves(problem, self.move_s)
        share = _positions(problem, left_s)
        # On one kind the shortest is the furthest from the end: it goes first.
        priorities = np.zeros_like(left_s)
        np.divide(problem.weight[:, None], left_s, out=priorities, where=(share > _HALF) & problem.can_run)
        return priorities


_HALF = 0.5 - 1e-6

_PLACES = 16
"""Places in the order that AlloX tells apart; the last one is for all that are further from the end."""


def _with_moves(problem: Problem, move_s: float) -> FloatArray:
    """Return how long each job still takes on each kind [J, K], the move there included."""
    left_s = problem.left_s()
    if move_s:
        left_s = left_s + move_s
        runs = np.flatnonzero(problem.on >= 0)
        left_s[runs, problem.on[runs]] -= move_s
    return left_s


def _fill(problem: Problem, worth: FloatArray) -> FloatArray:
    """Return the part of each job on each kind [J, K] with the greatest sum of worth."""
    jobs, kinds = worth.shape
    job, kind = np.nonzero(problem.can_run)
    columns, devices = np.arange(len(job)), problem.devices[job, kind]
    row, column, value, most = problem.limited(job, kind, devices)
    program = LinearProgram(
        gain=worth[job, kind],
        upper=np.full(len(job), np.inf),
        row_lower=np.full(jobs + kinds + len(most), -np.inf),
        row_upper=np.concatenate([np.ones(jobs), problem.capacity, most]),
        row=np.concatenate([job, jobs + kind, jobs + kinds + row]),
        column=np.concatenate([columns, columns, column]),
        value=np.concatenate([np.ones(len(job)), devices, value]),
    )
    parts = np.zeros_like(worth)
    parts[job, kind] = program.solve()
    return parts


def _positions(problem: Problem, left_s: FloatArray) -> FloatArray:
    """Return the part of each job on each kind [J, K] with the least sum of completion times."""
    jobs, kinds = left_s.shape
    wanted = np.where(problem.can_run, problem.devices, 0.0)
    needed = np.ceil(wanted.sum(0) / np.maximum(problem.capacity, 1.0)).max(initial=1.0)
    for limit in problem.limits:
        demand = float(wanted[np.ix_(limit.jobs, limit.kinds)].sum())
        needed = max(needed, np.ceil(demand / max(limit.most, 1.0)))
    places = int(np.clip(needed, 1, _PLACES))
    job, kind = np.nonzero(problem.can_run)
    pair_cost = left_s[job, kind] * problem.weight[job]
    place = np.tile(np.arange(places), len(job))
    job, kind, cost = np.repeat(job, places), np.repeat(kind, places), np.repeat(pair_cost, places)
    room = np.repeat(problem.capacity, places)
    room[places - 1 :: places] = np.inf  # the last place, furthest from the end, takes all that are left
    columns, devices = np.arange(len(job)), problem.devices[job, kind]
    row, column, value, most = problem.limited(job, kind, devices)
    most = np.repeat(most, places)  # of each place in the order, but for the last
    most[places - 1 :: places] = np.inf
    program = LinearProgram(
        gain=-cost * (1 + place),
        upper=np.full(len(job), np.inf),
        row_lower=np.concatenate([np.ones(jobs), np.full(kinds * places + len(most), -np.inf)]),
        row_upper=np.concatenate([np.ones(jobs), room, most]),
        row=np.concatenate(
            [job, jobs + kind * places + place, jobs + kinds * places + row * places + place[column]]
        ),
        column=np.concatenate([columns, columns, column]),
        value=np.concatenate([np.ones(len(job)), devices, value]),
    )
    parts = np.zeros_like(left_s)
    np.add.at(parts, (job, kind), program.solve())
    return parts
