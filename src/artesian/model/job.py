"""What a user asks for: Job, its retry policy, and why an attempt ended."""

import math
import re
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field

from artesian.model.errors import JobError
from artesian.model.resources import MILLI, DeviceRequest
from artesian.wire import Fault

_NAME = re.compile(r"[a-z0-9]([-a-z0-9._]{0,61}[a-z0-9])?")
_MOST_DOUBLINGS = 1000  # a double holds no power of two above 1023


class JobKind(StrEnum):
    """What a job is for; policies treat the kinds differently."""

    TRAIN = "train"
    BATCH = "batch"
    SERVICE = "service"


PRIORITY_CLASSES: Mapping[str, int] = {"low": -10, "normal": 0, "high": 10, "urgent": 20}
"""Priorities by name; numbers in between order jobs within a class."""


class Cause(StrEnum):
    """Why an attempt ended. Exactly one holds for every attempt."""

    COMPLETED = "completed"
    """Exit code 0."""
    USER_ERROR = "user_error"
    """The command ended with a code other than 0."""
    SIGNAL = "signal"
    """A worker was killed by a signal that artesian did not send."""
    OOM_KILL = "oom_kill"
    """The kernel's out-of-memory killer ended a worker."""
    NODE_LOST = "node_lost"
    """The node, or the engine's supervisor on it, is gone."""
    START_FAILED = "start_failed"
    """The engine could not start the command: no such program, no permission, disk full."""
    PREEMPTED = "preempted"
    """Stopped by the scheduler to make room."""
    CANCELLED = "cancelled"
    """Stopped because a user asked for it."""
    RESIZED = "resized"
    """Stopped because a user asked for another number of devices: it goes on with as many."""


class Outcome(Struct, frozen=True, kw_only=True, gc=False):
    """How an attempt ended: the cause, and what the operating system said.

    ``worker`` is the rank of the worker that failed first, where the launch agent told; ``restarts`` how often
    the agent had restarted the gang in the attempt.
    """

    cause: Cause
    exit_code: int | None = None
    signal: int | None = None
    worker: int | None = None
    message: str = ""
    restarts: int = 0


class RetryPolicy(Struct, frozen=True, kw_only=True, gc=False):
    """Which ends of an attempt lead to another attempt, how often, and after how long.

    Causes that are nobody's fault in the job (``node_lost``, ``preempted``) are retried without
    limit; the others in ``causes`` up to ``limit`` times. A job that was resized always goes on. The delay doubles from ``backoff_s`` with
    every counted retry, up to ``max_backoff_s``.

    ``in_place``: a gang that runs Python is restarted by its launch agent, within the attempt and at once; such
    restarts count, too. Only what they do not mend ends the attempt.
    """

    limit: int = 3
    backoff_s: float = 1.0
    max_backoff_s: float = 60.0
    causes: frozenset[Cause] = frozenset({Cause.SIGNAL, Cause.NODE_LOST, Cause.PREEMPTED})
    in_place: bool = True

    def __post_init__(self) -> None:
        if self.limit < 0 or not 0 <= self.backoff_s <= self.max_backoff_s:
            raise JobError(f"retry: expected limit ≥ 0 and 0 ≤ backoff ≤ max backoff, got {self}")

    def delay_s(self, cause: Cause, counted_retries: int) -> float | None:
        """Return the seconds to wait before the next attempt, or None when there is to be none.

        ``counted_retries`` is the number of retries so far that count against the limit.
        """
        if cause is not Cause.RESIZED and cause not in self.causes:
            return None
        if not self.counts(cause):
            return 0.0
        if counted_retries >= self.limit:
            return None
        doublings = min(counted_retries, _MOST_DOUBLINGS)
        return float(min(self.backoff_s * 2.0**doublings, self.max_backoff_s))

    @staticmethod
    def counts(cause: Cause) -> bool:
        """Return whether a retry after ``cause`` counts against the limit."""
        return cause not in {Cause.NODE_LOST, Cause.PREEMPTED, Cause.RESIZED}


