"""What teams have had of devices, of late more than long ago: each device-second counts by half with every half-life."""

import math
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

Holding = tuple[float, str, str, float]
"""At a time, in seconds, a team came to hold so many more devices of an accelerator, or (negative) fewer."""


class _Account(Struct, gc=False):
    """``had`` device-seconds by ``at_s``, decayed, and ``holds`` devices from then on."""

    had: float = 0.0
    holds: float = 0.0
    at_s: float = 0.0

    def had_by(self, at_s: float, mean_life_s: float) -> float:
        kept = math.exp(-max(0.0, at_s - self.at_s) / mean_life_s)
        return self.had * kept + self.holds * mean_life_s * (1.0 - kept)


class Usage:
    """By one half-life. Holding one device for ever comes to ``mean_life_s`` device-seconds."""

    def __init__(self, half_life_s: float) -> None:
        self.mean_life_s = half_life_s / math.log(2.0)
        self._accounts: dict[tuple[str, str], _Account] = {}

    def note(self, change: Holding) -> None:
        """Take note of a change, none of which comes before another that was noted already."""
        at_s, team, accelerator, devices = change
        account = self._accounts.setdefault((team, accelerator), _Account())
        account.had = account.had_by(at_s, self.mean_life_s)
        account.at_s = at_s
        account.holds += devices

    def devices(self, at_s: float) -> Mapping[tuple[str, str], float]:
        """Return how many devices of each accelerator each team has had in the decayed mean, by team and accelerator."""
        return {
            key: account.had_by(at_s, self.mean_life_s) / self.mean_life_s
            for key, account in self._accounts.items()
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
