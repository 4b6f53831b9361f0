"""Who pays: teams, their shares of the fleet and what they are guaranteed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from artesian.model.errors import ArtesianError, UnitError
from artesian.model.units import parse_duration_s

ANY = "any"
"""In a guarantee: devices of whichever model."""

_EXAMPLE = "[teams.vision] weight = 2, guaranteed = {H100 = 8}, borrow = 16"
_HALF_LIFE = "usage_half_life"
_KEYS = ("parent", "weight", "guaranteed", "borrow", "lend")


class QuotaError(ArtesianError, ValueError):
    """Teams whose shares contradict each other."""


class Team(Struct, frozen=True, kw_only=True, gc=False):
    """A team, its parent in the hierarchy, and what it is entitled to.

    ``weight``: its part of what it shares with its siblings, in proportion to theirs. ``guaranteed``: models
    of device, as a request names them (``any``: whichever), and how many of them it gets back whenever it
    wants them. ``borrow_limit``: how many devices it may hold beyond that while others do not use them (None:
    without limit). ``lends``: whether others may use what it does not.
    """

    name: str
    parent: str | None = None
    weight: float = 1.0
    guaranteed: tuple[tuple[str, int], ...] = ()
    borrow_limit: int | None = None
    lends: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise QuotaError(f"team {self.name}: expected a weight above 0, got {self.weight}")
        if any(count < 0 for _, count in self.guaranteed):
            raise QuotaError(
                f"team {self.name}: expected guaranteed devices of at least 0, got {self.guaranteed}"
            )
        if self.borrow_limit is not None and self.borrow_limit < 0:
            raise QuotaError(
                f"team {self.name}: expected a limit to borrow of at least 0, got {self.borrow_limit}"
            )


@dataclass(frozen=True)
class Teams:
    """All teams. One that a job names and that is not here stands beside those at the top, with no guarantee.

    What is guaranteed to a team that does not say it is what its children are, together. With
    ``usage_half_life_s`` (None: without), what a team has had counts as well as what it holds, by half with every
    half-life.
    Raises QuotaError for a parent that is not there, a circle, and children who are guaranteed more than
    their parent.
    """

    teams: tuple[Team, ...] = ()
    usage_half_life_s: float | None = None
    _paths: dict[str, tuple[Team, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name = {team.name: team for team in self.teams}
        if self.usage_half_life_s is not None and not 0 < self.usage_half_life_s < math.inf:
            raise QuotaError(f"teams: expected a half-life above 0, got {self.usage_half_life_s} s")
        if len(by_name) < len(self.teams):
            raise QuotaError(f"teams: expected each name once, got {[team.name for team in self.teams]}")
        paths = {name: _path(by_name, team) for name, team in by_name.items()}
        whole = _with_sums(by_name, paths)
        object.__setattr__(
            self, "_paths", {name: tuple(whole[team.name] for team in path) for name, path in paths.items()}
        )

    def path(self, name: str) -> tuple[Team, ...]:
        """Return the team and those above it, from the top down."""
        return self._paths.get(name) or (Team(name=name),)

    @property
    def is_plain(self) -> bool:
        """Whether no team is guaranteed anything, or limited: then shares are all there is to it."""
        return not any(team.guaranteed or team.borrow_limit is not None for team in self.teams)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], *, source: str = "teams") -> "Teams":
        """Return the teams of a table as ``artesian.toml`` has it. Raises QuotaError, which names the key."""
        half_life_s = _half_life_s(table[_HALF_LIFE], source) if _HALF_LIFE in table else None
        tables = {name: entry for name, entry in table.items() if name != _HALF_LIFE}
        return cls(tuple(_team(name, entry, source) for name, entry in tables.items()), half_life_s)


def _half_life_s(value: Any, source: str) -> float:
    try:
        half_life_s = parse_duration_s(value) if isinstance(value, str) else 0.0
    except UnitError:
        half_life_s = 0.0
    if half_life_s <= 0:
        raise QuotaError(
            f"{source}: {_HALF_LIFE}: expected a duration such as 7d, got {value!r}",
            hint=f'[teams]\n{_HALF_LIFE} = "7d"',
        )
    return half_life_s


def _path(by_name: Mapping[str, Team], team: Team) -> tuple[Team, ...]:
    path = [team]
    while (parent := path[0].parent) is not None:
        if parent not in by_name:
            raise QuotaError(
                f"team {path[0].name}: its parent {parent} is no team", hint=f"add [teams.{parent}]"
            )
        if by_name[parent] in path:
            raise QuotaError(f"team {team.name}: it is its own parent, by way of {parent}")
        path.insert(0, by_name[parent])
    return tuple(path)


def _with_sums(by_name: Mapping[str, Team], paths: Mapping[str, tuple[Team, ...]]) -> dict[str, Team]:
    """Return the teams, each with what it is guaranteed, or else with what its children are together."""
    whole: dict[str, Team] = {}
    for name in sorted(by_name, key=lambda name: -len(paths[name])):  # children before their parents
        team = by_name[name]
        sums: dict[str, int] = {}
        for child in by_name.values():
            if child.parent == name:
                for model, count in whole[child.name].guaranteed:
                    sums[model] = sums.get(model, 0) + count
        own = dict(team.guaranteed)
        for model, count in sums.items():
            if own and count > own.get(model, 0):
                raise QuotaError(
                    f"team {name}: its children are guaranteed {count} {model} together, and it {own.get(model, 0)}",
                    hint="guarantee it as many, or nothing: then it is guaranteed what they are",
                )
        whole[name] = Team(
            name=name,
            parent=team.parent,
            weight=team.weight,
            guaranteed=tuple((own or sums).items()),
            borrow_limit=team.borrow_limit,
            lends=team.lends,
        )
    return whole


def _team(name: str, entry: Any, source: str) -> Team:
    subject = f"{source}: team {name}"
    if not isinstance(entry, Mapping):
        raise QuotaError(f"{subject}: expected a table, got {entry!r}", hint=_EXAMPLE)
    for key in entry:
        if key not in _KEYS:
            raise QuotaError(f"{subject}: {key} is no key of a team", hint=f"known keys: {', '.join(_KEYS)}")
    parent, weight = entry.get("parent"), entry.get("weight", 1)
    guaranteed, borrow, lend = entry.get("guaranteed", {}), entry.get("borrow", True), entry.get("lend", True)
    if not (parent is None or isinstance(parent, str)):
        raise QuotaError(f"{subject}: parent: expected the name of a team, got {parent!r}", hint=_EXAMPLE)
    if not _is_number(weight):
        raise QuotaError(f"{subject}: weight: expected a number, got {weight!r}", hint=_EXAMPLE)
    if not (isinstance(guaranteed, Mapping) and all(_is_count(count) for count in guaranteed.values())):
        raise QuotaError(
            f"{subject}: guaranteed: expected models of device and counts, got {guaranteed!r}", hint=_EXAMPLE
        )
    if not (isinstance(borrow, bool) or _is_count(borrow)):
        raise QuotaError(f"{subject}: borrow: expected true, false or a count, got {borrow!r}", hint=_EXAMPLE)
    if not isinstance(lend, bool):
        raise QuotaError(f"{subject}: lend: expected true or false, got {lend!r}", hint=_EXAMPLE)
    limit = None if borrow is True else int(borrow)  # false is 0
    return Team(
        name=name,
        parent=parent,
        weight=float(weight),
        guaranteed=tuple(guaranteed.items()),
        borrow_limit=limit,
        lends=lend,
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
