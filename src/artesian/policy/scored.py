"""Placements that score the nodes: a job goes to the best node of those that have room for it.

A score says of each node how well the job would go there, the higher the better; ties go to the first
node. ``Scored`` makes a Place of a score. It scores a node anew only when something on it has changed, so
that a placement costs the same however many nodes there are that nobody touched. That is right only
for scores that depend on nothing but the wish and the node itself.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
import numpy.typing as npt

from artesian.model.capacity import BoolArray, Capacity, IntArray, share_kind
from artesian.model.job import Job
from artesian.model.placement import NodeShare, Placement
from artesian.model.resources import MILLI, DeviceRequest
from artesian.policy.place import place_gang

FloatArray = npt.NDArray[np.float64]

CPUS_OF_LARGEST_NODE_MILLI = 128 * MILLI
DEVICES_OF_LARGEST_NODE = 8
"""What best fit and dot product measure CPUs and devices by; those of the largest node of openb."""

_MOST_BOARDS = 1024


@dataclass(frozen=True, slots=True)
class Wish:
    """What a job wants of one node: ``milli`` of each of ``devices`` devices, CPUs and memory in all.

    A share is one device with less than 1000 milli; a job that wants no device has 0 of both.
    """

    devices: int
    milli: int
    cpu_milli: int
    memory_bytes: int

    @classmethod
    def of(
        cls, request: DeviceRequest, cpus_per_device: float | None, memory_bytes_per_device: int | None = None
    ) -> "Wish":
        """Return what is wanted under a request, the most of it, and all on one node."""
        rations = max(1, request.max_devices)
        return cls(
            devices=request.max_devices,
            milli=request.max_milli if request.is_fraction else MILLI * min(1, request.max_devices),
            cpu_milli=round((cpus_per_device or 0) * MILLI) * rations,
            memory_bytes=(memory_bytes_per_device or 0) * rations,
        )

    @property
    def is_share(self) -> bool:
        """Whether it is for a share of one device."""
        return 0 < self.milli < MILLI

    @property
    def total_milli(self) -> int:
        """Thousandths of a device in all."""
        return self.devices * self.milli


@dataclass(frozen=True, slots=True)
class Rows:
    """R nodes of a capacity, as a score sees them.

    ``row`` [R] are their rows. ``free_milli`` [R, D] counts nothing where there is no device.
    """

    capacity: Capacity
    row: IntArray
    free_milli: IntArray

    @classmethod
    def of(cls, capacity: Capacity, row: IntArray) -> "Rows":
        """Return these rows of the capacity."""
        return cls(capacity, row, np.maximum(capacity.free_milli[row], 0).astype(np.int64))

    @property
    def free_cpu_milli(self) -> IntArray:
        """Thousandths of a CPU free [R]."""
        return self.capacity.free_cpu_milli[self.row]

    @property
    def free_whole(self) -> IntArray:
        """Devices [R] of which nothing is taken."""
        return self.capacity.free_whole[self.row]

    @property
    def devices(self) -> IntArray:
        """Devices [R] that the nodes have."""
        return self.capacity.devices[self.row]


class Score(Protocol):
    """Says how well the job would go on each node: equal for equal wishes and equal nodes."""

    def __call__(self, wish: Wish, rows: Rows) -> IntArray:
        """Return the scores [R], the higher the better. What it says of nodes without room is not used."""
        ...


class Scoring(Protocol):
    """A score that also says which device a share goes to."""

    def __call__(self, wish: Wish, rows: Rows) -> tuple[IntArray, IntArray | None]:
        """Return the scores [R], and the device [R] that a share goes to; None for the tightest."""
        ...


class Scorer(Protocol):
    """Makes a scoring for a fleet."""

    def on(self, capacity: Capacity, /) -> Scoring:
        """Return the scoring of these nodes; it holds for as long as they stay, whatever is free on them."""
        ...


def best_fit(wish: Wish, rows: Rows) -> IntArray:
    """Prefer the nodes that are left with the fewest CPUs and devices."""
    cpu = (rows.free_cpu_milli - wish.cpu_milli) / CPUS_OF_LARGEST_NODE_MILLI
    device = (rows.free_milli.sum(1) - wish.total_milli) / (DEVICES_OF_LARGEST_NODE * MILLI)
    return _floor(100 * (1 - cpu / 2 - device / 2))


def dot_product(wish: Wish, rows: Rows) -> IntArray:
    """Prefer the nodes whose free CPUs and devices point least the way of the wish."""
    cpu = rows.free_cpu_milli * wish.cpu_milli / CPUS_OF_LARGEST_NODE_MILLI**2
    device = rows.free_milli.sum(1) * wish.total_milli / (DEVICES_OF_LARGEST_NODE * MILLI) ** 2
    return _floor(100 * (1 - cpu / 2 - device / 2))


def packing(wish: Wish, rows: Rows) -> IntArray:
    """Prefer devices in use, then nodes in use, then nodes with few devices (GpuPacking of FGD's authors).

    For jobs without devices all nodes are alike.
    """
    if not wish.devices:
        return np.zeros(len(rows.row), dtype=np.int64)
    free, whole = rows.free_milli, rows.free_whole
    if wish.is_share:
        tightest = np.where(free >= wish.milli, free, MILLI).min(1, initial=MILLI)
        opened = (tightest == MILLI).astype(np.int64)
        used_free = np.where(opened == 1, 0, tightest)
    else:
        opened = np.full(len(whole), wish.devices)
        used_free = np.zeros(len(whole), dtype=np.int64)
    in_use = np.maximum(100 - used_free // 100, 50)
    opens = np.maximum(50 - opened, 33)
    empty = np.maximum(33 - rows.devices, rows.devices)
    return np.where(whole == rows.devices, empty, np.where(opened > 0, opens, in_use))


def clustering(wish: Wish, rows: Rows) -> IntArray:
    """Prefer nodes where only jobs of as many devices run (GpuClustering of FGD's authors).

    For jobs without devices all nodes are alike.
    """
    if not wish.devices:
        return np.zeros(len(rows.row), dtype=np.int64)
    runs = rows.capacity.attempts[rows.row] > 0
    runs[:, share_kind(0)] = False
    alike = runs[:, share_kind(wish.devices, wish.milli)]
    others = runs.sum(1) > alike
    any_devices = np.where(alike, np.where(others, 50, 75), np.where(others, 0, 25))
    return any_devices + _floor(25 * (1 - rows.free_milli.sum(1) / (DEVICES_OF_LARGEST_NODE * MILLI)))


def spread(wish: Wish, rows: Rows) -> IntArray:
    """Prefer the nodes that are left with the most devices, then CPUs: neighbours disturb each other least."""
    devices: IntArray = rows.free_milli.sum(1) - wish.total_milli
    return devices * 2**32 + (rows.free_cpu_milli - wish.cpu_milli)


@dataclass(frozen=True, slots=True)
class Fit:
    """A scorer of a score; a share goes to the tightest device."""

    score: Score

    def on(self, _: Capacity, /) -> Scoring:
        """Return the scoring, which is the same on any nodes."""
        return lambda wish, rows: (self.score(wish, rows), None)


class Board:
    """What each node scores for one wish: ``value`` [N], lowest where there is no room; ``device`` [N]."""

    WORST = np.iinfo(np.int64).min

    def __init__(self, scoring: Scoring, wish: Wish, capacity: Capacity) -> None:
        self._scoring, self._wish = scoring, wish
        self.value: IntArray = np.full(len(capacity.nodes), self.WORST, dtype=np.int64)
        self.device: npt.NDArray[np.int16] = np.zeros(len(capacity.nodes), dtype=np.int16)
        self._seen = -1

    def update(self, capacity: Capacity) -> None:
        """Score the nodes anew that have changed."""
        if self._seen == capacity.changes:
            return
        row: IntArray = np.flatnonzero(capacity.changed > self._seen)
        self._seen = capacity.changes
        self.value[row] = self.WORST
        row = row[has_room(self._wish, capacity, row)]
        if not row.size:
            return
        rows = Rows.of(capacity, row)
        value, device = self._scoring(self._wish, rows)
        self.value[row] = value
        if self._wish.is_share:
            self.device[row] = _tightest(self._wish, rows) if device is None else device


class Boards:
    """The boards of one scorer on one capacity, by wish: those used last."""

    def __init__(self, scorer: Scorer, capacity: Capacity) -> None:
        self._scoring = scorer.on(capacity)
        self._boards: dict[Wish, Board] = {}

    def best(self, wish: Wish, capacity: Capacity, allowed: BoolArray) -> Placement | None:
        """Return the placement on the best of the nodes where ``allowed`` [N] holds; None without room."""
        if not allowed.size:
            return None
        board = self._boards.pop(wish, None) or Board(self._scoring, wish, capacity)
        self._boards[wish] = board  # the one used last is the last
        if len(self._boards) > _MOST_BOARDS:
            del self._boards[next(iter(self._boards))]
        board.update(capacity)
        value = np.where(allowed, board.value, board.WORST)
        row = int(value.argmax())
        if value[row] == board.WORST:
            return None
        return placement_on(row, wish, capacity, int(board.device[row]))


@dataclass(frozen=True, slots=True)
class Scored:
    """Put a job on the best-scored of the nodes that have room for all of it; ties go to the first.

    Alternatives are tried in the job's own order. An elastic job gets its most devices on one node
    or is placed as ``Pack`` does it, and so is a gang that no single node holds.
    """

    scorer: Scorer

    def place(self, job: Job, capacity: Capacity, allowed: BoolArray) -> Placement | None:
        """Return where the job goes, or None when no alternative fits on the allowed nodes."""
        boards = capacity.remember(("boards", self.scorer), lambda: Boards(self.scorer, capacity))
        return place_by(boards, job, capacity, allowed)


def place_by(boards: Boards, job: Job, capacity: Capacity, allowed: BoolArray) -> Placement | None:
    """Return where these scores put the job, or None when no alternative fits on the allowed nodes."""
    for request in job.devices:
        wish = Wish.of(request, job.cpus_per_device, job.memory_bytes_per_device)
        placement = boards.best(wish, capacity, allowed & capacity.eligible(request))
        if placement is None and request.max_devices > 1:
            placement = place_gang(job, request, capacity, allowed)
        if placement is not None:
            return placement
    return None


@dataclass(frozen=True, slots=True)
class Anywhere:
    """Put a job on any node that has room, and a share on any device of it: the same for the same job id."""

    seed: int = 0

    def place(self, job: Job, capacity: Capacity, allowed: BoolArray) -> Placement | None:
        """Return where the job goes, or None when no alternative fits on the allowed nodes."""
        for request in job.devices:
            wish = Wish.of(request, job.cpus_per_device, job.memory_bytes_per_device)
            row = np.flatnonzero(allowed & capacity.eligible(request))
            row = row[has_room(wish, capacity, row)]
            if row.size:
                draw = int.from_bytes(blake2b(f"{self.seed} {job.id}".encode(), digest_size=8).digest())
                chosen = int(row[draw % row.size])
                device = 0
                if wish.is_share:
                    suitable = np.flatnonzero(capacity.free_milli[chosen] >= wish.milli)
                    device = int(suitable[draw // row.size % suitable.size])
                return placement_on(chosen, wish, capacity, device)
            if request.max_devices > 1 and (placement := place_gang(job, request, capacity, allowed)):
                return placement
        return None


def has_room(wish: Wish, capacity: Capacity, row: IntArray) -> BoolArray:
    """Return which of the rows [R] have free what is wished for."""
    room = (capacity.free_cpu_milli[row] >= wish.cpu_milli) & (
        capacity.free_memory_bytes[row] >= wish.memory_bytes
    )
    if wish.is_share:
        room &= capacity.free_milli[row].max(1, initial=0) >= wish.milli
    elif wish.devices:
        room &= capacity.free_whole[row] >= wish.devices
    return room


def placement_on(row: int, wish: Wish, capacity: Capacity, device: int) -> Placement:
    """Return the placement on this node: a share on ``device``, whole devices in the order of their index."""
    if wish.is_share:
        devices: tuple[int, ...] = (device,)
    else:
        devices = tuple(np.flatnonzero(capacity.free_milli[row] == MILLI)[: wish.devices].tolist())
    share = NodeShare(node_id=capacity.nodes[row].id, devices=devices, milli=wish.milli or MILLI)
    return Placement(shares=(share,))


def _tightest(wish: Wish, rows: Rows) -> IntArray:
    """Return the device [R] with the least left that suffices."""
    device: IntArray = np.where(rows.free_milli >= wish.milli, rows.free_milli, MILLI + 1).argmin(1)
    return device


def _floor(score: FloatArray) -> IntArray:
    return np.floor(score).astype(np.int64)
