"""Fragmentation gradient descent: a job goes where it makes the least of what is free useless for others.

Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient
Descent", USENIX ATC 2023.
"""

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from artesian.model.capacity import BoolArray, Capacity, IntArray
from artesian.model.resources import MILLI
from artesian.policy.mix import Mix
from artesian.policy.scored import FloatArray, Rows, Scoring, Wish


@dataclass(frozen=True, slots=True)
class Gradient:
    """Scores nodes by how little their expected fragment grows, given the mix of jobs.

    A node's fragment for a class of jobs is what is free of its devices and no use for the class: all of
    it where the class has no room, else what is free on devices too small for it. Memory is not looked at.
    """

    mix: Mix

    def on(self, capacity: Capacity, /) -> Scoring:
        """Return the scores 0 to 100 on these nodes; a share goes to the device with the best."""
        classes = _Classes.of(self.mix, capacity)
        return lambda wish, rows: descent(wish, rows, partial(classes.fragment_milli, rows.row))


class Potential(Protocol):
    """What is lost on a node, as a function of what is free on it."""

    def __call__(self, free_milli: IntArray, free_cpu_milli: IntArray) -> FloatArray:
        """Return the loss [R, ...] in thousandths of a device, with so much free [R, ..., D] and [R, ...]."""
        ...


def descent(wish: Wish, rows: Rows, potential: Potential) -> tuple[IntArray, IntArray | None]:
    """Return scores [R], 0 to 100, for how little the potential grows; 50 where it stays the same.

    For a share it tries each device, and returns [R] the best, of equals the first. One point is 40
    thousandths of a device or more: smaller differences are not worth opening another node for.
    """
    free, cpu = rows.free_milli, rows.free_cpu_milli
    before = potential(free, cpu)
    left = cpu - wish.cpu_milli
    if not wish.is_share:
        return _score(before - potential(_without_whole(free, wish.devices), left)), None
    trials = free[:, None, :] - wish.milli * np.eye(free.shape[1], dtype=np.int64)
    after = potential(np.maximum(trials, 0), np.broadcast_to(left[:, None], free.shape))
    score = np.where(free >= wish.milli, _score(before[:, None] - after), -1)
    return score.max(1), score.argmax(1)


@dataclass(frozen=True, slots=True, eq=False)
class _Classes:
    """The C classes of a mix that want devices, as arrays; their M different sizes of device.

    ``suits`` [N, C] says which nodes have devices of the right kind.
    """

    sizes: IntArray
    size_of: IntArray
    devices: IntArray
    cpu_milli: IntArray
    share: FloatArray
    suits: BoolArray

    @classmethod
    def of(cls, mix: Mix, capacity: Capacity) -> "_Classes":
        using = mix.using_devices
        sizes = np.array(sorted({c.milli for c, _ in using}), dtype=np.int64)
        suits = np.ones((len(capacity.nodes), len(using)), dtype=np.bool_)
        for column, (found, _) in enumerate(using):
            suits[:, column] = np.logical_or.reduce([capacity.eligible(wish) for wish in found.requests])
        return cls(
            sizes=sizes,
            size_of=np.searchsorted(sizes, np.array([c.milli for c, _ in using], dtype=np.int64)),
            devices=np.array([c.devices for c, _ in using], dtype=np.int64),
            cpu_milli=np.array([c.cpu_milli for c, _ in using], dtype=np.int64),
            share=np.array([share for _, share in using], dtype=np.float64),
            suits=suits,
        )

    def fragment_milli(self, row: IntArray, free_milli: IntArray, free_cpu_milli: IntArray) -> FloatArray:
        """Return the expected fragment [R, ...]; classes without devices find all of it useless."""
        is_enough = free_milli[..., None] >= self.sizes  # [R, ..., D, M]
        held = np.einsum("...dm,...d->...m", is_enough, free_milli)
        has_devices = is_enough.sum(-2)[..., self.size_of] >= self.devices  # [R, ..., C]
        suits = self.suits[row]
        suits = suits.reshape(len(row), *(1,) * (has_devices.ndim - 2), suits.shape[1])
        fits = has_devices & (free_cpu_milli[..., None] >= self.cpu_milli) & suits
        useful: FloatArray = (fits * held[..., self.size_of]) @ self.share
        fragment: FloatArray = free_milli.sum(-1) - useful
        return fragment


def _without_whole(free_milli: IntArray, devices: int) -> IntArray:
    """Return what is free [R, D] once the first ``devices`` wholly free devices are taken."""
    whole = free_milli == MILLI
    return np.where(whole & (whole.cumsum(1) <= devices), 0, free_milli)


def _score(gain_milli: FloatArray) -> IntArray:
    # Rounded first: a gain that is nothing but noise in the last bits must not lose a point.
    gain = np.round(gain_milli, 6)
    return np.floor(100 / (1 + np.exp(-gain / MILLI))).astype(np.int64)
