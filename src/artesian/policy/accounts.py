"""What teams hold, against what they are entitled to: in thousandths of devices, for one cycle."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from artesian import catalog
from artesian.model.capacity import Capacity
from artesian.model.history import Had
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.quota import ANY, Team, Teams
from artesian.model.resources import MILLI, DeviceRequest
from artesian.model.usage import amounts

_DIGITS = 9
"""Sums of decayed usage may differ beyond that, by the order in which they came about."""


@dataclass(frozen=True, slots=True)
class _Fleet:
    """What there is: ``totals`` [K + 2] of devices by kind, CPUs, memory, of nodes that are up; and which
    kinds an entry of a guarantee is about. A kind belongs to the first entry that names it."""

    models: tuple[tuple[str | None, str], ...]
    totals: tuple[int, ...]

    def kinds(self, guaranteed: tuple[tuple[str, int], ...]) -> tuple[tuple[int, ...], ...]:
        """Return the kinds of each entry of a guarantee."""
        left = set(range(len(self.models)))
        found = []
        for model, _ in guaranteed:
            kinds = tuple(kind for kind in sorted(left) if is_model(model, self.models[kind][1]))
            left -= set(kinds)
            found.append(kinds)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class _Entitlement:
    """What a team is guaranteed, on a given fleet: an amount for each group of kinds."""

    entries: tuple[tuple[tuple[int, ...], int], ...]
    entry_of: tuple[int | None, ...]


class Accounts:
    """Who holds what, each team together with all below it. Made for one cycle from what runs.

    ``add`` keeps it up to date while the cycle decides. ``had`` is what teams have had in the decayed mean, by team;
    None: history counts for nothing.
    """

    def __init__(self, teams: Teams, capacity: Capacity, had: Mapping[str, Had] | None = None) -> None:
        self.teams = teams
        self._capacity = capacity
        self._fleet = capacity.remember("fleet of accounts", lambda: _fleet(capacity))
        self._used: dict[str, list[int]] = {}
        self._had = None if had is None else self._by_resource(had)
        for (team, _), used in capacity.used.items():
            for above in teams.path(team):
                mine = self._account(above.name)
                for resource, amount in enumerate(used):
                    mine[resource] += amount

    def _by_resource(self, had: Mapping[str, Had]) -> dict[str, list[float]]:
        """Return what each team, with all below it, has had of each resource, as ``totals`` of the fleet count it."""
        kind_of = {model: kind for kind, (_, model) in reversed(list(enumerate(self._fleet.models)))}
        found: dict[str, list[float]] = {}
        for team, own in had.items():
            for above in self.teams.path(team):
                sums = found.setdefault(above.name, [0.0] * len(self._fleet.totals))
                for accelerator, milli in own.milli.items():
                    if accelerator in kind_of:  # else the fleet has no such device any more
                        sums[kind_of[accelerator]] += milli
                sums[-2] += own.cpu_milli
                sums[-1] += own.memory_bytes
        return found

    def _account(self, team: str) -> list[int]:
        used = self._used.get(team)
        if used is None:
            used = self._used[team] = [0] * len(self._fleet.totals)
        return used

    def add(self, job: Job, placement: Placement, sign: int = 1) -> None:
        """Take note that the job gets the placement, or (-1) gives it back."""
        kind = int(self._capacity.kind[self._capacity.row[placement.shares[0].node_id]])
        milli, cpu_milli, memory_bytes = amounts(job, placement)
        self.charge(job.team, kind, sign * milli)
        for team in self.teams.path(job.team):
            used = self._account(team.name)
            used[-2] += sign * cpu_milli
            used[-1] += sign * memory_bytes

    def charge(self, team_name: str, kind: int, milli: int) -> None:
        """Take note that the team has so much more of the kind."""
        for team in self.teams.path(team_name):
            self._account(team.name)[kind] += milli

    def dominant_share(self, team: Team) -> float:
        """Return the largest part that the team has of any one resource, 0 to 1, divided by its weight.

        Ghodsi et al., *Dominant Resource Fairness*, NSDI 2011; each model of device is a resource. Where history
        counts, what a team has of a resource is the mean of what it has had and what it holds: what it will have had
        one half-life from now if it keeps that.
        """
        used = self._used.get(team.name)
        if self._had is not None:
            return self._share_with_history(used, self._had.get(team.name)) / team.weight
        if used is None:
            return 0.0
        parts = [has / total for has, total in zip(used, self._fleet.totals, strict=True) if total > 0]
        return max(parts, default=0.0) / team.weight

    def _share_with_history(self, used: list[int] | None, had: list[float] | None) -> float:
        totals = self._fleet.totals
        nothing = [0] * len(totals)
        resources = zip(used or nothing, had or nothing, totals, strict=True)
        parts = [(holds + before) / 2 / total for holds, before, total in resources if total > 0]
        return round(max(parts, default=0.0), _DIGITS)

    def kinds_of(self, request: DeviceRequest) -> tuple[int, ...]:
        """Return the kinds that the request may be met with."""
        capacity = self._capacity
        return capacity.remember(
            ("kinds", request), lambda: tuple(np.unique(capacity.kind[capacity.eligible(request)]).tolist())
        )

    def is_within(self, team: Team, kind: int, milli: int) -> bool:
        """Return whether the team may have so much more of the kind by what it is guaranteed."""
        return self.within(team, kind) >= milli > 0

    def within(self, team: Team, kind: int) -> int:
        """Return how much more of the kind the team is guaranteed than it holds; negative: it borrows."""
        entitled = self._entitled(team)
        entry = entitled.entry_of[kind]
        if entry is None:
            return -self._account(team.name)[kind]
        kinds, guaranteed = entitled.entries[entry]
        used = self._account(team.name)
        return guaranteed - sum(used[other] for other in kinds)

    def borrowed(self, team: Team) -> int:
        """Return how much the team holds beyond what it is guaranteed."""
        entitled, used = self._entitled(team), self._account(team.name)
        beyond = sum(
            max(0, sum(used[kind] for kind in kinds) - guaranteed) for kinds, guaranteed in entitled.entries
        )
        return beyond + sum(used[kind] for kind, entry in enumerate(entitled.entry_of) if entry is None)

    def entries(self, team: Team) -> list[tuple[tuple[int, ...], float]]:
        """Return the devices that the team is guaranteed, by groups of kinds."""
        return [(kinds, milli / MILLI) for kinds, milli in self._entitled(team).entries]

    def ceiling(self, team_name: str, kind: int) -> float:
        """Return how much of the kind the team may ever hold, by what it is guaranteed and may borrow, and what is left
        beside those who do not lend."""
        path = self.teams.path(team_name)
        limited = [team for team in path if team.borrow_limit is not None]
        ceilings = [self._guaranteed(team, kind) + (team.borrow_limit or 0) * MILLI for team in limited]
        kept = sum(
            self._guaranteed(team, kind) for team in self.teams.teams if not team.lends and team not in path
        )
        if kept:
            ceilings.append(max(self._guaranteed(path[-1], kind), self._fleet.totals[kind] - kept))
        return min(ceilings, default=math.inf)

    def _guaranteed(self, team: Team, kind: int) -> int:
        entitled = self._entitled(team)
        entry = entitled.entry_of[kind]
        return 0 if entry is None else entitled.entries[entry][1]

    def room(self, team_name: str, kind: int) -> float:
        """Return how much of the kind the team may have now beyond what it holds, free or not."""
        path = self.teams.path(team_name)
        room = min(self._allowance(team, kind) for team in path)
        if (kept := self._kept(path, kind)) > 0:
            room = min(room, max(0, self.within(path[-1], kind), self._free(kind) - kept))
        return room

    def _free(self, kind: int) -> int:
        rows = self._capacity.is_up & (self._capacity.kind == kind)
        return int(np.sum(self._capacity.free_whole[rows])) * MILLI

    def may_hold(self, team_name: str, kind: int) -> bool:
        """Return whether the team may have what it holds of the kind: beyond its guarantee it is within its limit to
        borrow, and takes nothing that others keep."""
        path = self.teams.path(team_name)
        limited = [team for team in path if team.borrow_limit is not None and self.within(team, kind) < 0]
        if any(self.borrowed(team) > (team.borrow_limit or 0) * MILLI for team in limited):
            return False
        kept = self._kept(path, kind)
        return kept <= 0 or self.within(path[-1], kind) >= 0 or self._free(kind) >= kept

    def limiting(self, team_name: str, kind: int, milli: int) -> Team | None:
        """Return the first team from the top whose limit to borrow leaves less of the kind than so much; None: none."""
        path = self.teams.path(team_name)
        return next((team for team in path if self._allowance(team, kind) < milli), None)

    def keepers(self, team_name: str, kind: int) -> list[str]:
        """Return the teams that keep devices of the kind from this one, unused."""
        return [team.name for team, kept in self._keeping(self.teams.path(team_name), kind) if kept > 0]

    def withholding(self, team_name: str, kind: int) -> frozenset[str]:
        """Return the teams that do not lend to this one what they are guaranteed of the kind, used or not."""
        path = self.teams.path(team_name)
        return frozenset(
            team.name
            for team, _ in self._keeping(path, kind)
            if (entry := self._entitled(team).entry_of[kind]) is not None
            and self._entitled(team).entries[entry][1]
        )

    def own(self, team_name: str, kind: int, keepers: Collection[str]) -> int:
        """Return how much of what one of the ``keepers`` keeps of the kind, unused, is this team's to use."""
        path = self.teams.path(team_name)
        return max((0, *(self.within(team, kind) for team in path if team.name in keepers)))

    def _allowance(self, team: Team, kind: int) -> float:
        """Return how much of the kind the team may have now beyond what it holds, by its own limit to borrow."""
        if team.borrow_limit is None:
            return math.inf
        left = max(0, team.borrow_limit * MILLI - self.borrowed(team))
        return max(0, self.within(team, kind)) + left

    def _kept(self, path: tuple[Team, ...], kind: int) -> int:
        """Return how much of the kind other teams keep for themselves, unused."""
        return sum(kept for _, kept in self._keeping(path, kind))

    def _keeping(self, path: tuple[Team, ...], kind: int) -> list[tuple[Team, int]]:
        return [
            (team, max(0, self.within(team, kind)))
            for team in self.teams.teams
            if not team.lends and team not in path
        ]

    def _entitled(self, team: Team) -> _Entitlement:
        def found() -> _Entitlement:
            groups = self._fleet.kinds(team.guaranteed)
            entry_of: list[int | None] = [None] * len(self._fleet.models)
            for entry, kinds in enumerate(groups):
                for kind in kinds:
                    entry_of[kind] = entry
            amounts = tuple(count * MILLI for _, count in team.guaranteed)
            return _Entitlement(entries=tuple(zip(groups, amounts, strict=True)), entry_of=tuple(entry_of))

        return self._capacity.remember(("entitled", team.guaranteed), found)


def _fleet(capacity: Capacity) -> _Fleet:
    models: dict[int, tuple[str | None, str]] = {}
    totals = [0] * (capacity.kinds + 2)
    for row, node in enumerate(capacity.nodes):
        kind = int(capacity.kind[row])
        models[kind] = (node.vendor, node.accelerator)
        if capacity.is_up[row]:
            totals[kind] += node.devices * MILLI
            totals[-2] += node.cpus * MILLI
            totals[-1] += node.memory_bytes
    return _Fleet(models=tuple(models[kind] for kind in range(len(models))), totals=tuple(totals))


def is_model(name: str, accelerator: str) -> bool:
    """Return whether an entry of a guarantee is about this accelerator."""
    return name == ANY or catalog.matches(name, accelerator)
