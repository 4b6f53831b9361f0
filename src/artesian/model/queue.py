"""The waiting jobs, with indices that grow with them: a cycle looks at few jobs, however many wait.

Jobs of one *shape* ask for the same devices with the same CPUs and memory. What one of them cannot get
in a cycle, none of them can: so a policy walks through the queue best first, and leaves a whole shape out
once one job of it has failed.
"""

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from artesian.model.job import Job
from artesian.model.placement import Placement

NOTHING_SERVED: Mapping[str, float] = {}
"""Shared by all jobs that had no device yet: most of a long queue."""

Key = tuple[Any, ...]
"""What an order sorts by: the least goes first. All keys of one order compare with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJob:
    """A job that could start now if there was room; ``next_epoch`` numbers the attempt it would be.

    ``submitted_s`` and ``waits_since_s`` are when it was submitted and when it began to wait the last
    time; ``served_device_s`` is what its earlier attempts have had, in device-seconds, and
    ``served_by_accelerator`` the same by model of device. ``claim`` is where
    devices are kept for it that others were stopped for, if any.
    """

    job: Job
    submitted_s: float
    next_epoch: int
    waits_since_s: float
    served_device_s: float = 0.0
    claim: Placement | None = None
    served_by_accelerator: Mapping[str, float] = field(default_factory=lambda: NOTHING_SERVED)


def shape_of(job: Job) -> Hashable:
    """Return what decides where the job fits: equal for two jobs, what one can get the other can."""
    return (job.devices, job.cpus_per_device, job.memory_bytes_per_device)


class Index:
    """Waiting jobs by shape, those of one shape sorted by a key."""

    def __init__(self, key: Callable[[WaitingJob], Key]) -> None:
        self._key = key
        self._shapes: dict[Hashable, list[tuple[Key, str]]] = {}

    def add(self, entry: WaitingJob) -> None:
        """Take a job in."""
        insort(self._shapes.setdefault(shape_of(entry.job), []), (self._key(entry), entry.job.id))

    def remove(self, entry: WaitingJob) -> None:
        """Take a job out that was taken in as exactly this."""
        shape = shape_of(entry.job)
        queue = self._shapes[shape]
        place = bisect_left(queue, (self._key(entry), entry.job.id))
        assert queue[place][1] == entry.job.id, "a key must not change while its job waits"
        del queue[place]
        if not queue:
            del self._shapes[shape]

    @property
    def queues(self) -> Iterable[list[tuple[Key, str]]]:
        """The jobs of each shape, as sorted pairs of key and id."""
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
        if not self.indices[name].queues:
            del self.indices[name]


class Walk:
    """Goes through the waiting jobs, the least key first. The queue must not change meanwhile."""

    def __init__(self, entries: Mapping[str, WaitingJob], index: Index) -> None:
        self._entries = entries
        self._queues = list(index.queues)
        self._heap = [(*queue[0], number, 0) for number, queue in enumerate(self._queues)]
        heapq.heapify(self._heap)
        self._latest: tuple[int, int] | None = None
        self.shape = -1
        """Number of the shape of the job that came last: the same number, the same shape, in this walk."""

    def __iter__(self) -> Iterator[WaitingJob]:
        return self

    def __next__(self) -> WaitingJob:
        if self._latest is not None:
            number, place = self._latest
            queue = self._queues[number]
            if place + 1 < len(queue):
                heapq.heappush(self._heap, (*queue[place + 1], number, place + 1))
            self._latest = None
        if not self._heap:
            raise StopIteration
        _, job_id, number, place = heapq.heappop(self._heap)
        self._latest = (number, place)
        self.shape = number
        return self._entries[job_id]

    def leave_shape(self) -> None:
        """Leave out all other jobs of the shape of the job that came last."""
        self._latest = None


class WaitingQueue(Mapping[str, WaitingJob]):
    """The waiting jobs by id, in no particular order. ``walk`` goes through them in any that is asked for.

    An index is made the first time that its key is used, and kept up to date from then on.
    """

    def __init__(self, entries: Iterable[WaitingJob] = ()) -> None:
        self._entries: dict[str, WaitingJob] = {}
        self._keys: dict[Callable[[WaitingJob], Key], Index] = {}
        self._groups: dict[tuple[Hashable, Hashable], Groups] = {}
        self.claims: dict[str, WaitingJob] = {}
        """The jobs with a claim, by id."""
        for entry in entries:
            self.add(entry)

    def __getitem__(self, job_id: str) -> WaitingJob:
        return self._entries[job_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: WaitingJob) -> None:
        """Take a job in, that is not in yet."""
        assert entry.job.id not in self._entries, entry.job.id
        self._entries[entry.job.id] = entry
        if entry.claim is not None:
            self.claims[entry.job.id] = entry
        for index in self._all():
            index.add(entry)

    def discard(self, job_id: str) -> None:
        """Take a job out, if it is in."""
        entry = self._entries.pop(job_id, None)
        if entry is not None:
            self.claims.pop(job_id, None)
            for index in self._all():
                index.remove(entry)

    @contextmanager
    def without(self, job_ids: Iterable[str]) -> Iterator[None]:
        """Leave out some of the jobs for a while; what is added meanwhile is to be taken out again.

        Whoever goes through the queue goes on through what was there: these are other mappings.
        """
        hidden = frozenset(job_ids)
        if not hidden:
            yield
            return
        entries, claims = self._entries, self.claims
        left_out = [entries[job_id] for job_id in sorted(hidden)]
        for entry in left_out:
            for index in self._all():
                index.remove(entry)
        self._entries, self.claims = dict(entries), dict(claims)
        for job_id in hidden:
            del self._entries[job_id]
            self.claims.pop(job_id, None)
        try:
            yield
        finally:
            self._entries, self.claims = entries, claims
            for entry in left_out:
                for index in self._all():
                    index.add(entry)

    def walk(self, key: Callable[[WaitingJob], Key]) -> Walk:
        """Return a walk through all jobs, the least ``key`` first (the id breaks a tie).

        ``key`` must depend on the entry alone, and be the same object, or equal, every time.
        """
        index = self._keys.get(key)
        if index is None:
            index = self._keys[key] = Index(key)
            for entry in self._entries.values():
                index.add(entry)
        return Walk(self._entries, index)

    def walks(self, group: Callable[[WaitingJob], str], key: Callable[[WaitingJob], Key]) -> dict[str, Walk]:
        """Return a walk through the jobs of each group; ``group`` is bound by what binds ``key``."""
        groups = self._groups.get((group, key))
        if groups is None:
            groups = self._groups[group, key] = Groups(group, key)
            for entry in self._entries.values():
                groups.add(entry)
        return {name: Walk(self._entries, index) for name, index in groups.indices.items()}

    def _all(self) -> Iterator[Index | Groups]:
        yield from self._keys.values()
        yield from self._groups.values()
