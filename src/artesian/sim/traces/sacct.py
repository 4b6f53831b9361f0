"""Slurm's accounting, as ``sacct`` prints it.

::

    sacct -a -P -S 2026-01-01 -E 2026-02-01 -o JobID,State,Submit,Start,End,Elapsed,Timelimit,\\
          ReqTRES,AllocTRES,Account,User,Priority > jobs.txt

Needed are JobID, State, Submit, AllocTRES or ReqTRES, and Elapsed, ElapsedRaw or both Start and End; more
columns may come. What a job asks for is ``gres/gpu[:type]=N`` of ReqTRES, of AllocTRES where that names no
GPU; CPUs and memory are shared out over the GPUs. The account is the team, the time limit the estimate, and
Priority the priority: leave the column out where it is not to count (it contains age and fair share).

Left out and counted, because they are no job of ours: steps (``7.batch``), components of heterogeneous
jobs (``7+1``), what still runs, what never started, what asks for no GPU or for several types. A job that
was requeued (``sacct -D`` prints each run) is one job with its first submission and its last run. A
job takes as long as it took, whatever its end was: failed, cancelled and timed-out jobs hold devices, too.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from artesian.model.fields import MAX_DURATION_S
from artesian.model.job import Job, JobKind
from artesian.sim.traces.table import BadRows, Row, Table
from artesian.sim.traces.trace import (
    COMMAND,
    MAX_JOBS,
    NO_ENV,
    Dated,
    Requests,
    Trace,
    collect_dated,
    too_many,
)
from artesian.sim.traces.tres import NoTres, Tres, parse_tres

COLUMNS = ("JobID", "State", "Submit")
DELIMITER = "|"

TRES_COLUMNS = ("ReqTRES", "AllocTRES")
ANY_OF = (
    (("ReqTRES",), ("AllocTRES",)),
    (("Elapsed",), ("ElapsedRaw",), ("Start", "End")),
)
"""Of each line, one group of columns must be there."""

_RUNS = frozenset(
    {"RUNNING", "SUSPENDED", "RESIZING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING", "STOPPED"}
)
_WAITS = frozenset({"PENDING", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD", "REVOKED"})
_OVER = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "LAUNCH_FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "RECONFIG_FAIL",
        "REQUEUED",
        "TIMEOUT",
    }
)
_NO_TIME = frozenset({"", "Unknown", "None", "N/A"})
_NO_LIMIT = frozenset({"", "UNLIMITED", "Partition_Limit", "INVALID"})
_ID = re.compile(r"([0-9]{1,12})(_[0-9]{1,9})?(\+[0-9]{1,6})?(\.[^|]{1,60})?")
_WAITING_ARRAY = re.compile(r"[0-9]{1,12}_\[[^|]{0,1000}\]")
_EPOCH = re.compile(r"[0-9]{9,11}")
_CLOCK = re.compile(r"(?:([0-9]{1,6})-)?(?:([0-9]{1,6}):)?([0-9]{1,6}):([0-9]{1,2})(?:\.[0-9]{1,9})?")


def read(
    path: Path,
    *,
    bad_rows: BadRows = BadRows.REFUSE,
    limit: int | None = None,
    accelerators: Mapping[str, str] | None = None,
) -> Trace:
    """Return the jobs that ``sacct`` tells of; the first one is submitted at 0.

    ``accelerators`` says what the site's gres types are (``{"a100": "A100-SXM4-80GB"}``); a type that it does
    not have is taken as it stands. Raises TraceError.
    """
    table = Table(
        path, required=COLUMNS, delimiter=DELIMITER, is_quoted=False, bad_rows=bad_rows, any_of=ANY_OF
    )
    reading = _Reading({name.lower(): kind for name, kind in (accelerators or {}).items()})
    runs = _last_runs(path, table, reading, MAX_JOBS if limit is None else limit)
    return collect_dated(path, runs, table.tally, limit=limit)


def _last_runs(path: Path, table: Table, reading: "_Reading", most: int) -> Iterator[tuple[int, Dated]]:
    """Yield one job for all the runs that have its id, with the row of the last one."""
    found: dict[str, tuple[int, Dated]] = {}
    for number, (submit_s, duration_s, job) in table.rows(reading.run):
        before = found.get(job.id)
        if before is not None:
            table.tally.add("an earlier run of a job that was requeued", before[0])
            submit_s = min(submit_s, before[1][0])
        elif len(found) == most:
            raise too_many(path, most, number)
        found[job.id] = (number, (submit_s, duration_s, job))
    for id in sorted(reading.unfinished & found.keys()):
        table.tally.add("the last run of a requeued job is not over", found.pop(id)[0])
    yield from found.values()


class _Reading:
    """Converts rows. ``unfinished`` has the ids of jobs whose latest run is not over."""

    def __init__(self, accelerators: Mapping[str, str]) -> None:
        self.unfinished: set[str] = set()
        self._accelerators = accelerators
        self._requests = Requests()
        self._parsed: dict[str, Tres] = {}

    def run(self, row: Row) -> Dated:
        """Return one run of a job."""
        id = self._id(row)
        state = row.text("State").split()[0].removesuffix("+")
        if state in _RUNS or state in _WAITS:
            self.unfinished.add(id)
            row.pass_over("the job is not over" if state in _RUNS else "the job never started", "State")
        if state not in _OVER:
            row.refuse("State", "a state of Slurm, such as COMPLETED")
        self.unfinished.discard(id)
        duration_s = _duration_s(row)
        if not duration_s:
            row.pass_over("the job never started, or ran for less than a second", "State")
        column, tres = self._tres(row)
        if tres.is_mixed:
            row.pass_over("the job asks for several types of device", column)
        if not tres.devices:
            row.pass_over("the job asks for no device", column)
        kind = None if tres.type is None else self._accelerators.get(tres.type.lower(), tres.type)
        name = f"slurm-{id}"
        job = Job(
            id=id,
            name=name,
            command=COMMAND,
            devices=self._requests.devices(tres.devices, kind),
            workdir="/",
            kind=JobKind.BATCH,
            team=row.text("Account") if row.has("Account") else "default",
            user=row.text("User") if row.has("User") else "",
            env=NO_ENV,
            cpus_per_device=tres.cpus_per_device,
            memory_bytes_per_device=tres.memory_bytes_per_device,
            priority=row.count("Priority", most=2**32) if row.has("Priority") else 0,
            estimated_duration_s=_limit_s(row),
        )
        return _time_s(row, "Submit"), duration_s, job

    def _id(self, row: Row) -> str:
        text = row.text("JobID")
        if _WAITING_ARRAY.fullmatch(text):
            row.pass_over("the tasks of an array that never started", "JobID")
        match = _ID.fullmatch(text)
        if match is None:
            row.refuse("JobID", "the id of a job, such as 7, 7_1 or 7.batch")
        number, task, component, step = match.groups()
        if step is not None:
            row.pass_over("a step of a job", "JobID")
        if component is not None:
            row.pass_over("a component of a heterogeneous job", "JobID")
        return f"{number}{task or ''}"

    def _tres(self, row: Row) -> tuple[str, Tres]:
        for column in (column for column in TRES_COLUMNS if row.has_column(column)):
            text = row.text(column) if row.has(column) else ""
            try:
                if text not in self._parsed:
                    self._parsed[text] = parse_tres(text)
            except NoTres as error:
                row.refuse(column, f"resources such as cpu=8,mem=64G,gres/gpu=4: {error}")
            tres = self._parsed[text]
            if tres.devices or tres.is_mixed:
                break
        return column, tres


def _duration_s(row: Row) -> float:
    """Return for how long the job ran."""
    if row.has("ElapsedRaw"):
        return row.figure("ElapsedRaw")
    if row.has("Elapsed"):
        return _clock_s(row, "Elapsed")
    if not (row.has_column("Start") and row.has_column("End")):
        row.refuse("ElapsedRaw" if row.has_column("ElapsedRaw") else "Elapsed", "a duration")
    if not row.has("Start") or row.text("Start") in _NO_TIME:
        return 0.0
    duration_s = _time_s(row, "End") - _time_s(row, "Start")
    if not 0 <= duration_s <= MAX_DURATION_S:
        row.refuse("End", "a time that is not before Start, and at most 100 years after it")
    return duration_s


def _limit_s(row: Row) -> float | None:
    if row.has("TimelimitRaw"):
        is_none = row.text("TimelimitRaw") in _NO_LIMIT
        return None if is_none else 60.0 * row.figure("TimelimitRaw", most=MAX_DURATION_S / 60)
    if not row.has("Timelimit") or row.text("Timelimit") in _NO_LIMIT:
        return None
    return _clock_s(row, "Timelimit")


def _clock_s(row: Row, column: str) -> float:
    """Return the seconds of ``[DD-[HH:]]MM:SS``."""
    match = _CLOCK.fullmatch(row.text(column))
    if match is not None and not (match[1] is not None and match[2] is None):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        total_s = 86400.0 * days + 3600.0 * hours + 60.0 * minutes + seconds
    else:
        total_s = math.inf
    if total_s > MAX_DURATION_S:
        row.refuse(column, "a time such as 1-02:03:04")
    return total_s


def _time_s(row: Row, column: str) -> float:
    text = row.text(column)
    if text in _NO_TIME:
        row.refuse(column, "a date and time that is known")
    return float(text) if _EPOCH.fullmatch(text) else row.time_s(column)
