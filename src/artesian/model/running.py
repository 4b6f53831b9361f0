"""The jobs that run, with columns that grow with them: whom to stop is found without a look at each."""

import math
from collections.abc import Collection, Iterator, Mapping, ValuesView

import numpy as np
import numpy.typing as npt

from artesian.model.snapshot import RunningJob

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_FEWEST_SLOTS = 64
_FIRST_SORTED = 256
_COLUMNS = (
    "since_s",
    "began_s",
    "every_s",
    "saved_s",
    "submitted_s",
    "priority",
    "served_device_s",
    "whole_devices",
    "epoch",
    "spare",
    "saves",
    "is_growable",
    "is_held",
    "is_preemptible",
    "_account",
)


class Columns:
    """Figures of S slots, each of which has a job that runs, or none.

    ``since_s`` [S] is from when on its attempt holds devices, ``began_s`` [S] when its processes ran, as far as that
    is known, ``every_s`` [S] how often it saves its state, ``saved_s`` [S] up to when its work is in a checkpoint
    (NaN: that is not known), ``saves`` [S] whether it is known to save, ``submitted_s`` [S] when the job was
    submitted, ``priority`` [S] its priority, ``served_device_s`` [S] what its earlier attempts have had,
    ``whole_devices`` [S] what this one holds, ``epoch`` [S] the number of the attempt, ``spare`` [S] the devices that
    it has beyond the fewest that it runs on.
    ``is_growable`` [S] is whether it could use more. ``is_held`` and ``is_preemptible`` [S] are False where a slot is
    empty.
    """

    def __init__(self) -> None:
        self.since_s: FloatArray = np.zeros(_FEWEST_SLOTS)
        self.began_s: FloatArray = np.zeros(_FEWEST_SLOTS)
        self.every_s: FloatArray = np.full(_FEWEST_SLOTS, np.nan)
        self.saved_s: FloatArray = np.full(_FEWEST_SLOTS, np.nan)
        self.saves: BoolArray = np.zeros(_FEWEST_SLOTS, dtype=np.bool_)
        self.submitted_s: FloatArray = np.zeros(_FEWEST_SLOTS)
        self.priority: IntArray = np.zeros(_FEWEST_SLOTS, dtype=np.int64)
        self.served_device_s: FloatArray = np.zeros(_FEWEST_SLOTS)
        self.whole_devices: FloatArray = np.zeros(_FEWEST_SLOTS)
        self.epoch: IntArray = np.zeros(_FEWEST_SLOTS, dtype=np.int64)
        self.spare: IntArray = np.zeros(_FEWEST_SLOTS, dtype=np.int64)
        self.is_growable: BoolArray = np.zeros(_FEWEST_SLOTS, dtype=np.bool_)
        self.is_held: BoolArray = np.zeros(_FEWEST_SLOTS, dtype=np.bool_)
        self.is_preemptible: BoolArray = np.zeros(_FEWEST_SLOTS, dtype=np.bool_)
        self._account: IntArray = np.zeros(_FEWEST_SLOTS, dtype=np.int64)
        self._accounts: dict[tuple[str, int], int] = {}
        self._jobs: list[RunningJob | None] = [None] * _FEWEST_SLOTS
        self._slot: dict[str, int] = {}
        self._empty = list(range(_FEWEST_SLOTS))

    def put(self, entry: RunningJob) -> None:
        """Take a job in, or what has changed about it."""
        slot = self._slot.get(entry.job.id)
        if slot is None:
            if not self._empty:
                self._grow()
            slot = self._slot[entry.job.id] = self._empty.pop()
        job = entry.job
        account = (job.team, job.priority)
        self._jobs[slot] = entry
        self.since_s[slot] = entry.since_s
        self.began_s[slot] = entry.since_s if entry.started_s is None else entry.started_s
        self.saved_s[slot] = np.nan if entry.saved_s is None else entry.saved_s
        self.saves[slot] = entry.saves
        self.every_s[slot] = np.nan if job.checkpoint_every_s is None else job.checkpoint_every_s
        self.submitted_s[slot], self.priority[slot] = entry.submitted_s, job.priority
        self.served_device_s[slot] = entry.served_device_s
        self.whole_devices[slot] = entry.placement.whole_devices
        self.epoch[slot] = entry.epoch
        devices = entry.placement.devices
        self.spare[slot] = max(0, devices - job.fewest_devices)
        self.is_growable[slot] = devices < max(request.max_devices for request in job.devices)
        self.is_held[slot] = True
        self.is_preemptible[slot] = entry.is_preemptible
        self._account[slot] = self._accounts.setdefault(account, len(self._accounts))

    def remove(self, job_id: str) -> None:
        """Take a job out."""
        slot = self._slot.pop(job_id)
        self._jobs[slot] = None
        self.is_held[slot] = self.is_preemptible[slot] = False
        self._empty.append(slot)

    def _grow(self) -> None:
        slots = len(self._jobs)
        for name in _COLUMNS:
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.zeros_like(column)]))
        self._jobs += [None] * slots
        self._empty += range(slots, 2 * slots)

    def lost_s(self, at_s: float) -> FloatArray:
        """Return what stopping each would lose [S], in seconds: ``RunningJob.lost_s``, for all at once."""
        lost_s: FloatArray = at_s - self.since_s
        promises = self.every_s > 0
        began_s = np.maximum(0.0, at_s - self.began_s[promises])
        lost_s[promises] = np.mod(began_s, self.every_s[promises])
        lost_s[self.every_s == 0] = 0.0
        told = ~np.isnan(self.saved_s)
        lost_s[told] = np.maximum(0.0, at_s - np.maximum(self.saved_s, self.since_s)[told])
        return lost_s

    def served_s(self, at_s: float) -> FloatArray:
        """Return what each job [S] has had by ``at_s``, in device-seconds: ``RunningJob.served_s``, for all at once."""
        return self.served_device_s + (at_s - self.since_s) * self.whole_devices

    def of(self, accounts: Collection[tuple[str, int]]) -> BoolArray:
        """Return which [S] are of these teams and priorities."""
        wanted = np.zeros(len(self._accounts) + 1, dtype=np.bool_)
        wanted[[self._accounts[account] for account in accounts if account in self._accounts]] = True
        is_of: BoolArray = wanted[self._account]
        return is_of

    def rising(self, among: BoolArray, price: FloatArray) -> "Rising":
        """Return the jobs in ``among`` [S] by rising ``price`` [S]; of one price, the last that began first, then by id."""
        return Rising(self, among, price)

    def sorted_slots(self, slots: IntArray, price: FloatArray) -> IntArray:
        """Return slots sorted so."""
        found = slots[np.lexsort((-self.since_s[slots], price[slots]))]
        prices, since_s = price[found], self.since_s[found]
        is_like_last = (prices[1:] == prices[:-1]) & (since_s[1:] == since_s[:-1])
        if is_like_last.any():
            number_of = np.concatenate([[0], np.cumsum(~is_like_last)]).tolist()
            jobs = self._jobs
            ids = [
                (number, job.job.id, slot)
                for number, slot in zip(number_of, found.tolist(), strict=True)
                if (job := jobs[slot])
            ]
            found = np.array([slot for *_, slot in sorted(ids)], dtype=np.int64)
        return found

    def at(self, slots: IntArray) -> Iterator[RunningJob]:
        """Yield the jobs in these slots."""
        return (job for slot in slots.tolist() if (job := self._jobs[slot]) is not None)


