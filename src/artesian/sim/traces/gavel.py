"""Gavel's measurements and its stream of jobs (Narayanan et al., OSDI 2020).

``throughputs.json``: steps per second by device type (``v100``, and ``v100_unconsolidated`` for a gang
that is spread over nodes), by job type and size of the gang (``"('ResNet-18 (batch size 16)', 1)"``), alone
(``"null"``) and next to another job on the same devices (a pair: its own, the other's). 0 means that
it does not run there.

The stream is CSV: ``job_id``, ``arrival_s``, ``job_type``, ``scale_factor`` (the gang), ``total_steps``. A
job runs at its type's rate on the devices that it is on, so a stream is read together with the rates.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from artesian.model.fields import MAX_COUNT
from artesian.model.fleet import Fleet, Node
from artesian.model.job import Job, JobKind
from artesian.sim.fleet import common_figure
from artesian.sim.jobs import SimJob
from artesian.sim.traces.errors import BadCell, TraceError, UnreadableTrace
from artesian.sim.traces.table import BadRows, Row, Table, unreadable
from artesian.sim.traces.trace import COMMAND, NO_ENV, Requests, Trace, collect, pools_of

COLUMNS = ("job_id", "arrival_s", "job_type", "scale_factor", "total_steps")

ACCELERATORS = ("V100", "P100", "K80")
"""The device types of the measurements; a job's choices are in this order."""

MAX_BYTES = 2**26
"""Largest file of throughputs; Gavel's own has 1.2 MB."""

_UNCONSOLIDATED = "_unconsolidated"
_ALONE = "null"
_KEY = re.compile(r"\('([^'\\]{1,200})', ([1-9][0-9]{0,6})\)")

Kind = tuple[str, int]
"""A job type and the size of its gang."""


class Throughputs(Struct, frozen=True, kw_only=True, gc=False):
    """Steps per second of a whole gang. Keys of both mappings begin with the accelerator, in upper case,
    and whether the gang is consolidated on as few nodes as can be."""

    alone: Mapping[tuple[str, bool, Kind], float]
    pairs: Mapping[tuple[str, bool, Kind, Kind], tuple[float, float]]

    def steps_per_s(
        self, model: str, gang: int, accelerator: str, *, is_consolidated: bool = True
    ) -> float | None:
        """Return the rate of a job that has its devices to itself: 0 where it cannot run, None if not measured."""
        return self.alone.get((accelerator, is_consolidated, (model, gang)))

    def together(
        self, one: Kind, other: Kind, accelerator: str, *, is_consolidated: bool = True
    ) -> tuple[float, float] | None:
        """Return the rates of both jobs when they share their devices; None if that was not measured."""
        return self.pairs.get((accelerator, is_consolidated, one, other))

    @property
    def models(self) -> tuple[str, ...]:
        """The job types, sorted."""
        return tuple(sorted({kind[0] for _, _, kind in self.alone}))


def read_throughputs(path: Path) -> Throughputs:
    """Return the measurements in a ``throughputs.json``. Raises TraceError, which names the entry."""
    alone: dict[tuple[str, bool, Kind], float] = {}
    pairs: dict[tuple[str, bool, Kind, Kind], tuple[float, float]] = {}
    for device, kinds in _mapping(path, "file", _load(path)).items():
        is_consolidated = not device.endswith(_UNCONSOLIDATED)
        accelerator = device.removesuffix(_UNCONSOLIDATED).upper()
        for text, rates in _mapping(path, device, kinds).items():
            kind = _kind(path, device, text)
            for other, rate in _mapping(path, f"{device}.{text}", rates).items():
                at = f"{device}.{text}.{other}"
                if other == _ALONE:
                    alone[accelerator, is_consolidated, kind] = _rate(path, at, rate)
                    continue
                if not isinstance(rate, list) or len(rate) != 2:
                    raise _bad(path, at, "a pair of steps per second", rate)
                pairs[accelerator, is_consolidated, kind, _kind(path, at, other)] = (
                    _rate(path, at, rate[0]),
                    _rate(path, at, rate[1]),
                )
    return Throughputs(alone=alone, pairs=pairs)


