"""What happens in a soak, and when: all of it follows from a seed.

Which job is cancelled and which node dies depends on what runs by then, which no seed knows. So an act has a
``pick``, a number from 0 to 1, and whoever carries it out takes that one of the candidates.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Ending = Literal["completes", "fails"]

EXIT_CODE = 7
"""What a job that fails ends with."""

_SUBMITS_PER_S = 0.8
_MEAN_S, _LONGEST_S = 45.0, 180.0
"""How long a job takes."""
_CANCELS_PER_S = 0.1
_NODE_KILLS_PER_S = 1 / 20
_LEADER_KILLS_PER_S = 1 / 75
_LEADER_PAUSES_PER_S = 1 / 240
_SLURM_STOPS_PER_S = 1 / 400
_QUIET = (0.3, 0.8)
"""The part of the time in which the leader is left alone: what grows shows only in who lives long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Somebody submits a job: one on two whole nodes, or on a few devices of one."""

    at_s: float
    number: int
    devices: int
    lasts_s: float
    ending: Ending
    is_stubborn: bool
    """It does not stop when it is asked to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Somebody cancels a job that is not over."""

    at_s: float
    pick: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KillNode:
    """A node dies, with all that runs on it, and is back after ``down_s``."""

    at_s: float
    pick: float
    down_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KillLeader:
    """The leader gets SIGKILL, and another replica is started."""

    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseLeader:
    """The leader stands still for longer than its lease."""

    at_s: float
    lasts_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSlurm:
    """Slurm's controller is away for a while."""

    at_s: float
    lasts_s: float


Act = Submit | Cancel | KillNode | KillLeader | PauseLeader | StopSlurm


def plan(seed: int, span_s: float, most_devices: int) -> Sequence[Act]:
    """Return the acts of ``span_s`` seconds in order. ``most_devices``: the devices of a node."""
    chance = random.Random(seed)
    quiet = (span_s * _QUIET[0], span_s * _QUIET[1])
    acts: list[Act] = []

    def poisson(rate_per_s: float, act: Callable[[float], Act], *, spares_leader: bool = False) -> None:
        for at_s in _times(chance, rate_per_s, span_s):
            made = act(at_s)  # also where it is left out: the rest of the plan stays as it is
            if not (spares_leader and quiet[0] <= at_s < quiet[1]):
                acts.append(made)

    numbers, longest_s = itertools.count(), min(_LONGEST_S, span_s / 4)
    poisson(_SUBMITS_PER_S, lambda at_s: _submit(chance, at_s, next(numbers), most_devices, longest_s))
    poisson(_CANCELS_PER_S, lambda at_s: Cancel(at_s=at_s, pick=chance.random()))
    poisson(
        _NODE_KILLS_PER_S,
        lambda at_s: KillNode(at_s=at_s, pick=chance.random(), down_s=chance.uniform(0.5, 40.0)),
    )
    poisson(_LEADER_KILLS_PER_S, lambda at_s: KillLeader(at_s=at_s), spares_leader=True)
    poisson(
        _LEADER_PAUSES_PER_S,
        lambda at_s: PauseLeader(at_s=at_s, lasts_s=chance.uniform(4.0, 8.0)),
        spares_leader=True,
    )
    poisson(_SLURM_STOPS_PER_S, lambda at_s: StopSlurm(at_s=at_s, lasts_s=chance.uniform(2.0, 12.0)))
    return sorted(acts, key=lambda act: act.at_s)


def _submit(chance: random.Random, at_s: float, number: int, most_devices: int, longest_s: float) -> Submit:
    spans_two = chance.random() < 0.15
    return Submit(
        at_s=at_s,
        number=number,
        devices=2 * most_devices if spans_two else chance.randint(1, most_devices),
        lasts_s=min(longest_s, chance.expovariate(1 / _MEAN_S)),
        ending="fails" if chance.random() < 0.1 else "completes",
        is_stubborn=chance.random() < 0.1,
    )


def _times(chance: random.Random, rate_per_s: float, span_s: float) -> Iterator[float]:
    at_s = 0.0
    while (at_s := at_s - math.log(1.0 - chance.random()) / rate_per_s) < span_s:
        yield at_s
