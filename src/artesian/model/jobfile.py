"""Job files: YAML text in, a Job out. No file is opened, nothing of the machine is asked.

The keys, with their defaults, are in ``KEYS`` and in docs/reference. What is wrong with a file is
reported all at once, each mistake with its line: see ``document`` for what is taken from YAML.
"""

import posixpath
import re
import shlex
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from artesian import catalog
from artesian.model import document, fields
from artesian.model.document import DocumentError, Mistake, Node, describe
from artesian.model.errors import JobError, UnitError
from artesian.model.fields import Reader, path, refuse, refuse_type
from artesian.model.job import PRIORITY_CLASSES, Cause, Job, JobKind, RetryPolicy
from artesian.model.resources import DeviceRequest, parse_devices
from artesian.model.units import parse_duration_s
from artesian.wire import Fault, FaultKind

KEYS = (
    "name",
    "kind",
    "devices",
    "workers",
    "command",
    "env",
    "workdir",
    "data",
    "checkpoint",
    "retry",
    "priority",
    "team",
    "grace",
    "start_timeout",
    "cpus_per_device",
    "memory_per_device",
    "estimated_duration",
    "deadline",
    "parallel_share",
    "profile",
    "steps",
    "faults",
)
"""The keys of a job; ``name``, ``devices`` and ``command`` must be given."""

RETRY_KEYS = ("limit", "backoff", "max_backoff", "on", "in_place")
CHECKPOINT_KEYS = ("every", "interval")
FAULT_KEYS = ("kind", "worker", "step", "epoch", "restart")

RETRIABLE = tuple(cause for cause in Cause if cause not in {Cause.COMPLETED, Cause.CANCELLED})
"""Causes that ``retry: {on: [...]}`` may name: an end that can lead to another attempt."""

_EXAMPLE = "{name: first, devices: 1, command: [python, train.py]}"
_SHELL_WORDS = frozenset({"|", "||", "&", "&&", ";", "<", "<<", ">", ">>", "2>", "2>&1", "&>"})
_COUNT = re.compile(r"\d+(\.\.\d+)?|0?\.\d+")
_COUNTED_KIND = re.compile(r"(\d+)\s*(?:[x×*]\s*|\s)(\S.*)")
_DEVICES_HINT = (
    "write it like 8, H100:8, nvidia:A100:80GB:4..8, 0.5, H100:8 | 910B:16, or {H100: 8, 910B: 16}"
)
_MAX_STEP = 10**15
_EVERY = "steps such as 40, a duration such as 10m, or auto"
_PRIORITY = fields.integer(least=-(10**9), most=10**9, of=f", or {', '.join(PRIORITY_CLASSES)},")
_DEFAULTS = Job(id="", name="default", command=("true",), devices=parse_devices(1), workdir=".")
"""Where the defaults are: those of Job itself."""


class JobFileError(DocumentError):
    """A job file with mistakes: ``mistakes`` has all of them, ``str`` one line for each."""


def parse_job(
    text: str,
    *,
    source: str,
    job_id: str,
    base_dir: str,
    user: str = "",
    env: Mapping[str, str] = {},
    home: str | None = None,
) -> Job:
    """Return the job that a job file's ``text`` describes.

    ``source`` names the file in errors. ``base_dir`` is its folder: ``workdir`` and ``data`` are
    relative to it, and it is the default of ``workdir``. ``env`` is what the submitter's environment
    contributes; the file's ``env`` wins. ``~`` stands for ``home``, or for HOME in ``env``.

    Raises JobFileError with every mistake in the file.
    """
    root, mistakes = document.compose(text, what="a job", hint=f"a job has at least {_EXAMPLE}")
    return job_of(
        root, mistakes, source=source, job_id=job_id, base_dir=base_dir, user=user, env=env, home=home
    )


def job_of(
    root: Node,
    mistakes: list[Mistake],
    *,
    source: str,
    job_id: str,
    base_dir: str,
    user: str = "",
    env: Mapping[str, str] = {},
    home: str | None = None,
) -> Job:
    """Return the job that a document describes which was composed already, with these mistakes.

    Everything else is as in ``parse_job``. Raises JobFileError.
    """
    reading = _Reading(
        reader=Reader(mistakes),
        job_id=job_id,
        base_dir=base_dir,
        user=user,
        env=env,
        home=home or env.get("HOME"),
    )
    job = reading.reader.convert(root, "", reading.job, None)
    if reading.reader.mistakes:
        raise JobFileError(source, reading.reader.mistakes)
    assert job is not None
    return job


