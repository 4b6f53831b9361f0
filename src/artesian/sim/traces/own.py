"""Our own formats: jobs and fleets as CSV, for anyone's own trace; as YAML see ``own_yaml``.

Jobs, one a row. ``submit_s``, ``duration_s`` and ``devices`` must be there, the other columns may be; an
empty cell is as if its column were not there::

    submit_s              when it is submitted, in seconds from the start of the simulation
    duration_s            how long it runs on its first choice of devices, in seconds
    devices               a resource string: H100:8, A100:4..8, 0.5, H100:8 | 910B:16
    name                  its name and id, each once; job-2 for row 2 if there is none
    kind                  train, batch or service (batch)
    team, user, priority  who pays, whose it is, and how urgent: higher goes first (default, none, 0)
    cpus_per_device       CPUs of the host with each device
    memory_per_device     memory of the host with each device: 64GB
    estimated_duration_s  what its user said that it would take
    deadline_s            when it should be done, in seconds from the start of the simulation
    start_up_s            what every attempt takes to start up (0)
    checkpoint_every_s    time between two checkpoints
    profile               what kind of work it is, as tables of throughput name it
    steps                 how many steps it does
    steps_per_s           how many of them in a second, by device: V100=3.2;K80=1.1

Fleets, one pool a row: the columns ``name``, ``nodes``, ``accelerator``, ``devices``, ``cpus``, ``memory``
and, if you like, ``vendor``, ``device_memory``, ``center`` and ``rack_nodes`` (``8``, or ``8;8;4``), each as in the fleet file of ``sim.fleet``.
"""

from pathlib import Path

from artesian.model.errors import JobError, UnitError
from artesian.model.fields import MAX_COUNT, MAX_DURATION_S, MAX_SIZE_BYTES
from artesian.model.fleet import NO_CENTER, Node, Pool
from artesian.model.job import Job, JobKind
from artesian.model.resources import DeviceRequest, parse_devices
from artesian.model.units import parse_size_bytes
from artesian.sim.fleet import ENGINE, MAX_NODES, PoolEntry, common_figure, fleet_of, racks_of
from artesian.sim.jobs import SimJob
from artesian.sim.traces.errors import TooLarge
from artesian.sim.traces.table import BadRows, Row, Table, number
from artesian.sim.traces.trace import COMMAND, NO_ENV, Trace, collect

COLUMNS = ("submit_s", "duration_s", "devices")
MORE_COLUMNS = (
    "name",
    "kind",
    "team",
    "user",
    "priority",
    "cpus_per_device",
    "memory_per_device",
    "estimated_duration_s",
    "deadline_s",
    "start_up_s",
    "checkpoint_every_s",
    "profile",
    "steps",
    "steps_per_s",
)
FLEET_COLUMNS = ("name", "nodes", "accelerator", "devices", "cpus", "memory")
MORE_FLEET_COLUMNS = ("vendor", "device_memory", "center", "rack_nodes")

MIN_STEPS, MAX_STEPS = 1e-3, 1e15
_KINDS = {str(kind.value): kind for kind in JobKind}


def read(path: Path, *, bad_rows: BadRows = BadRows.REFUSE, limit: int | None = None) -> Trace:
    """Return the jobs of a table, on its own clock. Raises TraceError; a column that is not known is one."""
    table = Table(path, required=COLUMNS, optional=MORE_COLUMNS, bad_rows=bad_rows)
    return collect(path, table.rows(_Reading().job), table.tally, limit=limit)


def read_fleet(path: Path, *, bad_rows: BadRows = BadRows.REFUSE) -> Trace:
    """Return the fleet of a table of pools; there are no jobs. Raises TraceError."""
    table = Table(path, required=FLEET_COLUMNS, optional=MORE_FLEET_COLUMNS, bad_rows=bad_rows)
    seen: set[str] = set()
    pools: list[PoolEntry] = []
    total = 0
    for row, entry in table.rows(lambda row: _pool(row, seen)):
        total += entry.count
        if total > MAX_NODES:
            raise TooLarge(
                path, f"expected at most {MAX_NODES} nodes in all, got {total}", row=row, column="nodes"
            )
        pools.append(entry)
    return Trace(source=str(path), fleet=fleet_of(pools), skipped=table.tally.skipped)


