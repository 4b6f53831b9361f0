"""What is free on which node, as arrays: a fleet of 10,000 nodes is looked through at once."""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from artesian.model.ends import Ends, Times, view
from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.levels import Levels, bits
from artesian.model.placement import NodeShare, Placement
from artesian.model.resources import MILLI, DeviceRequest
from artesian.model.usage import Usage

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

T = TypeVar("T")

_ABSENT = -1


class Capacity:
    """Free devices, CPUs and memory of every node; N nodes with at most D devices each.

    ``free_milli`` [N, D]: thousandths free of each device (-1 where the node has no such device).
    ``free_whole`` [N]: devices of which nothing is taken. ``free_cpu_milli``, ``free_memory_bytes`` [N].
    ``kind`` [N] numbers the models of device, from 0: a gang runs on devices of one model.
    ``attempts`` [N, D + 2] counts what runs there: shares of a device, host only, then attempts that hold
    1 … D devices. ``changed`` [N] is the number of the last change to the row, ``changes`` that of the last
    change to any: what was worked out for a row holds until its number grows.
    ``free_by_kind`` [K] counts the devices of each kind of which nothing is taken, on lost nodes too.
    ``levels`` has the nodes by ``free_whole``, and ``open_devices`` counts the devices of which anything is free, on
    lost nodes too.
    A node that is lost has ``is_up`` False and keeps its row: what runs there is still accounted for.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes = tuple(nodes)
        self.row = {node.id: row for row, node in enumerate(self.nodes)}
        width = max((node.devices for node in self.nodes), default=0)
        self.devices: IntArray = np.array([node.devices for node in self.nodes], dtype=np.int64)
        self.free_milli = np.full((len(self.nodes), width), _ABSENT, dtype=np.int16)
        self.free_milli[np.arange(width) < self.devices[:, None]] = MILLI
        self.free_whole = self.devices.copy()
        self._width = width
        self.levels = Levels(self.free_whole, width)
        self.open_devices = int(self.devices.sum())
        self._ends = Ends(self.free_milli != _ABSENT)
        self._cpu_milli: IntArray = np.array([node.cpus * MILLI for node in self.nodes], dtype=np.int64)
        self._memory_bytes: IntArray = np.array([node.memory_bytes for node in self.nodes], dtype=np.int64)
        self.free_cpu_milli = self._cpu_milli.copy()
        self.free_memory_bytes = self._memory_bytes.copy()
        self.is_up: BoolArray = np.ones(len(self.nodes), dtype=np.bool_)
        self.attempts: IntArray = np.zeros((len(self.nodes), width + 2), dtype=np.int64)
        self.changed: IntArray = np.zeros(len(self.nodes), dtype=np.int64)
        self.changes = 0
        models: dict[tuple[str | None, str], int] = {}
        self.kind: IntArray = np.array(
            [models.setdefault((node.vendor, node.accelerator), len(models)) for node in self.nodes],
            dtype=np.int64,
        )
        self.free_by_kind = np.bincount(self.kind, weights=self.devices).astype(int).tolist()
        self.kinds = len(models)
        self._usage = Usage(self.kinds)
        self._eligible: dict[tuple[str | None, str | None, int | None], BoolArray] = {}
        self._remembered: dict[Hashable, Any] = {}
        self._look_into()

    def _look_into(self) -> None:
        """Make views through which single figures are read and written several times faster than through numpy."""
        self._free = view(self.free_milli)
        self._whole = view(self.free_whole)
        self._free_cpu, self._free_memory = view(self.free_cpu_milli), view(self.free_memory_bytes)
        self._counts, self._changed = view(self.attempts), view(self.changed)
        self._kinds: list[int] = self.kind.tolist()  # looked up one by one, a list is quicker

    @property
    def used(self) -> Mapping[tuple[str, int], list[int]]:
        """What the jobs of each team and priority hold: see ``Usage``."""
        return self._usage.used

    @property
    def held(self) -> Mapping[tuple[tuple[DeviceRequest, ...], float | None], int]:
        """How many attempts there are of jobs that ask for the same: see ``Usage``."""
        return self._usage.held

    @property
    def mix_changes(self) -> int:
        """A number that grows with the mix of jobs that run: see ``Usage``."""
        return self._usage.mix_changes

    def trial(self) -> "Trial":
        """Let a policy take things to see what is left; all that it took is given back at the end of ``with``."""
        return Trial(self)

    @contextmanager
    def within(self, nodes: BoolArray, key: Hashable) -> Iterator[None]:
        """Have nothing start but on ``nodes`` [N] for a while; ``key`` stands for them in what is remembered."""
        is_up, remembered = self.is_up, self._remembered
        self.is_up = is_up & nodes
        self._remembered = remembered.setdefault(("within", key), {})
        try:
            yield
        finally:
            self.is_up, self._remembered = is_up, remembered

    def set_up(self, node_id: str, is_up: bool) -> None:
        """Say whether attempts may start on the node."""
        self.is_up = self.is_up.copy()  # whoever holds the old one has what it was
        self.is_up[self.row[node_id]] = is_up
        self._remembered.clear()

    def occupy(self) -> None:
        """Count what others occupy as not free, until nobody knows when. To be called once ours is taken.

        An engine may say that a device is occupied while an attempt of ours is on its way there: it keeps
        what it has, and what is left of the device is not for others of ours.
        """
        for row, node in enumerate(self.nodes):
            if node.occupied:
                devices = list(node.occupied)
                self.free_milli[row, devices] = 0
                self.free_whole[row] = np.count_nonzero(self.free_milli[row] == MILLI)
                for device in devices:
                    self._ends.put(row, device, -math.inf, math.inf)
        self.levels = Levels(self.free_whole, self._width)
        self.open_devices = int(np.count_nonzero(self.free_milli > 0))

    def remember(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return what ``compute`` returns, computed once per ``key`` for as long as the nodes stay the same.

        It must not depend on what is free.
        """
        if key not in self._remembered:
            self._remembered[key] = compute()
        found: T = self._remembered[key]
        return found

    def copy(self) -> "Capacity":
        """Return a copy of its own."""
        twin = object.__new__(Capacity)
        twin.nodes, twin.row, twin.devices, twin.kind = self.nodes, self.row, self.devices, self.kind
        twin._cpu_milli, twin._memory_bytes = self._cpu_milli, self._memory_bytes
        twin.free_milli, twin.free_whole = self.free_milli.copy(), self.free_whole.copy()
        twin._width, twin._eligible = self._width, self._eligible
        twin.levels, twin.open_devices = self.levels.copy(), self.open_devices
        twin._ends = self._ends.copy()
        twin.free_cpu_milli = self.free_cpu_milli.copy()
        twin.free_memory_bytes = self.free_memory_bytes.copy()
        twin.is_up, twin.attempts = self.is_up.copy(), self.attempts.copy()
        twin.changed, twin.changes = self.changed.copy(), self.changes
        twin.kinds, twin._usage, twin.free_by_kind = self.kinds, self._usage.copy(), list(self.free_by_kind)
        twin._remembered = {}
        twin._look_into()
        return twin

    def eligible(self, request: DeviceRequest) -> BoolArray:
        """Return which nodes [N] have devices of the kind that ``request`` names, free or not; not to be changed."""
        key = (request.vendor, request.accelerator, request.memory_bytes)
        return self.remember(("eligible", key), lambda: self._of_kind(request, key) & self.is_up)

    def eligible_bits(self, request: DeviceRequest, allowed: BoolArray) -> int:
        """Return the same as a set of bits (see ``levels``), of the nodes where ``allowed`` [N] holds."""
        key = (request.vendor, request.accelerator, request.memory_bytes)
        rows = self.remember(("eligible bits", key), lambda: bits(self.eligible(request)))
        return rows if allowed is self.is_up else rows & bits(allowed)

    def kind_bits(self) -> tuple[int, ...]:
        """Return the nodes of each kind as sets of bits."""
        return self.remember(
            "kind bits", lambda: tuple(bits(self.kind == kind) for kind in range(self.kinds))
        )

    def _of_kind(self, request: DeviceRequest, key: tuple[str | None, str | None, int | None]) -> BoolArray:
        mask = self._eligible.get(key)
        if mask is None:
            kinds: dict[tuple[str | None, str, int | None], bool] = {}
            mask = np.zeros(len(self.nodes), dtype=np.bool_)
            for row, node in enumerate(self.nodes):
                kind = (node.vendor, node.accelerator, node.device_memory_bytes)
                if kind not in kinds:
                    kinds[kind] = request.suits(node)
                mask[row] = kinds[kind]
            self._eligible[key] = mask
        return mask

    def startable(self, job: Job, request: DeviceRequest) -> IntArray:
        """Return how many whole devices [N] of each node the job could have now.

        Zero on nodes of another kind; limited by the CPUs and the memory that the job wants with each.
        For a job that wants no device it is 1 where the host has room for it.
        """
        owned = 1 if request.is_host_only else self.free_whole
        count: IntArray = np.where(self.eligible(request), owned, 0)
        return np.minimum(count, self.hosted(job)) if job.wants_host else count

    def has_free(self, row: int, share: NodeShare) -> bool:
        """Return whether all that the share takes of the devices of its node, in this row, is free."""
        free, milli = self._free, share.milli
        return not any([free[row, device] < milli for device in share.devices])  # noqa: C419  quicker so

    def whole_devices(self, row: int, count: int) -> tuple[int, ...]:
        """Return the first ``count`` devices of the node in this row of which nothing is taken; fewer if there are."""
        free = self._free
        whole = [device for device in range(self._width) if free[row, device] == MILLI]
        return tuple(whole[:count])

    def by_kind(self, count: IntArray) -> IntArray:
        """Return the sums [K] of ``count`` [N] over the nodes of each kind; K is at least 1."""
        sums: IntArray = np.zeros(int(self.kind.max(initial=0)) + 1, dtype=np.int64)
        np.add.at(sums, self.kind, count)
        return sums

    def hosted(self, job: Job) -> IntArray:
        """Return for how many devices [N] each node's free CPUs and memory suffice, as the job wants them."""
        return self._hosted(job, self.free_cpu_milli, self.free_memory_bytes)

    def ownable(self, job: Job, request: DeviceRequest) -> IntArray:
        """Return how many whole devices [N] of each node the job could have if the fleet were empty."""
        owned = 1 if request.is_host_only else self.devices
        count: IntArray = np.where(self.eligible(request), owned, 0)
        return np.minimum(count, self._hosted(job, self._cpu_milli, self._memory_bytes))

    @staticmethod
    def _hosted(job: Job, cpu_milli: IntArray, memory_bytes: IntArray) -> IntArray:
        count: IntArray = np.full_like(cpu_milli, np.iinfo(np.int64).max)
        if job.cpus_per_device is not None:
            count = np.minimum(count, cpu_milli // round(job.cpus_per_device * MILLI))
        if job.memory_bytes_per_device is not None:
            count = np.minimum(count, memory_bytes // job.memory_bytes_per_device)
        # A node that joins again with fewer CPUs than are in use has less than none free.
        return np.maximum(count, 0)

    def fits(self, job: Job, placement: Placement) -> bool:
        """Return whether all that the placement takes is free, on nodes that are up."""
        hosted = self.hosted(job) if job.wants_host else None
        for share in placement.shares:
            row = self.row[share.node_id]
            if not self.is_up[row]:
                return False
            if hosted is not None and hosted[row] < max(1, len(share.devices)):
                return False
            if any(self.free_milli[row, device] < share.milli for device in share.devices):
                return False
        return True

    def take(self, job: Job, placement: Placement) -> None:
        """Mark the placement's devices, CPUs and memory as taken by the job: all, or on an error none."""
        self._change_all(job, placement, -1)

    def give(self, job: Job, placement: Placement) -> None:
        """Give back what ``take`` took: all, or on an error none."""
        self._change_all(job, placement, +1)

    def expect(self, job: Job, placement: Placement, since_s: float) -> None:
        """Say since when the job holds a placement that was just taken: its estimate tells for how long."""
        end_s = math.inf if job.estimated_duration_s is None else since_s + job.estimated_duration_s
        for share in placement.shares:
            self._ends.hold(self.row[share.node_id], share, job.id, since_s, end_s)

    def expected_ends_s(self, at_s: float) -> FloatArray:
        """Return when each device [N, D] comes free, as seen at ``at_s``; -inf where it is. Not to be changed."""
        return self._ends.expected_s(at_s)

    def _change_all(self, job: Job, placement: Placement, sign: int) -> None:
        # All is checked before anything is changed: whoever catches the error goes on with what is true.
        free = self._free
        for share in placement.shares:
            row, change = self.row[share.node_id], sign * share.milli
            least, most = (-change, MILLI) if change < 0 else (0, MILLI - change)
            for device in share.devices:
                assert least <= free[row, device] <= most, (
                    f"device {share.node_id}[{','.join(map(str, share.devices))}] is oversubscribed"
                )
        for share in placement.shares:
            row = self.row[share.node_id]
            self._change(job, row, share, sign)
        self._usage.count(job, placement, self._kinds[row], -sign)  # one kind: a gang does not mix them

    def charge(self, job: Job, placement: Placement, sign: int) -> None:
        """Keep ``used``: count the placement in (+1) or out (-1)."""
        kind = self._kinds[self.row[placement.shares[0].node_id]]
        self._usage.charge(job, placement, kind, sign)

    def _change(self, job: Job, row: int, share: NodeShare, sign: int) -> None:
        devices, change = share.devices, sign * share.milli
        free = self._free
        whole = opened = 0
        for device in devices:
            before = free[row, device]
            free[row, device] = after = before + change
            if after == MILLI:
                whole += 1
                self._ends.clear(row, device)
            elif before == MILLI:
                whole -= 1
            if not before:
                opened += 1
            elif not after:
                opened -= 1
        self.open_devices += opened
        if whole:
            had = self._whole[row]
            self._whole[row] = had + whole
            self.levels.move(row, had, had + whole)
            self.free_by_kind[self._kinds[row]] += whole
        if job.wants_host:
            rations = max(1, len(devices))
            self._free_cpu[row] += sign * round((job.cpus_per_device or 0) * MILLI) * rations
            self._free_memory[row] += sign * (job.memory_bytes_per_device or 0) * rations
        if sign > 0 and share.milli < MILLI:
            self._ends.leave(row, share, job.id)
        column = len(devices) + 1
        self._counts[row, column if column == 1 or share.milli == MILLI else 0] -= sign
        self.changes += 1
        self._changed[row] = self.changes


def share_kind(devices: int, milli: int = MILLI) -> int:
    """Return the column of ``Capacity.attempts`` that counts shares of a node like this one."""
    if devices == 0:
        return 1
    return 0 if milli < MILLI else devices + 1


Taken = tuple[Job, Placement, int, float | None, list[Times]]
"""What a trial took (+1) or gave back (-1) for a job, from when on, if it was told, and how that was held before."""


class Trial:
    """A capacity that a policy tries things out on."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._taken: list[Taken] = []
        self._charged: list[tuple[Job, Placement, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def take(self, job: Job, placement: Placement, *, at_s: float | None = None) -> None:
        """Take the placement's devices for the job, until the trial is over; from ``at_s`` on, if that matters."""
        # What a device that was free was held by before that does not matter.
        times = self._times(placement) if placement.shares[0].milli < MILLI else []
        self.capacity.take(job, placement)
        self._taken.append((job, placement, +1, at_s, times))
        if at_s is not None:
            self.capacity.expect(job, placement, at_s)

    def give(self, job: Job, placement: Placement) -> None:
        """Give back what a job holds, until the trial is over: what if it ended?"""
        times = self._times(placement)
        self.capacity.give(job, placement)
        self._taken.append((job, placement, -1, None, times))

    def charge(self, job: Job, placement: Placement, sign: int) -> None:
        """Count the placement among what the job's team uses (+1), or no more (-1), whoever holds it."""
        self.capacity.charge(job, placement, sign)
        self._charged.append((job, placement, sign))

    @property
    def taken(self) -> Sequence[Taken] | None:
        """What it has taken and given back so far, in order; None where that is not all that it has changed."""
        return None if self._charged else self._taken

    def keep(self) -> None:
        """Have all stay taken: it has happened."""
        self._taken, self._charged = [], []

    def undo(self) -> None:
        """Put everything back as it was."""
        while self._charged:
            job, placement, sign = self._charged.pop()
            self.capacity.charge(job, placement, -sign)
        while self._taken:
            job, placement, sign, _, times = self._taken.pop()
            (self.capacity.give if sign > 0 else self.capacity.take)(job, placement)
            self.capacity._ends.put_back(times)

    def _times(self, placement: Placement) -> list[Times]:
        row, ends = self.capacity.row, self.capacity._ends
        return [time for share in placement.shares for time in ends.of(row[share.node_id], share)]