class Job(Struct, frozen=True, kw_only=True, gc=False):
    """A gang of workers that runs one command on devices of one kind.

    ``devices`` lists alternatives, first choice first. ``workers`` is the number of processes that the
    gang has (0: no gang, the command is started once as it is; None: see ``gang_size``).
    ``cpus_per_device`` and ``memory_bytes_per_device`` are of the host. ``priority``: higher goes first.
    ``grace_s``: time between SIGTERM and SIGKILL. ``start_timeout_s``: how long a worker of the gang may take to its
    first step before it is taken for hung (None: what ``artesian launch`` says). ``estimated_duration_s``: the user's estimate.
    ``deadline_s``: it should be done so long after its submission. ``checkpoint_every_s``: it saves its
    state at least so often (0: at every moment; None: not known, so that a stop may lose all of an attempt).
    ``checkpoint_every_steps``, ``save_every_s``, ``saves_when_best``: when its run is to save, of which at most one is set; by
    itself it does so at its end, and when it is told to stop.
    ``parallel_share``: the part of its work, 0 to 1, that more devices make faster (None: not known).
    ``profile`` names the kind of work, as tables of throughput do (a model and its batch size), and
    ``total_steps`` is how many steps it takes in all; None where nobody said.
    """

    id: str
    name: str
    command: tuple[str, ...]
    devices: tuple[DeviceRequest, ...]
    workdir: str
    kind: JobKind = JobKind.BATCH
    team: str = "default"
    user: str = ""
    workers: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cpus_per_device: float | None = None
    memory_bytes_per_device: int | None = None
    priority: int = 0
    grace_s: float = 10.0
    start_timeout_s: float | None = None
    estimated_duration_s: float | None = None
    deadline_s: float | None = None
    checkpoint_every_s: float | None = None
    parallel_share: float | None = None
    profile: str | None = None
    total_steps: float | None = None
    checkpoint_every_steps: int | None = None
    save_every_s: float | None = None
    saves_when_best: bool = False
    dataset: str | None = None
    faults: tuple[Fault, ...] = ()
    retry: RetryPolicy = RetryPolicy()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise JobError(
                f"name: expected at most 63 of a-z, 0-9, '-', '.', '_', ends alphanumeric, got {self.name!r}"
            )
        if not self.command:
            raise JobError(f"job {self.name}: expected a command, got none")
        if not self.devices:
            raise JobError(f"job {self.name}: expected at least one kind of device, got none")
        if self.workers is not None and self.workers < 0:
            raise JobError(f"job {self.name}: workers must be at least 0, got {self.workers}")
        if not self.grace_s >= 0:
            raise JobError(f"job {self.name}: grace must not be negative, got {self.grace_s} s")
        if self.start_timeout_s is not None and not 0 < self.start_timeout_s < math.inf:
            raise JobError(
                f"job {self.name}: the start timeout must be above 0, got {self.start_timeout_s} s"
            )
        if self.deadline_s is not None and not 0 < self.deadline_s < math.inf:
            raise JobError(f"job {self.name}: the deadline must lie ahead, got {self.deadline_s} s")
        if self.checkpoint_every_s is not None and not 0 <= self.checkpoint_every_s < math.inf:
            raise JobError(
                f"job {self.name}: the time between checkpoints must be at least 0, got {self.checkpoint_every_s} s"
            )
        asked = (self.checkpoint_every_steps is not None, self.save_every_s is not None, self.saves_when_best)
        if sum(asked) > 1:
            raise JobError(f"job {self.name}: expected one way to say when it saves, got {sum(asked)}")
        if self.save_every_s is not None and not 0 < self.save_every_s < math.inf:
            raise JobError(
                f"job {self.name}: the time between saves must be above 0, got {self.save_every_s} s"
            )
        if self.parallel_share is not None and not 0 <= self.parallel_share <= 1:
            raise JobError(
                f"job {self.name}: the parallel share must lie between 0 and 1, got {self.parallel_share}"
            )
        if self.total_steps is not None and not 0 < self.total_steps < math.inf:
            raise JobError(f"job {self.name}: total steps must be above 0, got {self.total_steps}")
        if self.cpus_per_device is not None and not self.cpus_per_device >= 1 / MILLI:
            raise JobError(
                f"job {self.name}: CPUs per device must be at least 0.001, got {self.cpus_per_device}"
            )
        if self.memory_bytes_per_device is not None and self.memory_bytes_per_device < 1:
            raise JobError(
                f"job {self.name}: memory per device must be at least 1 B, got {self.memory_bytes_per_device}"
            )

    @property
    def wants_host(self) -> bool:
        """Whether it wants CPUs or memory of the host with its devices."""
        return self.cpus_per_device is not None or self.memory_bytes_per_device is not None

    @property
    def fewest_devices(self) -> int:
        """The fewest devices that one of its alternatives takes; at least 1."""
        return min(max(1, request.min_devices) for request in self.devices)

    def speedup(self, devices: int) -> float:
        """Return how many times as fast as on one device the job is on so many (Amdahl, AFIPS 1967).

        A job that does not tell its parallel share makes full use of all: no more can be gained.
        """
        share = 1.0 if self.parallel_share is None else self.parallel_share
        return 1.0 / (1.0 - share + share / max(1, devices))

    def gang_size(self, devices: int) -> int:
        """Return how many workers start on ``devices`` devices; 0: the command is started once, as it is.

        Unless the job says it, that is one per device in training, and no gang in anything else.
        """
        if self.workers is not None:
            return self.workers
        return devices if self.kind is JobKind.TRAIN else 0
