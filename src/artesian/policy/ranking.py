"""Rankings: who should go first on which model of device, now. Shares of time become turns here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from artesian.model.capacity import IntArray
from artesian.policy.shares import Objective
from artesian.policy.solver import FloatArray, SolverFailed
from artesian.policy.throughput import Problem

_FIRST_S = 1.0
"""Who had nothing of a kind yet counts as having had it so long: the greatest share goes first."""


class Ranking(Protocol):
    """Decides who goes first where."""

    @property
    def name(self) -> str:
        """What it goes by in a reason."""
        ...

    def priorities(self, problem: Problem) -> FloatArray:
        """Return the priorities [J, K], the greatest first; 0: not there, if it can be helped.

        They follow from the problem alone. There is at least one job. Raises SolverFailed where a solver comes to
        nothing: equal parts go instead then (``fallback.ranked``).
        """
        ...


@runtime_checkable
class Sizing(Protocol):
    """A ranking that also decides how many devices an elastic gang is to have."""

    def sizes(self, problem: Problem) -> FloatArray:
        """Return the number of devices [J, K]; 0 where it is not said: as many as can be had."""
        ...


@dataclass(slots=True)
class Turns:
    """Whose turn it is, so that in the long run everybody has its share: Gavel's round mechanism.

    A priority is the share of its time that the job should have on a kind, over the share that it has
    had since its submission. Gavel counts from the latest change of the shares on; counted over the whole life
    it needs no memory but the state's, and who was neglected catches up.
    """

    objective: Objective
    _last: tuple[tuple[bytes, ...], FloatArray | SolverFailed] | None = field(
        default=None, repr=False, compare=False
    )

    @property
    def name(self) -> str:
        """What it goes by in a reason."""
        return self.objective.name

    def priorities(self, problem: Problem) -> FloatArray:
        """Return the priorities [J, K]."""
        shares = self._shares(problem)
        return shares * (problem.age_s[:, None] + _FIRST_S) / (problem.held_s + _FIRST_S)

    def _shares(self, problem: Problem) -> FloatArray:
        """Return the objective's shares; for the problem that came last, those that it had then."""
        # Several cycles at one time ask the same, and most objectives change with the set of jobs only.
        parts: list[npt.NDArray[Any]] = [problem.devices, problem.rate, problem.weight, problem.capacity]
        if self.objective.looks_at_progress:
            parts += [problem.done, problem.left, problem.age_s]
        for limit in problem.limits:
            parts += [limit.jobs, limit.kinds, np.array(limit.most)]
        key = tuple(part.tobytes() for part in parts)
        if self._last is None or self._last[0] != key:
            self._last = (key, self._found(problem))
        if isinstance(self._last[1], SolverFailed):
            raise self._last[1].with_traceback(None)
        return self._last[1]

    def _found(self, problem: Problem) -> FloatArray | SolverFailed:
        try:
            return self.objective.shares(problem)
        except SolverFailed as failed:
            return failed  # it takes the longest of all, and would again


def targets(problem: Problem, priorities: FloatArray, *, jobs: Sequence[int], free: FloatArray) -> IntArray:
    """Return the kind [J] that each of ``jobs`` gets of what is ``free`` [K], -1 for none, by falling priority.

    Of equal ones the job that runs there goes first, then the first submitted.
    """
    target = np.full(len(problem.jobs), -1, dtype=np.int64)
    left = free.copy()
    chosen = np.asarray(jobs, dtype=np.int64)
    row, kind = np.nonzero(priorities[chosen] > 0)
    row = chosen[row]
    order = np.lexsort((kind, row, problem.on[row] != kind, -priorities[row, kind]))
    open_jobs, has_room = len(chosen), left > _EPSILON
    for place in order.tolist():
        job, wanted = int(row[place]), int(kind[place])
        if target[job] >= 0 or not (has_room[wanted] or problem.devices[job, wanted] == 0):
            continue
        if problem.devices[job, wanted] <= left[wanted] + _EPSILON:
            target[job] = wanted
            left[wanted] -= problem.devices[job, wanted]
            has_room[wanted] = left[wanted] > _EPSILON
            open_jobs -= 1
            if not open_jobs:
                break
    return target


_EPSILON = 1e-9
