"""Formats of traces by name, and by what a file begins with."""

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from artesian.sim.traces import (
    alibaba_spot,
    azure,
    gavel,
    openb,
    own,
    own_yaml,
    philly,
    philly_deadlines,
    sacct,
)
from artesian.sim.traces.errors import MissingOption, UnknownFormat
from artesian.sim.traces.table import BadRows, unreadable
from artesian.sim.traces.trace import Trace

_HEAD_BYTES = 2**16


class ReadOptions(Struct, frozen=True, kw_only=True, gc=False):
    """What a caller may say about a reading; a format takes what concerns it.

    ``limit``: most jobs (None: trace.MAX_JOBS). ``accelerator``: what devices the jobs ask for where the trace
    does not tell. ``replica``: what one replica of a service does. ``throughputs``: Gavel's measurements.
    """

    bad_rows: BadRows = BadRows.REFUSE
    limit: int | None = None
    accelerator: str | None = None
    replica: azure.Replica | None = None
    throughputs: Path | None = None


class Format(Struct, frozen=True, kw_only=True, gc=False):
    """A kind of file. It is one if its header, cells parted by ``delimiter``, has all of ``columns``; a
    YAML file (``columns`` empty) if it has the key ``key``."""

    name: str
    what: str
    read: Callable[[Path, ReadOptions], Trace]
    columns: tuple[str, ...] = ()
    delimiter: str = ","
    key: str | None = None


def _azure(path: Path, options: ReadOptions) -> Trace:
    if options.replica is None:
        raise MissingOption(
            path,
            "expected the speed of a replica with a trace of requests, got none",
            hint="give the tokens per second that one replica reads and writes, as measured: --replica 9000/600",
        )
    return azure.read(path, replica=options.replica, bad_rows=options.bad_rows, limit=options.limit)


FORMATS: tuple[Format, ...] = (
    Format(
        name="jobs-csv",
        what="our own table of jobs",
        columns=own.COLUMNS,
        read=lambda path, options: own.read(path, bad_rows=options.bad_rows, limit=options.limit),
    ),
    Format(
        name="jobs-yaml",
        what="our own list of jobs",
        key="jobs",
        read=lambda path, options: own_yaml.read(path, limit=options.limit),
    ),
    Format(
        name="fleet-csv",
        what="our own table of pools",
        columns=own.FLEET_COLUMNS,
        read=lambda path, options: own.read_fleet(path, bad_rows=options.bad_rows),
    ),
    Format(
        name="fleet-yaml",
        what="a fleet file",
        key="pools",
        read=lambda path, _: own_yaml.read_fleet(path),
    ),
    Format(
        name="sacct",
        what="Slurm's accounting, from sacct -P",
        columns=sacct.COLUMNS,
        delimiter=sacct.DELIMITER,
        read=lambda path, options: sacct.read(path, bad_rows=options.bad_rows, limit=options.limit),
    ),
    Format(
        name="philly",
        what="Microsoft's Philly jobs",
        columns=philly.COLUMNS,
        read=lambda path, options: philly.read(
            path, bad_rows=options.bad_rows, limit=options.limit, accelerator=options.accelerator
        ),
    ),
    Format(
        name="philly-deadlines",
        what="Philly's jobs with Chronus's deadlines",
        columns=philly_deadlines.COLUMNS,
        read=lambda path, options: philly_deadlines.read(
            path, bad_rows=options.bad_rows, limit=options.limit, accelerator=options.accelerator
        ),
    ),
    Format(
        name="gavel",
        what="Gavel's stream of jobs, with its throughputs",
        columns=gavel.COLUMNS,
        read=lambda path, options: gavel.read(
            path, throughputs=options.throughputs, bad_rows=options.bad_rows, limit=options.limit
        ),
    ),
    Format(
        name="alibaba-spot",
        what="the nodes of Alibaba's spot trace",
        columns=alibaba_spot.COLUMNS,
        read=lambda path, options: alibaba_spot.read(path, bad_rows=options.bad_rows),
    ),
    Format(
        name="openb-nodes",
        what="the nodes of Alibaba's openb trace",
        columns=openb.NODE_COLUMNS,
        read=lambda path, options: openb.read_nodes(path, bad_rows=options.bad_rows),
    ),
    Format(
        name="openb-pods",
        what="the pods of Alibaba's openb trace, with their times",
        columns=(*openb.POD_COLUMNS, *openb.TIME_COLUMNS),
        read=lambda path, options: openb.read_pods(path, bad_rows=options.bad_rows, limit=options.limit),
    ),
    Format(
        name="azure",
        what="Azure's requests to language models, as the replicas of a service",
        columns=azure.COLUMNS,
        read=_azure,
    ),
)


def names() -> tuple[str, ...]:
    """Return the names of all formats."""
    return tuple(known.name for known in FORMATS)


def read_trace(path: Path, *, format: str | None = None, options: ReadOptions | None = None) -> Trace:
    """Return the trace in a file of the named ``format`` (None: what the file begins with decides).

    Raises TraceError; UnknownFormat lists the formats that there are.
    """
    chosen = sniff(path) if format is None else named(path, format)
    return chosen.read(path, options or ReadOptions())


def named(path: Path, name: str) -> Format:
    """Return the format of that name, for reading ``path``. Raises UnknownFormat."""
    for known in FORMATS:
        if known.name == name:
            return known
    raise UnknownFormat(path, f"expected the name of a format, got {name!r}", known=names())


def sniff(path: Path) -> Format:
    """Return the format that a file has, by its header or its first keys. Raises TraceError.

    Of several formats that would do, it is the one with the most columns. Where none does, and at least half of the
    columns of one are there, it is that one: its reader tells which column is missing.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES).decode("utf-8-sig", "replace")
    except OSError as error:
        raise unreadable(path, error) from error
    lines = [line for line in head.splitlines() if line.strip()]
    header = lines[0] if lines else ""
    fitting = [known for known in FORMATS if known.columns and set(known.columns) <= _cells(header, known)]
    if fitting:
        return max(fitting, key=lambda known: len(known.columns))
    for known in FORMATS:
        if known.key is not None and _has_key(lines, known.key):
            return known
    nearest = max(FORMATS, key=lambda known: _share(header, known))
    if 2 * _share(header, nearest) >= 1:
        return nearest
    shown = header if len(header) <= 60 else header[:59] + "…"
    raise UnknownFormat(
        path,
        f"expected a trace, got a file that begins with {shown!r}",
        known=names(),
        hint=f"say which format it is, or name its columns as ours are: {', '.join(own.COLUMNS)} for jobs, "
        f"{', '.join(own.FLEET_COLUMNS)} for a fleet",
    )


def _share(header: str, known: Format) -> float:
    """Return how many of the format's columns the header has, as a part of them."""
    return (
        len(_cells(header, known).intersection(known.columns)) / len(known.columns) if known.columns else 0.0
    )


def _cells(header: str, known: Format) -> set[str]:
    try:
        cells: Sequence[str] = next(csv.reader([header], delimiter=known.delimiter), [])
    except csv.Error:
        return set()
    return {cell.strip() for cell in cells}


def _has_key(lines: Sequence[str], key: str) -> bool:
    """Return whether a line begins with the key of a mapping, in block or in flow style."""
    return any(re.match(rf"""\{{?\s*["']?{key}["']?\s*:""", line) for line in lines)
