"""Fair shares between teams: whose turn it is depends on what each team has got."""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace

from artesian.model.capacity import BoolArray, Capacity
from artesian.model.history import Had
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.plan import HoldCode, Reason
from artesian.model.queue import Key, WaitingJob, Walk, team_of
from artesian.model.quota import Team, Teams
from artesian.model.resources import MILLI, DeviceRequest
from artesian.model.snapshot import Snapshot
from artesian.policy.accounts import Accounts
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
            for room, kinds in self._rooms(job, request):
                most = min(request.max_milli, room)
                if not request.is_fraction and not request.is_host_only:
                    most = int(most // MILLI) * MILLI
                fitted = job
                if len(job.devices) > 1 or most < request.max_milli:
                    fitted = replace(job, devices=(replace(request, max_milli=int(most)),))
                placement = place.place(fitted, free, allowed & _of_kinds(free, kinds))
                if placement is not None:
                    return placement
        return None

    def refusal(self, job: Job) -> Reason | None:
        """Return that the team may hold no more, where that is so."""
        if self._accounts.teams.is_plain or any(self._rooms(job, request) for request in job.devices):
            return None
        accounts = self._accounts
        wishes = [(request, kind) for request in job.devices for kind in accounts.kinds_of(request)]
        limiting = [accounts.limiting(job.team, kind, request.min_milli) for request, kind in wishes]
        team = limiting[0]
        if team is None or None in limiting:
            keepers = sorted({name for _, kind in wishes for name in accounts.keepers(job.team, kind)})
            return Reason(
                code=HoldCode.KEPT_FOR_TEAMS,
                text=f"what is free is not enough beside what teams keep that do not lend: {', '.join(keepers)}",
                unblock="more devices become free than these teams keep, or they lend",
            )
        held = accounts.borrowed(team) / MILLI
        return Reason(
            code=HoldCode.OVER_QUOTA,
            text=f"team {team.name} may not have as many devices now: it holds {held:g} beyond its guarantee, of at most {team.borrow_limit}",
            unblock=f"a job of team {team.name} ends, or its limit to borrow is raised",
        )

    def allowed(self, job: Job, request: DeviceRequest, free: Capacity) -> BoolArray:
        """Return the nodes [N] of the kinds that the team may have enough of."""
        if self._accounts.teams.is_plain:
            return free.is_up
        kinds = [kind for _, alike in self._rooms(job, request) for kind in alike]
        return _of_kinds(free, sorted(kinds)) & free.is_up

    def _rooms(self, job: Job, request: DeviceRequest) -> list[tuple[float, list[int]]]:
        """Return what the team may have of the kinds that the request may be met with, kinds of one room together,
        and of no kind too little."""
        rooms: dict[float, list[int]] = {}
        for kind in self._accounts.kinds_of(request):
            room = min(self._accounts.room(job.team, kind), float(request.max_milli))
            if room >= request.min_milli:
                rooms.setdefault(room, []).append(kind)
        return sorted(rooms.items(), reverse=True)

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


def _of_kinds(capacity: Capacity, kinds: list[int]) -> BoolArray:
    def found() -> BoolArray:
        is_of: BoolArray = np.isin(capacity.kind, kinds)
        return is_of

    return capacity.remember(("of kinds", tuple(kinds)), found)