class _Reading(Struct, frozen=True, kw_only=True, gc=False):
    """One reading of a file: what the caller gave, and the mistakes so far."""

    reader: Reader
    job_id: str
    base_dir: str
    user: str
    env: Mapping[str, str]
    home: str | None

    def job(self, root: Node, subject: str) -> Job | None:
        """Return the job, or None when there is a mistake in it."""
        file = self.reader.section(root, subject, keys=KEYS, what="a job", example=_EXAMPLE)
        before = len(self.reader.mistakes)
        checkpoint = file.read("checkpoint", self._checkpoint, {})
        devices = file.require("devices", self._devices, "devices: H100:8")
        workers = file.read("workers", fields.integer(least=0), None)
        kind = file.read("kind", fields.choice(JobKind), _DEFAULTS.kind)
        is_gang_known = len(self.reader.mistakes) == before
        name = file.require("name", _name, "name: first-run")
        command = file.require("command", self._command, "command: [python, train.py]")
        job = replace(
            _DEFAULTS,
            id=self.job_id,
            name=name or _DEFAULTS.name,
            command=command or _DEFAULTS.command,
            devices=devices or _DEFAULTS.devices,
            workers=workers,
            workdir=file.read("workdir", self._path, posixpath.normpath(self.base_dir)),
            kind=kind,
            team=file.read("team", fields.word, _DEFAULTS.team),
            user=self.user,
            env={**self.env, **file.read("env", self._env, {})},
            cpus_per_device=file.read("cpus_per_device", fields.number(least=0.001), None),
            memory_bytes_per_device=file.read("memory_per_device", fields.size_bytes, None),
            priority=file.read("priority", _priority, _DEFAULTS.priority),
            grace_s=file.read("grace", fields.duration_s, _DEFAULTS.grace_s),
            start_timeout_s=file.read("start_timeout", _above_0("a duration above 0"), None),
            estimated_duration_s=file.read("estimated_duration", fields.duration_s, None),
            deadline_s=file.read("deadline", _above_0("a time after the submission"), None),
            parallel_share=file.read("parallel_share", fields.number(least=0, most=1), None),
            **checkpoint,
            profile=file.read("profile", fields.word, None),
            total_steps=file.read("steps", fields.integer(least=1, most=_MAX_STEP, of=" of steps"), None),
            dataset=file.read("data", self._path, None),
            retry=file.read("retry", self._retry, _DEFAULTS.retry),
        )
        # Without a gang (0) the command brings its own workers, and only it knows how many.
        most = max(request.max_devices for request in job.devices)
        gang = job.gang_size(most) if is_gang_known else 0
        faults = file.read("faults", lambda node, at: self._faults(node, at, gang), ())
        return None if self.reader.mistakes else replace(job, faults=faults)

    def _devices(self, node: Node, subject: str) -> tuple[DeviceRequest, ...]:
        if not isinstance(node, document.Mapping):
            text = fields.scalar(node, subject, "a resource string, a number or a mapping", _DEVICES_HINT)
            return _requests(node, subject, text)
        found = self.reader.entries(node, subject, "devices and counts")
        if not found:
            refuse_type(node, subject, "at least one kind of device", _DEVICES_HINT)
        alternatives: list[DeviceRequest] = []
        for kind, (_, value) in found.items():
            alternatives += self.reader.convert(value, path(subject, kind), _alternative(kind), ())
        return tuple(alternatives)

    def _command(self, node: Node, subject: str) -> tuple[str, ...]:
        if isinstance(node, document.List):
            words = self.reader.items(node, subject, _command_word, "words")
        else:
            words = _split(node, subject)
        if not words and not self.reader.mistakes:
            refuse_type(node, subject, "a command")
        return words

    def _env(self, node: Node, subject: str) -> dict[str, str]:
        env: dict[str, str] = {}
        for key, (at, value) in self.reader.entries(node, subject, "variables and their values").items():
            if not key or "=" in key:
                self.reader.note(at.at, subject, f"expected the name of a variable, got {key!r}")
                continue
            env[key] = self.reader.convert(value, path(subject, key), _env_value, "")
        return env

    def _path(self, node: Node, subject: str) -> str:
        text = fields.word(node, subject)
        if text == "~" or text.startswith("~/"):
            if not self.home:
                refuse(node, subject, f"expected a path, got {text!r}, and no home folder is known")
            text = self.home + text[1:]
        elif text.startswith("~"):
            refuse_type(node, subject, "a path", "only ~ itself, for your own home folder, is understood")
        return posixpath.normpath(posixpath.join(self.base_dir, text))

    def _checkpoint(self, node: Node, subject: str) -> dict[str, Any]:
        """Return the fields of Job that say when it saves, and what it promises."""
        section = self.reader.section(
            node, subject, keys=CHECKPOINT_KEYS, what="checkpoint", example="checkpoint: {every: 40}"
        )
        interval_s = section.read("interval", fields.duration_s, None)
        if section.has("interval"):
            every = section.read("every", _every, None)
        else:
            every = section.require("every", _every, "every: 40")
        found = every or {}
        # Who saves that often does not lose more; the time for a step and the save is not known.
        return {
            "checkpoint_every_s": found.get("save_every_s") if interval_s is None else interval_s,
            **found,
        }

    def _retry(self, node: Node, subject: str) -> RetryPolicy:
        section = self.reader.section(
            node, subject, keys=RETRY_KEYS, what="retry", example="retry: {limit: 3, backoff: 1s}"
        )
        usual = _DEFAULTS.retry
        limit = section.read("limit", fields.integer(least=0), usual.limit)
        backoff_s = section.read("backoff", fields.duration_s, usual.backoff_s)
        max_backoff_s = section.read("max_backoff", fields.duration_s, usual.max_backoff_s)
        causes = section.read("on", self._causes, usual.causes)
        in_place = section.read("in_place", fields.yes_or_no, usual.in_place)
        if backoff_s > max_backoff_s:
            self.reader.note(
                section.at("max_backoff" if section.has("max_backoff") else "backoff"),
                path(subject, "max_backoff"),
                f"expected at least the backoff of {backoff_s:g}s, got {max_backoff_s:g}s",
                f"the first delay is backoff ({usual.backoff_s:g}s by default); it doubles up to "
                f"max_backoff ({usual.max_backoff_s:g}s by default)",
            )
            return usual
        return RetryPolicy(
            limit=limit, backoff_s=backoff_s, max_backoff_s=max_backoff_s, causes=causes, in_place=in_place
        )

    def _causes(self, node: Node, subject: str) -> frozenset[Cause]:
        return frozenset(self.reader.items(node, subject, fields.choice(Cause, RETRIABLE), "causes"))

    def _faults(self, node: Node, subject: str, gang: int) -> tuple[Fault, ...]:
        return self.reader.items(node, subject, lambda item, at: self._fault(item, at, gang), "faults")

    def _fault(self, node: Node, subject: str, gang: int) -> Fault | None:
        section = self.reader.section(
            node, subject, keys=FAULT_KEYS, what="a fault", example="{kind: kill, worker: 1, step: 150}"
        )
        kind = section.require("kind", fields.choice(FaultKind), "kind: kill")
        worker = section.require("worker", fields.integer(least=0), "worker: 1")
        step = section.require("step", fields.integer(least=1, most=_MAX_STEP), "step: 150")
        epoch = section.read("epoch", fields.integer(least=1), 1)
        restart = section.read("restart", fields.integer(least=0), 0)
        if kind is None or worker is None or step is None:
            return None
        if gang and worker >= gang:
            self.reader.note(
                section.at("worker"),
                path(subject, "worker"),
                f"expected a worker of the gang, from 0 to {gang - 1}, got {worker}",
                f"the gang has {gang} workers; they are counted from 0",
            )
        return Fault(kind=kind, worker=worker, step=step, epoch=epoch, restart=restart)


