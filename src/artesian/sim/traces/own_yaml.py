"""Our own jobs as YAML: a list of jobs with their times.

::

    jobs:
      - {submit: 0s, duration: 2h, devices: "H100:8", team: vision}
      - {submit: 5m, duration: 90s, devices: "0.5", name: probe, kind: service, checkpoint_every: 10m}

The keys are the columns of ``own`` with times as durations (``deadline: 1d``) instead of seconds, and
``steps_per_s`` as a mapping (``{V100: 3.2, K80: 1.1}``). A document holds about a thousand jobs; for more
there is CSV. Fleets as YAML are ``sim.fleet``'s.
"""

from pathlib import Path

from artesian.model import document, fields
from artesian.model.document import DocumentError
from artesian.model.errors import JobError
from artesian.model.fields import Reader, Section, refuse, refuse_type
from artesian.model.fields import path as path_of
from artesian.model.job import Job, JobKind
from artesian.model.resources import DeviceRequest
from artesian.sim.fleet import parse_fleet
from artesian.sim.jobs import SimJob
from artesian.sim.traces.errors import BadDocument, UnreadableTrace
from artesian.sim.traces.own import MAX_STEPS, devices_of
from artesian.sim.traces.table import Tally, number, unreadable
from artesian.sim.traces.trace import COMMAND, NO_ENV, Trace, collect

KEYS = (
    "submit",
    "duration",
    "devices",
    "name",
    "kind",
    "team",
    "user",
    "priority",
    "cpus_per_device",
    "memory_per_device",
    "estimated_duration",
    "deadline",
    "start_up",
    "checkpoint_every",
    "profile",
    "steps",
    "steps_per_s",
)
"""The keys of a job; the first three must be given."""

_EXAMPLE = 'jobs: [{submit: 0s, duration: 2h, devices: "H100:8"}]'
_JOB = _EXAMPLE.removeprefix("jobs: [").removesuffix("]")
_PRIORITY = fields.integer(least=-(10**9), most=10**9)


def read(path: Path, *, limit: int | None = None) -> Trace:
    """Return the jobs of a file. Raises TraceError: BadDocument has every mistake in it."""
    text = _text(path)
    root, mistakes = document.compose(text, what="jobs", hint=f"a file of jobs has at least {_EXAMPLE}")
    reader = Reader(mistakes)
    names: dict[str, int] = {}

    def jobs(node: document.Node, subject: str) -> tuple[tuple[int, SimJob], ...]:
        file = reader.section(node, subject, keys=("jobs",), what="a file of jobs", example=_EXAMPLE)
        converter = lambda item, at: reader.items(item, at, lambda n, s: _job(reader, n, s, names), "jobs")  # noqa: E731
        return file.require("jobs", converter, _EXAMPLE) or ()

    found = reader.convert(root, "", jobs, ())
    if reader.mistakes:
        raise BadDocument(path, DocumentError(str(path), reader.mistakes))
    return collect(path, found, Tally(), limit=limit)


def read_fleet(path: Path) -> Trace:
    """Return the fleet of a fleet file; there are no jobs. Raises TraceError."""
    try:
        return Trace(source=str(path), fleet=parse_fleet(_text(path), source=str(path)))
    except DocumentError as error:
        raise BadDocument(path, error) from error


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(document.MAX_BYTES + 1)
        return raw.decode("utf-8-sig", "strict" if len(raw) <= document.MAX_BYTES else "replace")
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise UnreadableTrace(path, "expected text in UTF-8, got something else") from error


def _job(
    reader: Reader, node: document.Node, subject: str, names: dict[str, int]
) -> tuple[int, SimJob] | None:
    before = len(reader.mistakes)
    file = reader.section(node, subject, keys=KEYS, what="a job", example=_JOB)
    submit_s = file.require("submit", fields.duration_s, "submit: 0s")
    duration_s = file.require("duration", fields.duration_s, "duration: 2h")
    devices = file.require("devices", _devices, 'devices: "H100:8"')
    line = node.at.line
    # Of two jobs in one line only the position in the list tells which is which.
    name = file.read("name", _name, f"job-{subject.removeprefix('jobs[').removesuffix(']')}")
    if name in names:
        reader.note(
            file.at("name"),
            path_of(subject, "name"),
            f"expected each name once, got {name!r} in line {names[name]} and again in line {line}",
            "give one of the two another name",
        )
    names.setdefault(name, line)
    kind = file.read("kind", fields.choice(JobKind), JobKind.BATCH)
    team, user = file.read("team", fields.word, "default"), file.read("user", fields.word, "")
    priority = file.read("priority", _PRIORITY, 0)
    cpus = file.read("cpus_per_device", fields.number(least=0.001), None)
    memory_bytes = file.read("memory_per_device", fields.size_bytes, None)
    times = _times(file)
    profile = file.read("profile", fields.word, None)
    steps = file.read("steps", fields.integer(least=1, most=int(MAX_STEPS)), None)
    speeds = file.read("steps_per_s", lambda item, at: _speeds(reader, item, at), {})
    if submit_s is None or duration_s is None or devices is None or len(reader.mistakes) > before:
        return None
    job = Job(
        id=name,
        name=name,
        command=COMMAND,
        devices=devices,
        workdir="/",
        kind=kind,
        team=team,
        user=user,
        env=NO_ENV,
        cpus_per_device=cpus,
        memory_bytes_per_device=memory_bytes,
        priority=priority,
        estimated_duration_s=times["estimated_duration"],
        profile=profile,
        total_steps=None if steps is None else float(steps),
    )
    return line, SimJob(
        job=job,
        submit_s=submit_s,
        duration_s=duration_s,
        start_up_s=times["start_up"] or 0.0,
        deadline_s=times["deadline"],
        checkpoint_every_s=times["checkpoint_every"],
        steps_per_s=speeds,
    )


def _times(file: Section) -> dict[str, float | None]:
    keys = ("estimated_duration", "start_up", "deadline")
    times: dict[str, float | None] = {key: file.read(key, fields.duration_s, None) for key in keys}
    times["checkpoint_every"] = file.read("checkpoint_every", _interval_s, None)
    return times


def _interval_s(node: document.Node, subject: str) -> float:
    value = fields.duration_s(node, subject)
    if value == 0:
        refuse_type(node, subject, "a time above 0")
    return value


def _devices(node: document.Node, subject: str) -> tuple[DeviceRequest, ...]:
    hint = "write it like H100:8, A100:4..8, 0.5, or H100:8 | 910B:16"
    requests = devices_of(fields.scalar(node, subject, "a resource string", hint))
    if requests is None:
        refuse_type(node, subject, f"a resource string for at most {fields.MAX_COUNT} devices", hint)
    return requests


def _name(node: document.Node, subject: str) -> str:
    text = fields.word(node, subject)
    try:
        Job(id=text, name=text, command=COMMAND, devices=_ANY, workdir="/")
    except JobError as error:
        refuse(node, subject, str(error).removeprefix("name: "))
    return text


_ANY = (DeviceRequest(min_milli=1000, max_milli=1000),)


def _speeds(reader: Reader, node: document.Node, subject: str) -> dict[str, float]:
    def speed(item: document.Node, at: str) -> float:
        value = number(fields.scalar(item, at, "steps per second"))
        if value is None or value < 0:
            refuse_type(item, at, "steps per second of at least 0")
        return value

    speeds: dict[str, float] = {}
    for name, (_, value) in reader.entries(node, subject, "devices and steps per second").items():
        found = reader.convert(value, path_of(subject, name), speed, None)
        if found is not None:
            speeds[name] = found
    return speeds
