"""Who gets which kind of device in a round, where teams are guaranteed devices, or limited."""

from collections.abc import Sequence

import numpy as np

from artesian.model.capacity import Capacity
from artesian.model.quota import Team, Teams
from artesian.model.resources import MILLI
from artesian.policy.accounts import Accounts
from artesian.policy.solver import FloatArray, IntArray
from artesian.policy.throughput import Problem


class Ahead(Accounts):
    """Accounts of what teams are going to have, before anybody has a place: ``left`` [K] devices are nobody's yet."""

    def __init__(self, teams: Teams, capacity: Capacity, left: FloatArray) -> None:
        super().__init__(teams, capacity)
        self.left = left

    def _free(self, kind: int) -> int:
        return int(self.left[kind] * MILLI)


def entitled_targets(
    problem: Problem, priorities: FloatArray, *, jobs: Sequence[int], accounts: Ahead
) -> tuple[list[int], IntArray, FloatArray]:
    """Return who of ``jobs`` gets something of what is left, in order; the kind [J], -1 for none; and how many devices
    at most [J].

    Those first whose teams are within what they are guaranteed with them, all the way up the hierarchy, then up to
    ever higher parents, then the others; by falling priority each time. Nobody gets more than his teams may have, and
    an elastic gang may get less than it asks for. What is guaranteed is given also where a priority is 0.
    """
    chosen = np.asarray(jobs, dtype=np.int64)
    row, kind = np.nonzero(problem.can_run[chosen])
    row = chosen[row]
    first = -priorities[row, kind]
    order = np.lexsort((kind, -problem.rate[row, kind], row, problem.on[row] != kind, first))
    pairs = [(int(row[place]), int(kind[place])) for place in order]
    turn = _Turn(problem, accounts)
    for level in range(turn.levels, -1, -1):
        for job, wanted in pairs:
            if turn.target[job] < 0 and (level or priorities[job, wanted] > 0):
                turn.give(job, wanted, level)
    for job in turn.given:
        turn.extend(job)
    return turn.given, turn.target, turn.most


class _Turn:
    """What was given so far."""

    def __init__(self, problem: Problem, accounts: Ahead) -> None:
        self._problem, self._accounts = problem, accounts
        self._paths = [accounts.teams.path(job.team) for job in problem.jobs]
        self.levels = max((_entitled_levels(path) for path in self._paths), default=0)
        self.target = np.full(len(problem.jobs), -1, dtype=np.int64)
        self.most = np.zeros(len(problem.jobs))
        self.given: list[int] = []

    def give(self, job: int, kind: int, level: int) -> None:
        """Give the job of the kind, if it may: with ``level`` only within the guarantees of so many teams from the top."""
        problem, accounts = self._problem, self._accounts
        asked, least = float(problem.devices[job, kind]), float(problem.least[job, kind])
        left = float(accounts.left[kind])
        if left + _EPSILON < least or (level and (not least or not self._paths[job][0].guaranteed)):
            return
        team = problem.jobs[job].team
        milli = min(asked * MILLI, accounts.room(team, kind))
        if level:
            milli = min(milli, *(accounts.within(above, kind) for above in self._paths[job][:level]))
        devices = _whole(milli / MILLI, asked)
        if devices + _EPSILON < least:
            return
        if devices > left + _EPSILON:
            if not level:
                return
            devices = _whole(left, asked)
        self.target[job] = kind
        self.given.append(job)
        self._take(job, kind, devices)

    def extend(self, job: int) -> None:
        """Give the job what it still wants of its kind, as far as it may and there is."""
        kind = int(self.target[job])
        more = float(self._problem.devices[job, kind]) - float(self.most[job])
        if more > _EPSILON:
            room = self._accounts.room(self._problem.jobs[job].team, kind) / MILLI
            more = _whole(min(more, room, float(self._accounts.left[kind])), more)
            self._take(job, kind, max(0.0, more))

    def _take(self, job: int, kind: int, devices: float) -> None:
        self._accounts.charge(self._problem.jobs[job].team, kind, round(devices * MILLI))
        self._accounts.left[kind] = max(0.0, float(self._accounts.left[kind]) - devices)
        self.most[job] += devices


def _entitled_levels(path: tuple[Team, ...]) -> int:
    """Return for how many teams from the top something is guaranteed."""
    return sum(1 for team in path if team.guaranteed)


def _whole(devices: float, asked: float) -> float:
    """Return so many devices, whole ones but for who asks for a part of one."""
    return devices if devices >= asked else float(int(devices + _EPSILON))


_EPSILON = 1e-9