# -- one value at a time ------------------------------------------------------------------------------


def _name(node: Node, subject: str) -> str:
    text = fields.scalar(node, subject, "a name")
    try:
        return replace(_DEFAULTS, name=text).name  # what a name may be is for Job to say
    except JobError as error:
        refuse(node, subject, str(error).removeprefix("name: "))


def _every(node: Node, subject: str) -> dict[str, Any]:
    """Return the field of Job that says how often it saves: steps, a duration, or ``auto``."""
    text = fields.scalar(node, subject, _EVERY)
    if text == "auto":
        return {"saves_when_best": True}
    if text.lstrip("+-").isdigit():
        steps = fields.integer(least=1, most=_MAX_STEP, of=" of steps")(node, subject)
        return {"checkpoint_every_steps": steps}
    try:
        every_s = parse_duration_s(text)
    except UnitError:
        refuse_type(node, subject, _EVERY)
    if not 0 < every_s <= fields.MAX_DURATION_S:
        refuse_type(node, subject, "a duration above 0 and of at most 100 years")
    return {"save_every_s": every_s}


def _priority(node: Node, subject: str) -> int:
    if isinstance(node, document.Scalar) and node.text in PRIORITY_CLASSES:
        return PRIORITY_CLASSES[node.text]
    return _PRIORITY(node, subject)


