"""What a job's team lets it have, for whoever hands devices out: where, how many, and why none."""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from artesian.model.capacity import BoolArray, Capacity
from artesian.model.job import Job
from artesian.model.plan import HoldCode, Reason
from artesian.model.resources import MILLI, DeviceRequest
from artesian.policy.accounts import Accounts

_MOST_PARTS = 4
"""Models in a guarantee up to which all their combinations are looked at."""


def rooms(accounts: Accounts, job: Job, request: DeviceRequest) -> list[tuple[float, list[int]]]:
    """Return what the team may have of the kinds that the request may be met with, kinds of one room together,
    and of no kind too little."""
    found: dict[float, list[int]] = {}
    for kind in accounts.kinds_of(request):
        room = min(accounts.room(job.team, kind), float(request.max_milli))
        if room >= request.min_milli:
            found.setdefault(room, []).append(kind)
    return sorted(found.items(), reverse=True)


def at_most(request: DeviceRequest, milli: float) -> DeviceRequest:
    """Return the request for no more than so much: whole devices of what is not a share of one."""
    most = min(request.max_milli, milli)
    if not request.is_fraction and not request.is_host_only:
        most = most // MILLI * MILLI
    return request if most == request.max_milli else replace(request, max_milli=int(most))


def fitted(accounts: Accounts, job: Job, kind: int) -> Job | None:
    """Return the job, asking for no more of the kind than its team may have; None where that is too little."""
    room = accounts.room(job.team, kind)
    wishes = [one for one in job.devices if kind in accounts.kinds_of(one) and one.min_milli <= room]
    if not wishes:
        return None
    less = tuple(at_most(one, room) for one in wishes)
    return job if less == job.devices else replace(job, devices=less)


def refusal(accounts: Accounts, job: Job) -> Reason | None:
    """Return that the team may hold no more, where that is so.

    One that is over its quota waits for its own team; from others its devices are kept (``KEPT_FOR_TEAMS``).
    """
    if any(rooms(accounts, job, request) for request in job.devices):
        return None
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


def of_kinds(capacity: Capacity, kinds: list[int]) -> BoolArray:
    """Return the nodes [N] whose devices are of these kinds; not to be changed: it is remembered."""

    def found() -> BoolArray:
        is_of: BoolArray = np.isin(capacity.kind, kinds)
        return is_of

    return capacity.remember(("of kinds", tuple(kinds)), found)


class Limit(Struct, frozen=True, gc=False):
    """The jobs [J] may have ``most`` devices together of the kinds [K], by what teams are guaranteed and may borrow."""

    jobs: BoolArray
    kinds: BoolArray
    most: float


def limits(accounts: Accounts, jobs: Sequence[Job], devices: Sequence[float]) -> tuple[Limit, ...]:
    """Return what bounds the jobs together on kinds of which there are ``devices`` [K]: nothing that cannot be reached.

    A team holds at most its limit to borrow beyond its guarantees: of each of them, of any two, and so on, and of what
    it is not guaranteed. Those beside one that does not lend have what that leaves.
    """
    there = np.asarray(devices, dtype=np.float64)
    paths = [frozenset(team.name for team in accounts.teams.path(job.team)) for job in jobs]
    found = []
    for one in accounts.teams.teams:
        team = accounts.teams.path(one.name)[-1]
        is_below = np.array([team.name in path for path in paths], dtype=np.bool_)
        entries = accounts.entries(team)
        if team.borrow_limit is not None:
            for mask, guaranteed in _borrowing(entries, len(there)):
                found.append(Limit(is_below, mask, guaranteed + team.borrow_limit))
        if not team.lends:
            for kinds, guaranteed in entries:
                mask = _mask(kinds, len(there))
                found.append(Limit(~is_below, mask, max(0.0, float(there[mask].sum()) - guaranteed)))
    return tuple(each for each in found if each.jobs.any() and each.most < there[each.kinds].sum())


def _borrowing(
    entries: Sequence[tuple[tuple[int, ...], float]], kinds: int
) -> Iterator[tuple[BoolArray, float]]:
    rest = set(range(kinds)) - {kind for group, _ in entries for kind in group}
    sizes = range(len(entries) + 1) if len(entries) <= _MOST_PARTS else (0, len(entries))
    for part in chain.from_iterable(combinations(entries, size) for size in sizes):
        yield (
            _mask((*rest, *(kind for group, _ in part for kind in group)), kinds),
            sum(guaranteed for _, guaranteed in part),
        )


def _mask(kinds: Sequence[int], count: int) -> BoolArray:
    mask = np.zeros(count, dtype=np.bool_)
    mask[[kind for kind in kinds if kind < count]] = True
    return mask
