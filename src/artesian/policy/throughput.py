"""How fast each job runs on each model of device, as arrays: what policies for mixed fleets decide from.

A speed is known because somebody stated it (``Throughputs``), or because it was measured of jobs of the same
family (``model.speeds``). What neither tells stays unknown.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np

from artesian.model.capacity import BoolArray, Capacity
from artesian.model.job import Job
from artesian.model.queue import WaitingJob, shape_of
from artesian.model.resources import MILLI, DeviceRequest
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.model.speeds import NOTHING_MEASURED, Speeds, family_of
from artesian.policy.accounts import Accounts
from artesian.policy.allowance import Limit, at_most, limits
from artesian.policy.solver import FloatArray, IntArray

_MOST_DOUBLINGS = 20


@dataclass(frozen=True, slots=True)
class Throughputs:
    """Steps per second of a whole gang, by the job's profile, the accelerator, and how many devices of it.

    ``table[("ResNet-50 (batch size 64)", "V100", 2)]``. The accelerator is called as the nodes call it.
    """

    table: Mapping[tuple[str, str, float], float] = field(default_factory=dict)
    _counts: dict[tuple[str, str], list[float]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        for key, steps_per_s in self.table.items():
            if not 0 <= steps_per_s < math.inf:
                raise ValueError(f"throughput of {key}: expected at least 0 steps/s, got {steps_per_s}")
            self._counts.setdefault(key[:2], []).append(key[2])

    def steps_per_s(self, job: Job, accelerator: str, devices: float) -> float | None:
        """Return how fast the job runs on so many devices: 0 where it cannot, None where nobody knows."""
        return None if job.profile is None else self.table.get((job.profile, accelerator, devices))

    def counts(self, job: Job, accelerator: str) -> list[float]:
        """Return the numbers of devices for which it is told how fast the job is."""
        return [] if job.profile is None else list(self._counts.get((job.profile, accelerator), ()))


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of speeds: what was stated, else what was measured."""

    stated: Throughputs = field(default_factory=Throughputs)
    measured: Speeds = field(default_factory=lambda: NOTHING_MEASURED)

    def steps_per_s(self, job: Job, accelerator: str, devices: float) -> float | None:
        """Return how fast the job runs on so many devices: 0 where it cannot, None where nobody knows.

        Where it is known for other numbers of devices only, the nearest of them is scaled by the job's curve:
        for an elastic gang, and for one that tells its parallel share.
        """
        exact = self._exactly(job, accelerator, devices)
        if exact is not None or not _follows_curve(job):
            return exact
        counts = self.stated.counts(job, accelerator)
        if len(self.measured):
            family = family_of(job)
            counts += [
                speed.devices for speed in self.measured.of(family) if speed.accelerator == accelerator
            ]
        whole = [count for count in counts if count >= 1]
        if not whole or devices < 1:
            return None
        nearest = min(whole, key=lambda count: (abs(math.log(count / devices)), count))
        rate = self._exactly(job, accelerator, nearest)
        assert rate is not None
        return rate * job.speedup(int(devices)) / job.speedup(int(nearest))

    def _exactly(self, job: Job, accelerator: str, devices: float) -> float | None:
        stated = self.stated.steps_per_s(job, accelerator, devices)
        if stated is not None or not len(self.measured):
            return stated
        return self.measured.steps_per_s(family_of(job), accelerator, devices)


def _follows_curve(job: Job) -> bool:
    """Return whether it is known how fast the job is on fewer devices than on others: it told, or it is elastic."""
    return job.parallel_share is not None or any(
        request.max_devices > request.min_devices for request in job.devices
    )