def read(
    path: Path,
    *,
    throughputs: Throughputs | Path | None = None,
    bad_rows: BadRows = BadRows.REFUSE,
    limit: int | None = None,
) -> Trace:
    """Return a stream of jobs, on the clock of the file, each with its steps and its rates.

    ``throughputs`` are the measurements or their file (None: the ``throughputs.json`` next to ``path``). A
    job may run on every device type that its type runs on; ``duration_s`` is that on the first. Raises TraceError.
    """
    speeds = throughputs
    if not isinstance(speeds, Throughputs):
        speeds = read_throughputs(speeds or path.with_name("throughputs.json"))
    table = Table(path, required=COLUMNS, bad_rows=bad_rows)
    requests = Requests()
    seen: set[int] = set()
    rates_of: dict[Kind, dict[str, float]] = {}

    def job(row: Row) -> SimJob:
        model, gang = row.text("job_type"), row.count("scale_factor", least=1)
        if (model, gang) not in rates_of:
            measured = {name: speeds.steps_per_s(model, gang, name) for name in ACCELERATORS}
            rates_of[model, gang] = {name: rate for name, rate in measured.items() if rate}
        rates = rates_of[model, gang]
        if not rates:
            row.refuse("job_type", "a job type and a gang of which the throughput was measured")
        id = f"job-{row.new('job_id', row.count('job_id', most=10**12), seen)}"
        steps = row.figure("total_steps", least=1e-3, most=1e15)
        return SimJob(
            job=Job(
                id=id,
                name=id,
                command=COMMAND,
                devices=tuple(request for name in rates for request in requests.devices(gang, name)),
                workdir="/",
                kind=JobKind.TRAIN,
                env=NO_ENV,
                profile=model,
                total_steps=steps,
            ),
            submit_s=row.figure("arrival_s"),
            duration_s=steps / next(iter(rates.values())),
            steps_per_s=rates,
        )

    return collect(path, table.rows(job), table.tally, limit=limit)


def fleet(*, v100: int = 36, p100: int = 36, k80: int = 36, devices_per_node: int = 4) -> Fleet:
    """Return a fleet of Gavel's device types, 36 of each as in its simulations.

    Raises ValueError unless each count is a multiple of ``devices_per_node``.
    """
    nodes = []
    for accelerator, count in zip(ACCELERATORS, (v100, p100, k80), strict=True):
        if devices_per_node < 1 or count < 0 or count % devices_per_node:
            raise ValueError(f"fleet: expected whole nodes of {devices_per_node} {accelerator}, got {count}")
        name = accelerator.lower()
        nodes += [
            Node(
                id=f"{name}-{number}",
                pool=name,
                accelerator=accelerator,
                devices=devices_per_node,
                cpus=8 * devices_per_node,
                memory_bytes=devices_per_node * 60 * 10**9,
                vendor="nvidia",
                peak_flops=common_figure(accelerator, lambda row: row.trusted_peak_flops),
            )
            for number in range(count // devices_per_node)
        ]
    pools, centers = pools_of(node.pool for node in nodes)
    return Fleet(nodes=tuple(nodes), pools=pools, centers=centers)


# -- JSON ---------------------------------------------------------------------------------------------


def _load(path: Path) -> object:
    hint = "Gavel's throughputs.json maps device types to job types to steps per second"
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_BYTES:
            raise UnreadableTrace(path, f"expected at most {MAX_BYTES} bytes, got {size_bytes}", hint=hint)
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise unreadable(path, error) from error
    except json.JSONDecodeError as error:
        raise UnreadableTrace(
            path, f"expected JSON, got: {error.msg}", row=error.lineno, column=str(error.colno), hint=hint
        ) from error
    except (ValueError, RecursionError) as error:  # bytes that are no text; numbers and nesting without end
        raise UnreadableTrace(path, "expected JSON in UTF-8, got something else", hint=hint) from error


def _mapping(path: Path, at: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _bad(path, at, "a mapping", value)
    return value


def _kind(path: Path, at: str, text: str) -> Kind:
    match = _KEY.fullmatch(text)
    if match is None or int(match[2]) > MAX_COUNT:
        raise _bad(path, at, "a job type such as ('LM (batch size 5)', 1)", text)
    return match[1], int(match[2])


def _rate(path: Path, at: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        try:
            return float(value)
        except OverflowError:
            pass
    raise _bad(path, at, "steps per second of at least 0", value)


def _bad(path: Path, at: str, expected: str, actual: object) -> TraceError:
    shown = repr(actual)
    shown = shown if len(shown) <= 60 else shown[:59] + "…"
    return BadCell(
        path, f"expected {expected}, got {shown}", column=at[:200], hint="take Gavel's file as it is"
    )