def _above_0(what: str) -> fields.Converter[float]:
    def convert(node: Node, subject: str) -> float:
        value_s = fields.duration_s(node, subject)
        if value_s <= 0:
            refuse_type(node, subject, what)
        return value_s

    return convert


def _alternative(kind: str) -> fields.Converter[tuple[DeviceRequest, ...]]:
    def convert(node: Node, subject: str) -> tuple[DeviceRequest, ...]:
        count = fields.scalar(node, subject, "a count of devices", _DEVICES_HINT)
        if not _COUNT.fullmatch(count):
            refuse_type(node, subject, "a count of devices", _DEVICES_HINT)
        return _requests(node, subject, f"{kind}:{count}")

    return convert


def _requests(node: Node, subject: str, text: str) -> tuple[DeviceRequest, ...]:
    try:
        requests = parse_devices(text)
    except UnitError as error:
        refuse(node, subject, str(error).removeprefix("devices: "), error.hint)
    except (ValueError, OverflowError):
        # Python takes no number of more than 4,300 digits.
        refuse_type(node, subject, f"at most {fields.MAX_COUNT} devices")
    for request in requests:
        if request.max_devices > fields.MAX_COUNT:
            refuse_type(node, subject, f"at most {fields.MAX_COUNT} devices")
        if request.memory_bytes is not None and request.memory_bytes > fields.MAX_SIZE_BYTES:
            refuse_type(node, subject, "at most 1024 PiB of memory per device")
        kind = request.accelerator
        if kind is None or catalog.find(kind) is not None:
            continue
        if counted := _COUNTED_KIND.fullmatch(kind):
            refuse_type(node, subject, "a resource string", f"write {counted[2]}:{counted[1]}")
    return requests


def _command_word(node: Node, subject: str) -> str:
    return fields.scalar(node, subject, "a word", "quote an empty word: ''")


def _split(node: Node, subject: str) -> tuple[str, ...]:
    text = fields.scalar(node, subject, "a list of words or one string", "write [python, train.py]")
    try:
        words = shlex.split(text)
    except ValueError as error:
        refuse(
            node, subject, f"expected words, got {describe(node)}: {str(error).lower()}", "close the quotes"
        )
    operator = next((word for word in words if word in _SHELL_WORDS), None)
    if operator is not None:
        refuse(
            node,
            subject,
            f"expected one program and its arguments, got {operator!r}, which only a shell understands",
            'no shell runs the command; ask for one with [bash, -c, "..."]',
        )
    return tuple(words)


def _env_value(node: Node, subject: str) -> str:
    if isinstance(node, document.Scalar) and (node.is_boolean or node.is_null):
        text = "" if node.is_null else node.text
        refuse(
            node,
            subject,
            f"expected a text or a number, got {describe(node)}",
            f'quote it: "{text}"',
        )
    return fields.scalar(node, subject, "a text or a number")