class Problem(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """J jobs that run or wait, K models of device ("kinds", numbered as in the capacity).

    ``devices`` [J, K] is what a gang would take of each kind, ``rate`` [J, K] how fast it runs there in
    steps/s; 0 where it cannot run. A job whose throughput is not known for *every* kind it may run on is
    not ``is_known`` [J]: all kinds then count alike for it, with a rate of 1, and its steps are seconds.
    ``done`` [J] is the steps that a job has done: with each number of devices that it was at work with, the time that it
    was, times its speed on so many; time at a speed that nobody knows adds nothing. ``left`` [J] is the steps to go.
    Who told no length is expected to go on for as long as it has been served, at least ``LEAST_S``: what has lasted
    long lasts long (that is least attained service).
    ``held_s`` [J, K] is the time that a job has had on each kind, ``age_s`` [J] the time since its
    submission. ``weight`` [J] doubles with each step of priority. ``on`` [J] is the kind that it runs
    on, -1 where it waits. ``capacity`` [K] counts the devices that are up.

    For who decides about numbers of devices as well: a gang needs at least ``least`` [J, K] devices of a kind,
    ``has`` [J] as many now, began ``begun`` [J] attempts, and would lose ``lost_s`` [J] of work if it stopped
    now. ``node_devices`` [K] is the size of the largest node, ``known`` what is known of speeds.
    ``limits`` are what teams may have: ``devices`` and ``can_run`` go no further than that by themselves.
    """

    jobs: tuple[Job, ...]
    kinds: tuple[str, ...]
    devices: FloatArray
    rate: FloatArray
    is_known: BoolArray
    done: FloatArray
    left: FloatArray
    held_s: FloatArray
    age_s: FloatArray
    weight: FloatArray
    on: IntArray
    capacity: FloatArray
    least: FloatArray
    has: FloatArray
    begun: FloatArray
    lost_s: FloatArray
    node_devices: FloatArray
    known: Known = msgspec.field(default_factory=Known)
    limits: tuple[Limit, ...] = ()

    @property
    def can_run(self) -> BoolArray:
        """Which job could run on which kind [J, K] of the empty fleet."""
        return self.rate > 0

    def alone_rate(self) -> FloatArray:
        """Return how fast each job [J] would go if its time was spread over the devices that suit it."""
        rate: FloatArray = (self.rate * self.spread()).sum(1)
        return rate

    def spread(self) -> FloatArray:
        """Return the part of a job's time [J, K] on each kind if it was spread over the devices that suit it."""
        # A job that wants no device runs on nodes that have none, too.
        size = np.where(self.can_run, np.maximum(self.capacity, 1e-9), 0.0)
        spread: FloatArray = size / size.sum(1, keepdims=True)
        return spread

    def limited(
        self, job: IntArray, kind: IntArray, devices: FloatArray
    ) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
        """Return the limits as rows of a program whose columns [C] are jobs on kinds, with so many devices: the row
        (from 0 on), column and value of each entry, and the most of each row."""
        row, column = [_NO_ROWS], [_NO_ROWS]
        for number, limit in enumerate(self.limits):
            columns = np.flatnonzero(limit.jobs[job] & limit.kinds[kind])
            row.append(np.full(len(columns), number))
            column.append(columns)
        columns = np.concatenate(column)
        most = np.array([limit.most for limit in self.limits], dtype=np.float64)
        return np.concatenate(row), columns, devices[columns], most

    def left_s(self) -> FloatArray:
        """Return how long each job still takes on each kind [J, K]; infinite where it cannot run."""
        left_s = np.full_like(self.rate, np.inf)
        np.divide(self.left[:, None], self.rate, out=left_s, where=self.can_run)
        return left_s


_NO_ROWS = np.zeros(0, dtype=np.int64)

LEAST_S = 60.0
"""A job of unknown length is expected to take at least so long."""


def problem(
    snapshot: Snapshot, throughputs: Throughputs, accounts: Accounts | None = None
) -> tuple[Problem, tuple[Job, ...]]:
    """Return the snapshot's jobs as a problem, first submitted first, and those that the fleet cannot hold.

    ``accounts`` tell what teams may have (None: anything); who may never have as many devices as it needs is one of
    the latter.
    """
    capacity = snapshot.capacity
    known = Known(throughputs, snapshot.speeds)
    kinds = _kinds(capacity)
    rows: dict[object, _Row] = {}
    taken: list[tuple[WaitingJob | RunningJob, _Row]] = []
    impossible: list[Job] = []
    entries: list[WaitingJob | RunningJob] = [*snapshot.waiting.values(), *snapshot.running.values()]
    entries.sort(key=lambda entry: (entry.submitted_s, entry.job.id))
    for entry in entries:
        job = entry.job
        key = (
            shape_of(job),
            job.profile,
            job.parallel_share,
            family_of(job) if len(known.measured) else None,
            None if accounts is None else job.team,
        )
        row = rows.get(key)
        if row is None:
            row = rows[key] = _row(job, capacity, kinds, known, accounts)
        if (row.rate > 0).any():
            taken.append((entry, row))
        elif entry.job.id in snapshot.waiting:
            impossible.append(entry.job)
    at_s, names = snapshot.at_s, tuple(kinds)
    shape = (len(taken), len(kinds))
    held_s, on = np.zeros(shape), np.full(len(taken), -1, dtype=np.int64)
    done, left = np.zeros(len(taken)), np.zeros(len(taken))
    has, lost_s = np.zeros(len(taken)), np.zeros(len(taken))
    for place, (entry, row) in enumerate(taken):
        for name, device_s in entry.served_by_accelerator.items():
            if (kind := kinds.get(name)) is not None:
                held_s[place, kind] += device_s / (row.devices[kind] or 1.0)
        if isinstance(entry, RunningJob):
            on[place] = capacity.kind[capacity.row[entry.placement.shares[0].node_id]]
            held_s[place, on[place]] += at_s - entry.since_s
            has[place], lost_s[place] = entry.placement.whole_devices, entry.lost_s(at_s)
        done[place] = _done(entry.job, row, kinds, known, _ran_s(entry, names[on[place]], at_s))
        left[place] = _left(entry.job, row, done[place], float((row.rate * held_s[place]).sum()))
    jobs = tuple(entry.job for entry, _ in taken)
    there = capacity.by_kind(np.where(capacity.is_up, capacity.devices, 0))[: len(kinds)].astype(np.float64)
    return (
        Problem(
            jobs=jobs,
            kinds=names,
            devices=np.array([row.devices for _, row in taken]).reshape(shape),
            rate=np.array([row.rate for _, row in taken]).reshape(shape),
            is_known=np.array([row.is_known for _, row in taken], dtype=np.bool_),
            done=done,
            left=left,
            held_s=held_s,
            age_s=np.array([at_s - entry.submitted_s for entry, _ in taken]),
            weight=np.exp2(
                np.clip([entry.job.priority for entry, _ in taken], -_MOST_DOUBLINGS, _MOST_DOUBLINGS)
            ),
            on=on,
            capacity=there,
            least=np.array([row.least for _, row in taken]).reshape(shape),
            has=has,
            begun=np.array([_begun(entry) for entry, _ in taken], dtype=np.float64),
            lost_s=lost_s,
            node_devices=_largest(capacity, len(kinds)),
            known=known,
            limits=() if accounts is None else limits(accounts, jobs, there.tolist()),
        ),
        tuple(impossible),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """What holds for all jobs of one shape and profile."""

    devices: FloatArray
    least: FloatArray
    rate: FloatArray
    is_known: bool


def _begun(entry: WaitingJob | RunningJob) -> int:
    return entry.epoch if isinstance(entry, RunningJob) else entry.next_epoch - 1


def _largest(capacity: Capacity, kinds: int) -> FloatArray:
    """Return the devices of the largest node of each kind [K]; 1 for a kind of nodes without devices."""

    def compute() -> FloatArray:
        largest = np.ones(kinds)
        np.maximum.at(largest, capacity.kind, capacity.devices)
        return largest

    return capacity.remember(("largest node", kinds), compute)


def _kinds(capacity: Capacity) -> dict[str, int]:
    """Return the number of each kind by its name, in the order of the numbers."""

    def compute() -> dict[str, int]:
        names: dict[int, str] = {}
        for node, kind in zip(capacity.nodes, capacity.kind.tolist(), strict=True):
            names.setdefault(kind, node.accelerator)
        twins = {name for name in names.values() if list(names.values()).count(name) > 1}
        vendors = {
            kind: node.vendor for node, kind in zip(capacity.nodes, capacity.kind.tolist(), strict=True)
        }
        # Two vendors with one name for a device: neither is what a table means by it.
        return {
            f"{vendors[kind]}:{name}" if name in twins else name: kind for kind, name in sorted(names.items())
        }

    return capacity.remember("kinds by name", compute)


def _row(
    job: Job,
    capacity: Capacity,
    kinds: Mapping[str, int],
    known_speeds: Known,
    accounts: Accounts | None,
) -> _Row:
    devices, can_run = np.zeros(len(kinds)), np.zeros(len(kinds), dtype=np.bool_)
    least = np.zeros(len(kinds))
    for request in job.devices:
        owned = capacity.by_kind(capacity.ownable(job, request))
        for kind in range(len(kinds)):
            if not can_run[kind] and owned[kind] >= max(1, request.min_devices):
                ceiling = math.inf if accounts is None else accounts.ceiling(job.team, kind)
                if ceiling < request.min_milli:
                    continue
                can_run[kind] = True
                devices[kind] = _count(at_most(request, ceiling), int(owned[kind]))
                least[kind] = request.min_milli / MILLI
    known = [known_speeds.steps_per_s(job, name, devices[kind]) for name, kind in kinds.items()]
    is_known = all(rate is not None for rate, usable in zip(known, can_run, strict=True) if usable)
    if not is_known:
        return _Row(devices, least, can_run.astype(np.float64), is_known=False)
    return _Row(devices, least, np.where(can_run, [rate or 0.0 for rate in known], 0.0), is_known=True)


def _count(request: DeviceRequest, owned: int) -> float:
    """Return how many devices the gang would take where there are ``owned``."""
    return request.max_milli / MILLI if request.is_fraction else float(min(request.max_devices, owned))


def _ran_s(entry: WaitingJob | RunningJob, on: str, at_s: float) -> Mapping[tuple[str, float], float]:
    """Return how long the job was at work, by model and number of devices; ``on`` is the model that it runs on, if any."""
    if isinstance(entry, WaitingJob):
        return entry.ran_s
    ran_s = dict(entry.ran_s)
    for part in entry.worked_by(at_s):
        ran_s[on, part.devices] = ran_s.get((on, part.devices), 0.0) + part.seconds
    return ran_s


def _done(
    job: Job,
    row: _Row,
    kinds: Mapping[str, int],
    known: Known,
    ran_s: Mapping[tuple[str, float], float],
) -> float:
    """Return the steps that the job has done, as far as it is known how fast it was."""
    rates = {
        (name, devices): _rate(job, row, kinds.get(name), name, devices, known) for name, devices in ran_s
    }
    return sum(rate * ran_s[size] for size, rate in rates.items() if rate is not None)


def _rate(job: Job, row: _Row, kind: int | None, name: str, devices: float, known: Known) -> float | None:
    """Return how fast the job was on so many devices, in the row's steps per second; None where nobody knows."""
    if kind is not None and devices == row.devices[kind] and row.rate[kind]:
        return float(row.rate[kind])
    if row.is_known:
        return known.steps_per_s(job, name, devices)
    # Steps are seconds on all the devices that it would take, whichever they are.
    full = row.devices.max() if kind is None else row.devices[kind]
    if devices == full or devices < 1 or full < 1:
        return 1.0
    return job.speedup(int(devices)) / job.speedup(int(full)) if _follows_curve(job) else None


def _left(job: Job, row: _Row, done: float, served: float) -> float:
    """Return the steps to go; at least a millionth of what there was, for no estimate is exact.

    ``served`` is what the job would have done in the devices that it held.
    """
    total: float | None
    if row.is_known:
        total = job.total_steps
        if total is None and job.estimated_duration_s is not None:
            # The user means the devices that the job asks for first.
            total = job.estimated_duration_s * float(row.rate.max())
    else:
        total = job.estimated_duration_s
    if total is None:
        return max(served, LEAST_S * float(row.rate.max()))
    return max(total - done, 1e-6 * total, 1e-9)
