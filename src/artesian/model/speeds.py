"""How fast jobs were measured to run: steps per second, by family of jobs, model of device and number of devices.

Jobs of one *family* do the same work, so that what one of them shows holds for the next: jobs with the same
``profile``, or, where a job names none, of the same user, name and command.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from msgspec import Struct
from msgspec.structs import replace

from artesian.model.job import Job

_FORGET_S = 6 * 3600.0
"""Of more than so much time, the older half counts by half: data and software change, and speeds with them."""
_MOST = 10_000
_DIGITS = 3
"""Speeds are told to so many significant digits: who decides by them is not to decide anew for noise."""


class Speed(Struct, frozen=True, kw_only=True, gc=False):
    """Jobs of the family did ``steps`` in ``seconds`` of training on so many devices of the accelerator."""

    family: str
    accelerator: str
    devices: float
    steps: float
    seconds: float

    @property
    def steps_per_s(self) -> float:
        """Steps of the whole gang per second."""
        return float(f"{self.steps / self.seconds:.{_DIGITS}g}")


def family_of(job: Job) -> str:
    """Return what all jobs have in common that are taken to do the same work in each step."""
    if job.profile is not None:
        return job.profile
    command = blake2b("\0".join(job.command).encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return f"{job.user}/{job.name}/{command}"


_Key = tuple[str, str, float]


class Speeds:
    """What was measured, the last measured first to stay: at most 10,000 combinations are kept."""

    def __init__(self, known: Iterable[Speed] = ()) -> None:
        self._known: dict[_Key, Speed] = {}
        self._of: dict[str, dict[_Key, Speed]] = {}
        for speed in known:
            self._put(speed)

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Speed]:
        return iter(self._known.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Speeds) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def add(self, more: Speed) -> None:
        """Take note of what was measured since the last time."""
        known = self._known.pop((more.family, more.accelerator, more.devices), None)
        if known is not None:
            weight = 0.5 if known.seconds > _FORGET_S else 1.0
            more = replace(
                more,
                steps=more.steps + weight * known.steps,
                seconds=more.seconds + weight * known.seconds,
            )
        self._put(more)
        if len(self._known) > _MOST:
            oldest = next(iter(self._known))
            del self._known[oldest], self._of[oldest[0]][oldest]
            if not self._of[oldest[0]]:
                del self._of[oldest[0]]

    def _put(self, speed: Speed) -> None:
        key = (speed.family, speed.accelerator, speed.devices)
        self._known[key] = self._of.setdefault(speed.family, {})[key] = speed

    def steps_per_s(self, family: str, accelerator: str, devices: float) -> float | None:
        """Return how fast jobs of the family were on so many devices; None where none was measured there."""
        known = self._known.get((family, accelerator, devices))
        return None if known is None else known.steps_per_s

    def of(self, family: str) -> list[Speed]:
        """Return all that was measured of the family, by accelerator and devices."""
        found = self._of.get(family, {})
        return sorted(found.values(), key=lambda speed: (speed.accelerator, speed.devices))


NOTHING_MEASURED = Speeds()
"""For those who know of none; nobody adds to it."""
