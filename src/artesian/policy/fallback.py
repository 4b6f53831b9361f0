"""What a cycle goes by where a ranking comes to nothing: a solver that gives up ends no cycle, and hangs none."""

from dataclasses import dataclass

import numpy as np

from artesian.policy.ranking import Ranking, Sizing, Turns
from artesian.policy.solver import FloatArray, SolverFailed
from artesian.policy.throughput import Problem


@dataclass(frozen=True, slots=True)
class EqualParts:
    """A part of every kind of device for everybody by weight, be it fast there or slow: shares that need no solver."""

    name: str = "equal parts of the fleet"
    looks_at_progress: bool = False

    def shares(self, problem: Problem) -> FloatArray:
        """Return the shares [J, K]: a job's part of the devices that suit it is its weight's part of all weights."""
        suiting = np.where(problem.can_run, problem.capacity, 0.0).sum(1)
        devices = np.where(problem.can_run, problem.devices, 0.0).max(1)
        part = problem.weight / problem.weight.sum()
        time = np.ones(len(problem.jobs))
        np.divide(part * suiting, devices, out=time, where=devices > 0)
        return problem.spread() * np.minimum(time, 1.0)[:, None]


@dataclass(frozen=True, slots=True)
class Ranked:
    """Priorities [J, K] and, where the ranking tells them, sizes [J, K]; ``name`` is what they go by.

    ``notice`` is what operators should know of how they came about; None where it was as it should be.
    """

    priorities: FloatArray
    sizes: FloatArray | None
    name: str
    notice: str | None = None


def ranked(ranking: Ranking, problem: Problem) -> Ranked:
    """Return who should go first where, by the ranking; by turns of equal parts where its solver fails.

    That follows from the problem alone, as all that a policy decides: shares that were found in an earlier cycle are
    none of this one's, for who asks why a job waits, or starts again, has not seen that cycle.
    """
    try:
        return _by(ranking, problem)
    except SolverFailed as failed:
        equal = Turns(EqualParts())
        notice = f"{ranking.name} came to nothing, and {equal.name} went instead: {failed}"
        return Ranked(
            equal.priorities(problem), None, f"{equal.name} ({ranking.name} came to nothing)", notice
        )


def _by(ranking: Ranking, problem: Problem) -> Ranked:
    # A speed that is beyond all floats is no reason to talk: what comes of it is looked at.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        priorities = ranking.priorities(problem)
        sizes = ranking.sizes(problem) if isinstance(ranking, Sizing) else None
    if not all(np.isfinite(found).all() for found in (priorities, sizes) if found is not None):
        raise SolverFailed("a priority is no number")
    return Ranked(priorities, sizes, ranking.name)
