"""What teams had of what they are entitled to, over a simulation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from artesian import catalog
from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.state import State
from artesian.model.ledger import US, to_us
from artesian.model.quota import Team, Teams
from artesian.model.resources import MILLI
from artesian.policy.accounts import is_model


class TeamFigures(Struct, frozen=True, kw_only=True, gc=False):
    """What a team held, its children together with it, in device-seconds.

    ``borrowed_device_s`` is what it held beyond its guarantee at the time. ``wanted_device_s`` is what it asked for
    within its guarantee, running or waiting, and ``satisfaction`` the part of that which it held, 0 to 1: None for a
    team that is guaranteed nothing, or never wanted any of it.
    """

    used_device_s: float
    borrowed_device_s: float
    wanted_device_s: float
    satisfaction: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "used_device_s": self.used_device_s,
            "borrowed_device_s": self.borrowed_device_s,
            "wanted_device_s": self.wanted_device_s,
            "satisfaction": self.satisfaction,
        }


def team_figures(state: State, teams: Teams) -> dict[str, TeamFigures]:
    """Return the figures of each team that has jobs or is told of, by name; until ``state.at_s``."""
    by_team: dict[str, list[JobRecord]] = {team.name: [] for team in teams.teams}
    for record in state.jobs.values():
        for team in teams.path(record.job.team):
            by_team.setdefault(team.name, []).append(record)
    models = sorted({known.node.accelerator for known in state.nodes.values()})
    return {
        name: _figures(teams.path(name)[-1], records, models, state.at_s)
        for name, records in sorted(by_team.items())
    }


def _figures(team: Team, records: Sequence[JobRecord], models: Sequence[str], end_s: float) -> TeamFigures:
    entry_of = {
        model: next((n for n, (name, _) in enumerate(team.guaranteed) if is_model(name, model)), None)
        for model in models
    }
    used = within = wanted = 0
    held: list[list[tuple[int, int]]] = [[] for _ in team.guaranteed]
    asked: list[list[tuple[int, int]]] = [[] for _ in team.guaranteed]
    for record in records:
        for start_s, stop_s, milli, model in _held(record, end_s):
            start, stop = to_us(start_s), to_us(stop_s)
            used += milli * (stop - start)
            if (entry := entry_of.get(model)) is not None:
                held[entry] += [(start, milli), (stop, -milli)]
        if (entry := _asked_of(record, entry_of)) is not None:
            milli = record.job.devices[0].min_milli
            for start_s, stop_s in _waits(record, end_s):
                asked[entry] += [(to_us(start_s), milli), (to_us(stop_s), -milli)]
    for number, (_, count) in enumerate(team.guaranteed):
        most = count * MILLI
        within += _integral(held[number], most)
        wanted += _integral([*held[number], *asked[number]], most)
    scale = MILLI * US
    return TeamFigures(
        used_device_s=used / scale,
        borrowed_device_s=(used - within) / scale,
        wanted_device_s=wanted / scale,
        satisfaction=within / wanted if wanted else None,
    )


def _held(record: JobRecord, end_s: float) -> Iterator[tuple[float, float, int, str]]:
    """Yield from when to when each attempt held how much of which model."""
    for attempt in record.attempts:
        assert attempt.accelerator is not None
        milli = attempt.placement.milli
        stop_s = end_s if attempt.ended_s is None else attempt.ended_s
        yield attempt.decided_s, stop_s, milli, attempt.accelerator


def _waits(record: JobRecord, end_s: float) -> Iterator[tuple[float, float]]:
    """Yield from when to when the job waited for an attempt."""
    since_s: float | None = record.submitted_s
    for attempt in record.attempts:
        if since_s is not None:
            yield since_s, attempt.decided_s
        since_s = attempt.ended_s
    if since_s is not None and not (record.attempts and record.state.is_final):
        yield since_s, end_s if record.ended_s is None else record.ended_s


def _asked_of(record: JobRecord, entry_of: dict[str, int | None]) -> int | None:
    """Return the entry of the guarantee that a waiting job would be counted for: of its first choice that has one."""
    for request in record.job.devices:
        for model, entry in entry_of.items():
            if entry is None or request.is_host_only:
                continue
            if request.accelerator is None or catalog.matches(request.accelerator, model):
                return entry
    return None


def _integral(changes: Iterable[tuple[int, int]], most: int) -> int:
    """Return the integral over time of the sum of the changes so far, but for what is above ``most``."""
    total = level = since = 0
    for at, change in sorted(changes):
        total += min(level, most) * (at - since)
        level, since = level + change, at
    return total
