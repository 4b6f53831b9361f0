"""Fair shares between teams: whose turn it is depends on what each team has got."""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from artesian.model.capacity import BoolArray, Capacity
from artesian.model.history import Had
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.plan import Reason
from artesian.model.queue import Key, WaitingJob, Walk, team_of
from artesian.model.quota import Team, Teams
from artesian.model.resources import DeviceRequest
from artesian.model.snapshot import Snapshot
from artesian.policy.accounts import Accounts
from artesian.policy.allowance import at_most, of_kinds, refusal, rooms
from artesian.policy.base import Order, Place
from artesian.policy.line import Line
from artesian.policy.order import AgedPriority

_SHAPES = 2**32
"""More than one team has shapes of jobs."""


@dataclass(frozen=True, slots=True)
class FairShare:
    """The team that is furthest below its share goes first; within it, by ``order``.

    Down the hierarchy: among siblings, those come first whose next job is within what they are guaranteed,
    then the one with the least dominant share by its weight, of what it holds or, with a half-life, of what it has
    had as well. A team at the limit of what it may borrow
    waits, and keeps nothing from the others.
    """

    teams: Teams = field(default_factory=Teams)
    order: Order = field(default_factory=AgedPriority)

    def key(self, entry: WaitingJob) -> Key:
        """Return what the jobs of one team are sorted by."""
        return self.order.key(entry)

    def line(self, snapshot: Snapshot) -> Line:
        """Return the line of a cycle."""
        walks = snapshot.waiting.walks(team_of, self.order.key)
        return _TeamLine(walks, Accounts(self.teams, snapshot.capacity, self._had(snapshot)))

    def _had(self, snapshot: Snapshot) -> Mapping[str, Had] | None:
        half_life_s = self.teams.usage_half_life_s
        return None if half_life_s is None else snapshot.history.usage(half_life_s).had(snapshot.at_s)


_Turn = tuple[tuple[int, float, str], ...]
"""For the teams from the top down: 0 where the next job is within the guarantee, the share, the name."""


class _TeamLine:
    """Merges the teams' own queues. A team's share only grows in a cycle, so that a turn that was worked out
    before can only be too early: it is looked at again when it comes up."""

    def __init__(self, walks: dict[str, Walk], accounts: Accounts) -> None:
        self._accounts = accounts
        self.accounts = None if accounts.teams.is_plain else accounts
        self._names = sorted(walks)
        self._walks = [walks[name] for name in self._names]
        self._heads: dict[int, WaitingJob] = {}
        self._heap: list[tuple[_Turn, int]] = []
        self._latest: int | None = None
        self.shape = -1
        for number in range(len(self._names)):
            self._line_up(number)

    def __iter__(self) -> Iterator[WaitingJob]:
        return self

    def __next__(self) -> WaitingJob:
        if self._latest is not None:
            self._line_up(self._latest)
            self._latest = None
        while self._heap:
            turn, number = heapq.heappop(self._heap)
            if (now := self._turn(number)) > turn:
                heapq.heappush(self._heap, (now, number))
                continue
            self._latest = number
            self.shape = number * _SHAPES + self._walks[number].shape
            return self._heads.pop(number)
        raise StopIteration

    def leave_shape(self) -> None:
        """Leave out all other jobs of the team that are like the one that came last."""
        assert self._latest is not None
        self._walks[self._latest].leave_shape()

    def leave_later(self, at_s: float, until_s: float) -> None:
        """Leave out those next of the team and like the one that came last that would end after ``until_s``."""
        assert self._latest is not None
        self._walks[self._latest].leave_later(at_s, until_s)

    def started(self, job: Job, placement: Placement) -> None:
        """Take note of a start."""
        self._accounts.add(job, placement)

    def place(self, place: Place, job: Job, free: Capacity, allowed: BoolArray) -> Placement | None:
        """Return where the job goes, with no more devices than its team may have."""
        if self._accounts.teams.is_plain:
            return place.place(job, free, allowed)
        for request in job.devices:
            for room, kinds in rooms(self._accounts, job, request):
                less = at_most(request, room)
                is_same = len(job.devices) == 1 and less is request
                fitted = job if is_same else replace(job, devices=(less,))
                placement = place.place(fitted, free, allowed & of_kinds(free, kinds))
                if placement is not None:
                    return placement
        return None

    def refusal(self, job: Job) -> Reason | None:
        """Return that the team may hold no more, where that is so."""
        return None if self._accounts.teams.is_plain else refusal(self._accounts, job)

    def allowed(self, job: Job, request: DeviceRequest, free: Capacity) -> BoolArray:
        """Return the nodes [N] of the kinds that the team may have enough of."""
        if self._accounts.teams.is_plain:
            return free.is_up
        kinds = [kind for _, alike in rooms(self._accounts, job, request) for kind in alike]
        return of_kinds(free, sorted(kinds)) & free.is_up

    def _line_up(self, number: int) -> None:
        head = next(self._walks[number], None)
        if head is not None:
            self._heads[number] = head
            heapq.heappush(self._heap, (self._turn(number), number))

    def _turn(self, number: int) -> _Turn:
        job = self._heads[number].job
        return tuple(
            (int(not self._is_within(team, job)), self._accounts.dominant_share(team), team.name)
            for team in self._accounts.teams.path(self._names[number])
        )

    def _is_within(self, team: Team, job: Job) -> bool:
        if not team.guaranteed:
            return False
        return any(
            self._accounts.is_within(team, kind, request.min_milli)
            for request in job.devices
            for kind in self._accounts.kinds_of(request)
        )
