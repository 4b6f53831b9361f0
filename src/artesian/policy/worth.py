"""Least waste: a job goes where what is left keeps most of its worth for the jobs that are yet to come.

Two things make what is free worthless. A device whose remainder no combination of usual shares fills is
wasted in part: the *worth* of a remainder is the best that can be put into it, at the price that each
size of share has in the best packing of the whole mix. And a device is stranded where its node's CPUs
run out: that is expected the more, the less CPU a node has for each device that is free on it.
Fragmentation gradient descent asks whether the *next* job has room; this asks what the node is good for
until it is full.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import erfc, exp, gcd, pi, sqrt

import numpy as np

from artesian.model.capacity import Capacity, IntArray
from artesian.model.resources import MILLI
from artesian.policy.fragmentation import descent
from artesian.policy.mix import Mix
from artesian.policy.scored import FloatArray, Scoring

_MOST_SIZES = 32
_SPREAD = 0.5
"""How much the CPU that a node's jobs want varies, relative to jobs drawn at random: a job picks its node
of many, and so evens out. 0.3 to 0.6 do alike (docs/decisions/0008-fragmentation.md)."""

_Z = np.linspace(-8.0, 8.0, 1025)
_LOSS = np.array([exp(-z * z / 2) / sqrt(2 * pi) - z * erfc(z / sqrt(2)) / 2 for z in _Z.tolist()])
"""By how much a standard normal variable exceeds z, in the mean: 0 where it does not."""


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """What a mix of jobs makes of the devices.

    ``worth_milli`` [1001] of what is left of a device; ``cpu_milli`` that goes with a device, mean, and
    the standard deviation of that with one device's worth of jobs. No CPU where no job says how much.
    """

    worth_milli: FloatArray
    cpu_milli: float
    cpu_milli_spread: float

    @classmethod
    def of(cls, mix: Mix) -> "Demand":
        """Return the demand of a mix."""
        using = mix.using_devices
        devices = sum(share * c.devices * c.milli for c, share in using) / MILLI
        mean = sum(share * c.cpu_milli for c, share in using) / devices if using else 0.0
        off = (share * (c.cpu_milli - mean * c.devices * c.milli / MILLI) ** 2 for c, share in using)
        return cls(
            worth_milli=worth_milli(prices(mix.sizes)),
            cpu_milli=mean,
            cpu_milli_spread=sqrt(sum(off) / devices) if using else 0.0,
        )

    def waste_milli(self, free_milli: IntArray, free_cpu_milli: IntArray) -> FloatArray:
        """Return what is lost [R, ...] of what is free [R, ..., D] with so much CPU [R, ...], expected."""
        worth: FloatArray = self.worth_milli[free_milli].sum(-1)
        waste: FloatArray = free_milli.sum(-1) - worth
        if self.cpu_milli:
            devices = worth / MILLI
            spread = np.maximum(np.sqrt(devices) * self.cpu_milli_spread * _SPREAD, 1.0)
            spare = free_cpu_milli - devices * self.cpu_milli
            # Beyond the table's ends what is short is either nothing or all of it.
            short = np.where(spare < -8 * spread, -spare, spread * np.interp(spare / spread, _Z, _LOSS))
            waste += np.minimum(worth, short / self.cpu_milli * MILLI)
        return waste


@dataclass(frozen=True, slots=True)
class LeastWaste:
    """Scores nodes by how little waste a job makes on them, given the mix of jobs."""

    mix: Mix

    def on(self, _: Capacity, /) -> Scoring:
        """Return the scores 0 to 100, the same on any nodes; a share goes to the device with the best."""
        demand = Demand.of(self.mix)
        return lambda wish, rows: descent(wish, rows, demand.waste_milli)


def worth_milli(price: dict[int, float]) -> FloatArray:
    """Return for 0 to 1000 free thousandths of a device the most that shares at these prices make of it.

    A whole device is worth 1000.
    """
    worth = MILLI * _knapsack(price, 1)[0]
    worth[MILLI] = MILLI
    return worth


def prices(sizes: dict[int, int]) -> dict[int, float]:
    """Return what each size of share costs in the best packing of all of them, in devices.

    ``sizes`` says how many there are of each size. The prices are the dual solution of the cutting stock problem (Gilmore
    and Gomory, 1961), by column generation: no combination of shares that fits one device costs more
    than one device, and the best packing uses only those that cost exactly that. Beyond the 32 most
    frequent sizes, a size costs what it takes.
    """
    return dict(_prices(tuple(sorted(sizes.items()))))


# A mix that is learnt changes hundreds of times while its shares stay as they are.
@lru_cache(maxsize=64)
def _prices(counts: tuple[tuple[int, int], ...]) -> tuple[tuple[int, float], ...]:
    sizes = dict(counts)
    ranked = sorted(sizes, key=lambda size: (-sizes[size], size))
    rare = {size: size / MILLI for size in ranked[_MOST_SIZES:]}
    known = sorted(ranked[:_MOST_SIZES])
    if not known:
        return ()
    step = gcd(MILLI, *known)
    basis = np.diag([float(MILLI // size) for size in known])
    count = np.array([sizes[size] for size in known], dtype=np.float64)
    price: FloatArray = np.zeros(len(known))
    # Each round brings one better pattern in; a bound on them for the case that rounding makes it circle.
    for _ in range(20 * len(known)):
        price = np.asarray(np.linalg.solve(basis.T, np.ones(len(known))), dtype=np.float64)
        pattern = _better_pattern(dict(zip(known, price.tolist(), strict=True)), step)
        if pattern is None:
            break
        used = np.linalg.solve(basis, count)
        change = np.linalg.solve(basis, pattern)
        ratio = np.where(change > 1e-9, used / np.where(change > 1e-9, change, 1.0), np.inf)
        basis[:, int(ratio.argmin())] = pattern
    return (*rare.items(), *zip(known, np.maximum(price, 0.0).tolist(), strict=True))


def _better_pattern(price: dict[int, float], step: int) -> FloatArray | None:
    """Return how many of each size to put on a device for more than its price; None if that is nowhere so.

    Or, where a size has a price below 0, that one less of it is asked for.
    """
    value, last = _knapsack(price, step)
    pattern = np.zeros(len(price))
    if value[-1] > 1 + 1e-9:
        place = {size: number for number, size in enumerate(price)}
        at = len(value) - 1
        while at > 0:
            size = int(last[at])
            if size:
                pattern[place[size]] += 1
            at -= max(size // step, 1)
        return pattern
    cheapest = min(price.values())
    if cheapest < -1e-9:
        pattern[list(price.values()).index(cheapest)] = -1
        return pattern
    return None


def _knapsack(price: dict[int, float], step: int) -> tuple[FloatArray, IntArray]:
    """Return the best value of 0, step, … 1000 thousandths, and the size that was put in last (0: none)."""
    value = np.zeros(MILLI // step + 1)
    last = np.zeros(len(value), dtype=np.int64)
    paid = [(size, size // step, cost) for size, cost in price.items() if cost > 0]
    for at in range(1, len(value)):
        best, which = float(value[at - 1]), 0
        for size, steps, cost in paid:
            if steps <= at and value[at - steps] + cost > best + 1e-12:
                best, which = float(value[at - steps]) + cost, size
        value[at], last[at] = best, which
    return value, last