class _Reading:
    """Converts rows to jobs; what many rows have in common is parsed once."""

    def __init__(self) -> None:
        self._devices: dict[str, tuple[DeviceRequest, ...]] = {}
        self._speeds: dict[str, dict[str, float]] = {"": {}}
        self._names: set[str] = set()

    def job(self, row: Row) -> SimJob:
        """Return the job in a row."""
        name = row.text("name") if row.has("name") else f"job-{row.number}"
        row.new("name" if row.has_column("name") else "submit_s", name, self._names)
        try:
            job = Job(
                id=name,
                name=name,
                command=COMMAND,
                devices=self._requests(row),
                workdir="/",
                kind=_kind(row),
                team=row.text("team") if row.has("team") else "default",
                user=row.text("user") if row.has("user") else "",
                env=NO_ENV,
                cpus_per_device=_optional(row, "cpus_per_device", least=0.001, most=MAX_COUNT),
                memory_bytes_per_device=_size_bytes(row, "memory_per_device"),
                priority=_priority(row),
                estimated_duration_s=_optional(row, "estimated_duration_s"),
                profile=row.text("profile") if row.has("profile") else None,
                total_steps=_optional(row, "steps", least=MIN_STEPS, most=MAX_STEPS),
            )
        except JobError as error:  # of all that a job may be refused for, only the name is left
            row.refuse("name", str(error).removeprefix("name: expected ").partition(", got ")[0])
        speeds = row.text("steps_per_s") if row.has("steps_per_s") else ""
        if speeds not in self._speeds:
            self._speeds[speeds] = _speeds(row, speeds)
        return SimJob(
            job=job,
            submit_s=row.figure("submit_s"),
            duration_s=row.figure("duration_s"),
            start_up_s=_optional(row, "start_up_s") or 0.0,
            deadline_s=_optional(row, "deadline_s"),
            checkpoint_every_s=_optional(row, "checkpoint_every_s", least=0.001),
            steps_per_s=self._speeds[speeds],
        )

    def _requests(self, row: Row) -> tuple[DeviceRequest, ...]:
        text = row.text("devices")
        if text not in self._devices:
            requests = devices_of(text)
            if requests is None:
                row.refuse(
                    "devices",
                    f"a resource string for at most {MAX_COUNT} devices",
                    hint="write it like H100:8, A100:4..8, 0.5, or H100:8 | 910B:16",
                )
            self._devices[text] = requests
        return self._devices[text]


def devices_of(text: str) -> tuple[DeviceRequest, ...] | None:
    """Return the alternatives in a resource string, None when it is not one that a fleet could have."""
    try:
        requests = parse_devices(text)
    except (ValueError, OverflowError):  # Python takes no number of more than 4,300 digits
        return None
    is_sane = all(
        request.max_devices <= MAX_COUNT and (request.memory_bytes or 0) <= MAX_SIZE_BYTES
        for request in requests
    )
    return requests if is_sane else None


def _optional(row: Row, column: str, *, least: float = 0.0, most: float = MAX_DURATION_S) -> float | None:
    return row.figure(column, least=least, most=most) if row.has(column) else None


def _kind(row: Row) -> JobKind:
    if not row.has("kind"):
        return JobKind.BATCH
    kind = _KINDS.get(row.text("kind"))
    if kind is None:
        row.refuse("kind", f"one of {', '.join(_KINDS)}")
    return kind


def _priority(row: Row) -> int:
    value = _optional(row, "priority", least=-1e9, most=1e9) or 0.0
    if value != int(value):
        row.refuse("priority", "a whole number")
    return int(value)


def _size_bytes(row: Row, column: str) -> int | None:
    if not row.has(column):
        return None
    try:
        size_bytes = parse_size_bytes(row.text(column))
    except (UnitError, ValueError, OverflowError):
        size_bytes = 0
    if not 1 <= size_bytes <= MAX_SIZE_BYTES:
        row.refuse(column, "a size with a unit, such as 64GB")
    return size_bytes


def _speeds(row: Row, text: str) -> dict[str, float]:
    speeds: dict[str, float] = {}
    for part in text.split(";"):
        name, _, figure = part.partition("=")
        value = number(figure.strip())
        if not name.strip() or value is None or value < 0 or name.strip() in speeds:
            row.refuse("steps_per_s", "steps per second by device, such as V100=3.2;K80=1.1")
        speeds[name.strip()] = value
    return speeds


def _rack_nodes(row: Row, nodes: int) -> tuple[int, ...]:
    if not row.has("rack_nodes"):
        return ()
    sizes = [number(part.strip()) for part in row.text("rack_nodes").split(";")]
    whole = [int(size) for size in sizes if size is not None and size == int(size) and 1 <= size <= MAX_NODES]
    racks = racks_of(whole, nodes) if len(whole) == len(sizes) else None
    if racks is None:
        row.refuse("rack_nodes", f"the nodes of a rack, such as 8, or of each, such as 8;8;4, {nodes} in all")
    return racks


def _pool(row: Row, seen: set[str]) -> PoolEntry:
    name = row.new("name", row.text("name"), seen)
    accelerator = row.text("accelerator")
    memory_bytes = _size_bytes(row, "memory")
    if memory_bytes is None:
        row.refuse("memory", "a size with a unit, such as 1TB")
    vendor = row.text("vendor") if row.has("vendor") else None
    nodes = row.count("nodes", least=1, most=MAX_NODES)
    return PoolEntry(
        pool=Pool(name=name, engine=ENGINE, center=row.text("center") if row.has("center") else NO_CENTER),
        count=nodes,
        rack_nodes=_rack_nodes(row, nodes),
        node=Node(
            id=name,
            pool=name,
            accelerator=accelerator,
            devices=row.count("devices", least=1, most=1024),
            cpus=row.count("cpus", least=1),
            memory_bytes=memory_bytes,
            vendor=vendor or common_figure(accelerator, lambda known: known.vendor),
            device_memory_bytes=_size_bytes(row, "device_memory")
            or common_figure(accelerator, lambda known: known.memory_bytes),
            peak_flops=common_figure(accelerator, lambda known: known.trusted_peak_flops),
        ),
    )