class Rising:
    """Running jobs by rising price, sorted no further than somebody has asked; the columns must not change meanwhile."""

    def __init__(self, columns: Columns, among: BoolArray, price: FloatArray) -> None:
        self._columns, self._price = columns, price
        self._left = np.flatnonzero(among)
        self._sorted: list[IntArray] = []
        self._chunk = _FIRST_SORTED

    def __iter__(self) -> Iterator[RunningJob]:
        return self.within(None)

    def within(self, among: BoolArray | None) -> Iterator[RunningJob]:
        """Yield those of them in ``among`` [S] (None: all), the lowest price first."""
        number = 0
        while number < len(self._sorted) or self._left.size:
            if number == len(self._sorted):
                self._sort_more()
            slots = self._sorted[number]
            yield from self._columns.at(slots if among is None else slots[among[slots]])
            number += 1

    def _sort_more(self) -> None:
        # Few are asked for, nearly always: the others need no order.
        slots, chunk = self._left, self._chunk
        prices = self._price[slots]
        nearest = prices <= (np.partition(prices, chunk)[chunk] if chunk < slots.size else math.inf)
        self._sorted.append(self._columns.sorted_slots(slots[nearest], self._price))
        self._left = slots[~nearest]
        self._chunk *= 4


class RunningJobs(Mapping[str, RunningJob]):
    """The jobs that hold devices, by id, in no particular order."""

    def __init__(self, entries: Collection[RunningJob] = ()) -> None:
        self._entries: dict[str, RunningJob] = {}
        self._columns: Columns | None = None
        self.stopping: dict[str, RunningJob] = {}
        """Those that are about to give their devices back, by id."""
        for entry in entries:
            self.put(entry)

    @classmethod
    def of(cls, entries: Mapping[str, RunningJob]) -> "RunningJobs":
        """Return the mapping itself where it is one already."""
        return entries if isinstance(entries, cls) else cls(entries.values())

    def __getitem__(self, job_id: str) -> RunningJob:
        return self._entries[job_id]

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def values(self) -> ValuesView[RunningJob]:
        """Return the jobs."""
        return self._entries.values()

    def put(self, entry: RunningJob) -> None:
        """Take a job in, or what has changed about it."""
        job_id = entry.job.id
        self._entries[job_id] = entry
        if entry.is_stopping:
            self.stopping[job_id] = entry
        elif self.stopping:
            self.stopping.pop(job_id, None)
        if self._columns is not None:
            self._columns.put(entry)

    def remove(self, job_id: str) -> None:
        """Take a job out, which must be in."""
        del self._entries[job_id]
        self.stopping.pop(job_id, None)
        if self._columns is not None:
            self._columns.remove(job_id)

    @property
    def columns(self) -> Columns:
        """The same as columns; kept up to date from their first use on."""
        if self._columns is None:
            self._columns = Columns()
            for entry in self._entries.values():
                self._columns.put(entry)
        return self._columns
