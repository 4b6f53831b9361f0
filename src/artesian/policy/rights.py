"""Rights: who may have others stopped to get their devices."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from artesian.model.capacity import BoolArray
from artesian.model.queue import WaitingJob
from artesian.model.quota import Team, Teams
from artesian.model.running import Columns
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.policy.accounts import Accounts
from artesian.policy.order import LeastAttained

CLASS = 10
"""How much more priority it takes to have somebody stopped: a class. Less only decides who goes first."""

_SOON_S = 300.0
"""No less than the time between two looks at it, or a deadline would be passed over."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Whom a job may have stopped. ``accounts`` are the teams and priorities of all of them.

    ``takes`` is asked of one holder after the other: may it be stopped, in addition to those that were taken
    before? The flag asks for those first that nobody would miss. Whoever is answered with True counts as taken.
    Without ``takes`` any of them may be, and ``among`` narrows down who: of 100,000 few may be worth a question.
    """

    accounts: frozenset[tuple[str, int]]
    takes: Callable[[RunningJob, bool], bool] | None = None
    among: Callable[[Columns], BoolArray] | None = None


class Right(Protocol):
    """Decides whether a waiting job may have running ones stopped."""

    @property
    def text(self) -> str:
        """Why it may, in words."""
        ...

    @property
    def is_timed(self) -> bool:
        """Whether time alone gives it, so that it has to be looked at every now and then."""
        ...

    def choice(self, entry: WaitingJob, snapshot: Snapshot) -> Choice | None:
        """Return whom the job may have stopped; None where it is nobody."""
        ...


@dataclass(frozen=True, slots=True)
class ByPriority:
    """Over those of a lower class of priority: lower by ``margin`` at least. ``within_team``: of its own team only."""

    margin: int = CLASS
    within_team: bool = False

    @property
    def text(self) -> str:
        """Why it may, in words."""
        return "its class of priority is higher"

    @property
    def is_timed(self) -> bool:
        """Whether time alone gives it."""
        return False

    def choice(self, entry: WaitingJob, snapshot: Snapshot) -> Choice | None:
        """Return whom the job may have stopped; None where it is nobody."""
        highest = entry.job.priority - self.margin

        accounts = frozenset(
            (team, priority)
            for team, priority in snapshot.capacity.used
            if priority <= highest and (not self.within_team or team == entry.job.team)
        )
        return Choice(accounts) if accounts else None


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Over those whose team borrows what the job's own team is guaranteed.

    Up the hierarchy: where the paths of the two teams part, the one must be within its guarantee with the
    job, and the other beyond its own. So what a team is guaranteed is never taken from it by another's claim,
    but for the rest of a gang that reaches beyond.
    """

    teams: Teams

    @property
    def text(self) -> str:
        """Why it may, in words."""
        return "its team is guaranteed the devices"

    @property
    def is_timed(self) -> bool:
        """Whether time alone gives it."""
        return False

    def choice(self, entry: WaitingJob, snapshot: Snapshot) -> Choice | None:
        """Return whom the job may have stopped; None where it is nobody."""
        path = self.teams.path(entry.job.team)
        if not any(team.guaranteed for team in path):
            return None
        accounts = Accounts(self.teams, snapshot.capacity)
        entitled = {team.name: self._entitled(entry, team, accounts) for team in path}
        if not any(entitled.values()):
            return None

        def borrows(team: str) -> bool:
            mine, theirs = parting(path, self.teams.path(team))
            if mine is None or theirs is None:
                return False
            return any(accounts.within(theirs, kind) < 0 for kind in entitled[mine.name])

        borrowers = frozenset((team, priority) for team, priority in snapshot.capacity.used if borrows(team))

        def takes(holder: RunningJob, is_spare: bool) -> bool:
            mine, theirs = parting(path, self.teams.path(holder.job.team))
            if mine is None or theirs is None:
                return False
            capacity = snapshot.capacity
            kind = int(capacity.kind[capacity.row[holder.placement.shares[0].node_id]])
            if kind not in entitled[mine.name]:
                return False
            borrowed = -accounts.within(theirs, kind)
            size = holder.placement.milli
            if borrowed <= 0 or (is_spare and size > borrowed):
                return False
            accounts.add(holder.job, holder.placement, -1)
            return True

        return Choice(borrowers, takes) if borrowers else None

    @staticmethod
    def _entitled(entry: WaitingJob, team: Team, accounts: Accounts) -> set[int]:
        """Return the kinds of device on which the job is within the team's guarantee."""
        return {
            kind
            for request in entry.job.devices
            for kind in accounts.kinds_of(request)
            if accounts.is_within(team, kind, request.min_milli)
        }


@dataclass(frozen=True, slots=True)
class ByDeadline:
    """Over those that can wait, once the job is about to miss its deadline and would still meet it.

    It can wait who has no deadline, or one so late that it would meet it after the job. It takes estimates of
    both durations; without its own, a job has no such right.
    """

    soon_s: float = _SOON_S

    @property
    def text(self) -> str:
        """Why it may, in words."""
        return "it would miss its deadline"

    @property
    def is_timed(self) -> bool:
        """Whether time alone gives it."""
        return True

    def choice(self, entry: WaitingJob, snapshot: Snapshot) -> Choice | None:
        """Return whom the job may have stopped; None where it is nobody."""
        job, at_s = entry.job, snapshot.at_s
        takes_s = job.estimated_duration_s
        if job.deadline_s is None or takes_s is None:
            return None
        latest_s = entry.submitted_s + job.deadline_s - takes_s
        if not at_s <= latest_s <= at_s + self.soon_s:
            return None
        everybody = frozenset(snapshot.capacity.used)
        return Choice(everybody, lambda holder, _is_spare: _can_wait(holder, at_s, takes_s))


def _can_wait(holder: RunningJob, at_s: float, wait_s: float) -> bool:
    job = holder.job
    if job.deadline_s is None:
        return True
    if job.estimated_duration_s is None:
        return False
    left_s = max(0.0, job.estimated_duration_s - (at_s - holder.since_s)) + holder.lost_s(at_s)
    return at_s + wait_s + left_s <= holder.submitted_s + job.deadline_s


@dataclass(frozen=True, slots=True)
class ByService:
    """Over those that have sunk to a lower level, this attempt included, and that would now go behind the job."""

    order: LeastAttained

    @property
    def text(self) -> str:
        """Why it may, in words."""
        return "it has been served less"

    @property
    def is_timed(self) -> bool:
        """Whether time alone gives it."""
        return True

    def choice(self, entry: WaitingJob, snapshot: Snapshot) -> Choice | None:
        """Return whom the job may have stopped; None where it is nobody."""
        level = self.order.level(entry.served_device_s)
        rank_s = self.order.rank_s(entry.job, entry.submitted_s, entry.served_device_s)

        def sunk(running: Columns) -> BoolArray:
            levels = self.order.levels(running.served_s(snapshot.at_s))
            behind_s = running.submitted_s + self.order.step_s * (levels - running.priority)
            return (levels > level) & (behind_s > rank_s)

        return Choice(frozenset(snapshot.capacity.used), among=sunk)


def parting(one: tuple[Team, ...], other: tuple[Team, ...]) -> tuple[Team | None, Team | None]:
    """Return the first teams from the top that the two paths do not share; None where a path ends before."""
    for mine, theirs in zip(one, other, strict=False):
        if mine.name != theirs.name:
            return mine, theirs
    return None, None
