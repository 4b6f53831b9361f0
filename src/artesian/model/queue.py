"""The waiting jobs, with indices that grow with them: a cycle looks at few jobs, however many wait.

Jobs of one *shape* ask for the same devices with the same CPUs and memory. What one of them cannot get
in a cycle, none of them can: so a policy walks through the queue best first, and leaves a whole shape out
once one job of it has failed.
"""

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from msgspec import Struct, field

from artesian.model.job import Job
from artesian.model.placement import Placement

NOTHING_SERVED: Mapping[str, float] = {}
"""Shared by all jobs that had no device yet: most of a long queue."""

NOTHING_RAN: Mapping[tuple[str, float], float] = {}
"""The same of the time that they ran."""

Key = tuple[Any, ...]
"""What an order sorts by: the least goes first. All keys of one order compare with each other."""


class WaitingJob(Struct, frozen=True, kw_only=True, gc=False):
    """A job that could start now if there was room; ``next_epoch`` numbers the attempt it would be.

    ``submitted_s`` and ``waits_since_s`` are when it was submitted and when it began to wait the last
    time; ``served_device_s`` is what its earlier attempts have had, in device-seconds, and
    ``served_by_accelerator`` the same by model of device. ``ran_s`` is how long they were at work, in seconds by model
    and number of devices. ``claim`` is where devices are kept for it that others were stopped for, if any.
    """

    job: Job
    submitted_s: float
    next_epoch: int
    waits_since_s: float
    served_device_s: float = 0.0
    claim: Placement | None = None
    served_by_accelerator: Mapping[str, float] = field(default_factory=lambda: NOTHING_SERVED)
    ran_s: Mapping[tuple[str, float], float] = field(default_factory=lambda: NOTHING_RAN)


def shape_of(job: Job) -> Hashable:
    """Return what decides where the job fits: equal for two jobs, what one can get the other can."""
    return (job.devices, job.cpus_per_device, job.memory_bytes_per_device)


def _is_host_only(job: Job) -> bool:
    devices = job.devices
    if len(devices) == 1:
        return not devices[0].max_milli  # nearly always
    return any([request.max_milli == 0 for request in devices])  # noqa: C419  quicker so


Place = tuple[Any, ...]
"""A waiting job as its shape lists it: all of its key, its id, and its estimated duration, infinity where there is none.

One tuple, and not a key within another: of 100,000 waiting jobs each has one.
"""


class Alike:
    """The waiting jobs of one shape: ``jobs`` by falling rank, and their estimated durations, the shortest first."""

    __slots__ = ("durations_s", "jobs")

    def __init__(self) -> None:
        self.jobs: list[Place] = []
        self.durations_s: list[float] = []

    def add(self, place: Place) -> None:
        """Take a job in."""
        insort(self.jobs, place)
        insort(self.durations_s, place[-1])

    def remove(self, place: Place) -> None:
        """Take a job out that was taken in as exactly this."""
        number = bisect_left(self.jobs, place)
        assert self.jobs[number] == place, "a key must not change while its job waits"
        del self.jobs[number]
        del self.durations_s[bisect_left(self.durations_s, place[-1])]


class Index:
    """Waiting jobs by shape, those of one shape sorted by a key."""

    def __init__(self, key: Callable[[WaitingJob], Key]) -> None:
        self._key = key
        self._shapes: dict[Hashable, Alike] = {}

    def add(self, entry: WaitingJob) -> None:
        """Take a job in."""
        shape = shape_of(entry.job)
        alike = self._shapes.get(shape)
        if alike is None:
            alike = self._shapes[shape] = Alike()
        alike.add(self._place(entry))

    def remove(self, entry: WaitingJob) -> None:
        """Take a job out that was taken in as exactly this."""
        shape = shape_of(entry.job)
        alike = self._shapes[shape]
        alike.remove(self._place(entry))
        if not alike.jobs:
            del self._shapes[shape]

    def first_like(self, entry: WaitingJob) -> str:
        """Return the id of the first job of the shape of one that was taken in."""
        return str(self._shapes[shape_of(entry.job)].jobs[0][-2])

    def _place(self, entry: WaitingJob) -> Place:
        duration_s = entry.job.estimated_duration_s
        return (*self._key(entry), entry.job.id, math.inf if duration_s is None else duration_s)

    @property
    def shapes(self) -> Collection[Alike]:
        """The jobs of each shape."""
        return self._shapes.values()


def team_of(entry: WaitingJob) -> str:
    """Return the team that pays for the job: what ``WaitingQueue.walks`` can go by."""
    return entry.job.team


class Groups:
    """An index for each group of waiting jobs."""

    def __init__(self, group: Callable[[WaitingJob], str], key: Callable[[WaitingJob], Key]) -> None:
        self._group = group
        self._key = key
        self.indices: dict[str, Index] = {}

    def add(self, entry: WaitingJob) -> None:
        """Take a job in."""
        name = self._group(entry)
        if name not in self.indices:
            self.indices[name] = Index(self._key)
        self.indices[name].add(entry)

    def remove(self, entry: WaitingJob) -> None:
        """Take a job out that was taken in as exactly this."""
        name = self._group(entry)
        self.indices[name].remove(entry)
        if not self.indices[name].shapes:
            del self.indices[name]


