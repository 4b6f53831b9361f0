"""What a reader returns: jobs, a fleet, or both, with all that was left out."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from artesian.kernel.collector import collector_paused
from artesian.model.capacity import Capacity
from artesian.model.fleet import Center, Fleet, Pool
from artesian.model.job import Job
from artesian.model.resources import MILLI, DeviceRequest
from artesian.sim.fleet import ENGINE
from artesian.sim.jobs import SimJob
from artesian.sim.traces.errors import TooLarge
from artesian.sim.traces.table import Skipped, Tally

T = TypeVar("T")

MAX_JOBS = 2_000_000
"""Most jobs that a reading holds in memory unless the caller says otherwise; they take about 1 GB."""

COMMAND = ("true",)
"""The command of a job that is only simulated."""

NO_ENV: Mapping[str, str] = {}
"""Shared by all the jobs of all traces: a dict for each of a million would be 64 MB of nothing."""


class Trace(Struct, frozen=True, kw_only=True, gc=False):
    """Jobs in the order of their submission, of which the first is submitted at 0 unless the format says
    otherwise, and the fleet they ran on (None: the trace does not tell).

    ``rows`` has the row of each job in the file ``source``; synthetic jobs have none. ``skipped`` says
    which rows are not among the jobs, and why; ``notes`` what a reader of the figures has to know.
    """

    source: str
    jobs: Sequence[SimJob] = ()
    fleet: Fleet | None = None
    skipped: tuple[Skipped, ...] = ()
    rows: Sequence[int] = ()
    notes: tuple[str, ...] = ()

    @property
    def skipped_rows(self) -> int:
        """How many rows were left out, for whatever reason."""
        return sum(entry.count for entry in self.skipped)

    def first(self, count: int) -> "Trace":
        """Return the trace with its first ``count`` jobs only."""
        return replace(self, jobs=self.jobs[:count], rows=self.rows[:count])

    def with_checkpoints(self, every_s: float) -> "Trace":
        """Return the trace with jobs that save so often, in seconds, where they do not tell (0: always)."""
        jobs = tuple(
            entry if entry.checkpoint_every_s is not None else replace(entry, checkpoint_every_s=every_s)
            for entry in self.jobs
        )
        return replace(self, jobs=jobs)

    def with_start_up(self, start_up_s: float) -> "Trace":
        """Return the trace with jobs that take so long, in seconds, to start and to start again, where they do not tell."""
        jobs = tuple(
            entry if entry.start_up_s else replace(entry, start_up_s=start_up_s) for entry in self.jobs
        )
        return replace(self, jobs=jobs)

    def on(self, fleet: Fleet) -> "Trace":
        """Return the trace on ``fleet``, without the jobs that even the empty fleet could not start.

        Those are counted in ``skipped``: a gang runs on devices of one model, so it can be no larger than
        all that the fleet has of one, given the CPUs and the memory that it wants with each.
        """
        capacity = Capacity(fleet.nodes)
        known: dict[Hashable, bool] = {}
        tally = Tally()
        jobs: list[SimJob] = []
        rows: list[int] = []
        for position, entry in enumerate(self.jobs):
            job = entry.job
            key = (job.devices, job.cpus_per_device, job.memory_bytes_per_device)
            if key not in known:
                known[key] = any(_fits(capacity, job, request) for request in job.devices)
            row = self.rows[position] if self.rows else position
            if known[key]:
                jobs.append(entry)
                rows.append(row)
            else:
                asked = " | ".join(str(request) for request in job.devices)
                tally.add("the gang fits no devices of the fleet", row, actual=f"{job.id}: {asked}")
        return replace(
            self,
            jobs=tuple(jobs),
            rows=tuple(rows) if self.rows else (),
            fleet=fleet,
            skipped=self.skipped + tally.skipped,
        )


def _fits(capacity: Capacity, job: Job, request: DeviceRequest) -> bool:
    if request.is_fraction or request.is_host_only:
        return bool(capacity.ownable(job, request).max(initial=0) >= 1)
    return int(capacity.by_kind(capacity.ownable(job, request)).max()) >= request.min_devices


Dated = tuple[float, float, Job]
"""A job on the clock of the calendar: when it was submitted, how long it ran, what it asked for."""


def collect(
    path: Path, rows: Iterable[tuple[int, SimJob]], tally: Tally, *, limit: int | None = None
) -> Trace:
    """Return the trace of all ``rows``, jobs sorted by their submission, those of one time as in the file.

    Raises TooLarge beyond ``limit`` jobs (None: MAX_JOBS), before they fill the memory.
    """
    with collector_paused():
        found = _at_most(path, rows, limit)
        found.sort(key=lambda entry: entry[1].submit_s)
        jobs, numbers = tuple([job for _, job in found]), tuple([row for row, _ in found])
    return Trace(source=str(path), jobs=jobs, rows=numbers, skipped=tally.skipped)


def collect_dated(
    path: Path, rows: Iterable[tuple[int, Dated]], tally: Tally, *, limit: int | None = None
) -> Trace:
    """Return the trace of all ``rows`` as ``collect`` does, with its clock at 0 at the first submission."""
    with collector_paused():
        found = _at_most(path, rows, limit)
        found.sort(key=lambda entry: entry[1][0])
        first_s = found[0][1][0] if found else 0.0
        jobs = [
            SimJob(job=job, submit_s=at_s - first_s, duration_s=duration_s)
            for _, (at_s, duration_s, job) in found
        ]
        numbers = tuple([row for row, _ in found])
    return Trace(source=str(path), jobs=tuple(jobs), rows=numbers, skipped=tally.skipped)


def _at_most(path: Path, rows: Iterable[tuple[int, T]], limit: int | None) -> list[tuple[int, T]]:
    most = MAX_JOBS if limit is None else limit
    found: list[tuple[int, T]] = []
    for entry in rows:
        if len(found) == most:
            raise too_many(path, most, entry[0])
        found.append(entry)
    return found


def too_many(path: Path, most: int, row: int) -> TooLarge:
    """Return the error to raise at the first row beyond ``most`` jobs."""
    return TooLarge(
        path, f"expected at most {most} jobs, got more", row=row, hint="raise the limit, or split the file"
    )


class Requests:
    """Requests for devices, each made once and shared by all the jobs that ask for the same."""

    def __init__(self, accelerator: str | None = None) -> None:
        self._accelerator = accelerator
        self._made: dict[tuple[str | None, int], tuple[DeviceRequest, ...]] = {}

    def devices(self, count: int, accelerator: str | None = None) -> tuple[DeviceRequest, ...]:
        """Return the request for ``count`` whole devices, of the given or else the usual accelerator."""
        return self.milli(count * MILLI, accelerator)

    def milli(self, milli: int, accelerator: str | None = None) -> tuple[DeviceRequest, ...]:
        """Return the request for ``milli`` thousandths: of one device below 1000, else whole ones."""
        key = (accelerator or self._accelerator, milli)
        made = self._made.get(key)
        if made is None:
            made = (DeviceRequest(min_milli=milli, max_milli=milli, accelerator=key[0]),)
            self._made[key] = made
        return made


def pools_of(names: Iterable[str]) -> tuple[tuple[Pool, ...], tuple[Center, ...]]:
    """Return pools with these names, and their center, as a fleet that is only simulated has them."""
    pools = tuple(Pool(name=name, engine=ENGINE) for name in dict.fromkeys(names))
    return pools, (Center(name="default"),)
