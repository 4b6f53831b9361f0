"""What teams have had of a fleet, of late more than long ago: each second of it counts by half with every half-life."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct, field


class Holding(NamedTuple):
    """At a time, in seconds, a team came to hold so much more, or (negative) less.

    ``milli`` are thousandths of devices of the accelerator, ``cpu_milli`` of CPUs.
    """

    at_s: float
    team: str
    accelerator: str
    milli: int
    cpu_milli: int = 0
    memory_bytes: int = 0


class Had(Struct, kw_only=True, gc=False):
    """What a team has had in a decayed mean: in thousandths of devices, by accelerator, and of CPUs, and in bytes."""

    milli: dict[str, float] = field(default_factory=dict)
    cpu_milli: float = 0.0
    memory_bytes: float = 0.0


class _Account(Struct, gc=False):
    """Of one resource: ``had`` by ``at_s``, times seconds and decayed, and ``holds`` from then on."""

    had: float = 0.0
    holds: float = 0.0
    at_s: float = 0.0

    def had_by(self, at_s: float, mean_life_s: float) -> float:
        kept = math.exp(-max(0.0, at_s - self.at_s) / mean_life_s)
        return self.had * kept + self.holds * mean_life_s * (1.0 - kept)

    def note(self, at_s: float, more: float, mean_life_s: float) -> None:
        self.had = self.had_by(at_s, mean_life_s)
        self.at_s = at_s
        self.holds += more


class _TeamAccount(Struct, gc=False):
    devices: dict[str, _Account] = field(default_factory=dict)
    cpus: _Account = field(default_factory=_Account)
    memory: _Account = field(default_factory=_Account)


class Usage:
    """By one half-life. What is held for ever comes to ``mean_life_s`` times as much."""

    def __init__(self, half_life_s: float) -> None:
        self.mean_life_s = half_life_s / math.log(2.0)
        self._teams: dict[str, _TeamAccount] = {}

    def note(self, change: Holding) -> None:
        """Take note of a change, none of which comes before another that was noted already."""
        team = self._teams.get(change.team)
        if team is None:
            team = self._teams[change.team] = _TeamAccount()
        if change.milli:
            devices = team.devices.get(change.accelerator)
            if devices is None:
                devices = team.devices[change.accelerator] = _Account()
            devices.note(change.at_s, change.milli, self.mean_life_s)
        if change.cpu_milli:
            team.cpus.note(change.at_s, change.cpu_milli, self.mean_life_s)
        if change.memory_bytes:
            team.memory.note(change.at_s, change.memory_bytes, self.mean_life_s)

    def had(self, at_s: float) -> Mapping[str, Had]:
        """Return what each team has had in the decayed mean: as much as it holds, had it held that for ever."""
        life_s = self.mean_life_s
        return {
            name: Had(
                milli={model: had.had_by(at_s, life_s) / life_s for model, had in team.devices.items()},
                cpu_milli=team.cpus.had_by(at_s, life_s) / life_s,
                memory_bytes=team.memory.had_by(at_s, life_s) / life_s,
            )
            for name, team in self._teams.items()
        }


class History:
    """Usage by any half-life: worked out from ``past``, all changes so far, when it is first asked for, and kept up
    to date from then on. Who asks for none pays for none."""

    def __init__(self, past: Callable[[], Iterable[Holding]] = tuple) -> None:
        self._past = past
        self._usages: dict[float, Usage] = {}

    @property
    def is_kept(self) -> bool:
        """Whether somebody has asked for it, so that it has to be kept up to date."""
        return bool(self._usages)

    def note(self, change: Holding) -> None:
        """Take note of a change that just happened."""
        for usage in self._usages.values():
            usage.note(change)

    def usage(self, half_life_s: float) -> Usage:
        """Return the usage by a half-life above 0."""
        found = self._usages.get(half_life_s)
        if found is None:
            found = self._usages[half_life_s] = Usage(half_life_s)
            for change in sorted(self._past()):
                found.note(change)
        return found


NO_HISTORY = History()
"""For those who know of none."""