class Walk:
    """Goes through the waiting jobs, the least key first. The queue must not change meanwhile."""

    def __init__(self, entries: Mapping[str, WaitingJob], index: Index) -> None:
        self._entries = entries
        self._shapes = list(index.shapes)
        self._heap = [(*alike.jobs[0], number, 0) for number, alike in enumerate(self._shapes)]
        heapq.heapify(self._heap)
        self._latest: tuple[int, int] | None = None
        self.shape = -1
        """Number of the shape of the job that came last: the same number, the same shape, in this walk."""

    def __iter__(self) -> Iterator[WaitingJob]:
        return self

    def __next__(self) -> WaitingJob:
        if self._latest is not None:
            number, place = self._latest
            jobs = self._shapes[number].jobs
            if place + 1 < len(jobs):
                heapq.heappush(self._heap, (*jobs[place + 1], number, place + 1))
            self._latest = None
        if not self._heap:
            raise StopIteration
        first = heapq.heappop(self._heap)
        number, place = first[-2:]
        self._latest = (number, place)
        self.shape = number
        return self._entries[first[-4]]

    def leave_shape(self) -> None:
        """Leave out all other jobs of the shape of the job that came last."""
        self._latest = None

    def leave_later(self, at_s: float, until_s: float) -> None:
        """Leave out those next in the same shape that, started at ``at_s``, would end after ``until_s``."""
        assert self._latest is not None
        number, place = self._latest
        alike = self._shapes[number]
        self._latest = None
        if at_s + alike.durations_s[0] > until_s:
            return  # the usual answer, and it does not matter how many they are
        jobs = alike.jobs
        for behind in range(place + 1, len(jobs)):
            if at_s + jobs[behind][-1] <= until_s:
                self._latest = (number, behind - 1)
                return


W = TypeVar("W", bound=Walk)


class WaitingQueue(Mapping[str, WaitingJob]):
    """The waiting jobs by id, in no particular order. ``walk`` goes through them in any that is asked for.

    An index is made the first time that its key is used, and kept up to date from then on.
    """

    def __init__(self, entries: Iterable[WaitingJob] = ()) -> None:
        self._entries: dict[str, WaitingJob] = {}
        self._keys: dict[Callable[[WaitingJob], Key], Index] = {}
        self._groups: dict[tuple[Hashable, Hashable], Groups] = {}
        self._indices: list[Index | Groups] = []
        """All of both."""
        self.claims: dict[str, WaitingJob] = {}
        """The jobs with a claim, by id."""
        self.host_only = 0
        """How many would do without a device: a fleet whose devices are all taken may have room for them."""
        for entry in entries:
            self.add(entry)

    def __getitem__(self, job_id: str) -> WaitingJob:
        return self._entries[job_id]

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._entries  # as a mapping has it, that is an error caught

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: WaitingJob) -> None:
        """Take a job in, that is not in yet."""
        assert entry.job.id not in self._entries, entry.job.id
        self._entries[entry.job.id] = entry
        self.host_only += _is_host_only(entry.job)
        if entry.claim is not None:
            self.claims[entry.job.id] = entry
        for index in self._indices:
            index.add(entry)

    def discard(self, job_id: str) -> None:
        """Take a job out, if it is in."""
        entry = self._entries.pop(job_id, None)
        if entry is not None:
            self.claims.pop(job_id, None)
            self.host_only -= _is_host_only(entry.job)
            for index in self._indices:
                index.remove(entry)

    @contextmanager
    def hiding(self) -> Iterator[Callable[[Iterable[str]], None]]:
        """Let the caller leave out more and more of the jobs for a while: it calls what it gets with their ids.

        Nobody may be going through the queue as more are left out but the first time, when it becomes another mapping.
        """
        entries, claims = self._entries, self.claims
        left_out: dict[str, WaitingJob] = {}

        def hide(job_ids: Iterable[str]) -> None:
            for job_id in sorted(frozenset(job_ids) - left_out.keys()):
                entry = entries[job_id]
                if not left_out:  # a copy of thousands takes a while: one does for all
                    self._entries, self.claims = dict(entries), dict(claims)
                left_out[job_id] = entry
                del self._entries[job_id]
                self.claims.pop(job_id, None)
                for index in self._indices:
                    index.remove(entry)

        try:
            yield hide
        finally:
            self._entries, self.claims = entries, claims
            for entry in left_out.values():
                for index in self._indices:
                    index.add(entry)

    @contextmanager
    def without(self, job_ids: Iterable[str]) -> Iterator[None]:
        """Leave out some of the jobs for a while; what is added meanwhile is to be taken out again.

        Whoever goes through the queue goes on through what was there: these are other mappings.
        """
        with self.hiding() as hide:
            hide(job_ids)
            yield

    def walk(self, key: Callable[[WaitingJob], Key]) -> Walk:
        """Return a walk through all jobs, the least ``key`` first (the id breaks a tie).

        ``key`` must depend on the entry alone, and be the same object, or equal, every time.
        """
        return self.walk_as(Walk, key)

    def walk_as(self, kind: type[W], key: Callable[[WaitingJob], Key]) -> W:
        """Return a walk of a ``kind`` that can do more."""
        return kind(self._entries, self._index(key))

    def _index(self, key: Callable[[WaitingJob], Key]) -> Index:
        index = self._keys.get(key)
        if index is None:
            index = self._keys[key] = Index(key)
            self._indices.append(index)
            for entry in self._entries.values():
                index.add(entry)
        return index

    def leads(self, key: Callable[[WaitingJob], Key], job_id: str) -> bool:
        """Return whether the job goes before all others of its shape in a walk by ``key``."""
        return self._index(key).first_like(self._entries[job_id]) == job_id

    def walks(self, group: Callable[[WaitingJob], str], key: Callable[[WaitingJob], Key]) -> dict[str, Walk]:
        """Return a walk through the jobs of each group; ``group`` is bound by what binds ``key``."""
        groups = self._groups.get((group, key))
        if groups is None:
            groups = self._groups[group, key] = Groups(group, key)
            self._indices.append(groups)
            for entry in self._entries.values():
                groups.add(entry)
        return {name: Walk(self._entries, index) for name, index in groups.indices.items()}
