"""What happened. Events are the only input of the kernel; each carries its time, ``at_s``.

An event is a fact that somebody reports: it may be late, repeated, or about an attempt that is long
over. The kernel decides what it changes.
"""

from msgspec import Struct

from artesian.model.fleet import Node
from artesian.model.job import Job, Outcome
from artesian.model.resources import DeviceRequest


class NodeJoined(Struct, frozen=True, kw_only=True, gc=False):
    """A node offers its devices; said again, with the same id, it replaces what was known.

    An attempt on a device that the node no longer has must stop.
    """

    at_s: float
    node: Node


class NodeLost(Struct, frozen=True, kw_only=True, gc=False):
    """A node is gone, and with it every attempt that has a share on it."""

    at_s: float
    node_id: str


class NodeExcluded(Struct, frozen=True, kw_only=True, gc=False):
    """An operator wants nothing more to start on a node: it is broken, or slow, or somebody works on it.

    What runs there goes on, unless ``is_stopping``: then it gets its grace, and is tried again elsewhere. Said
    again, it replaces the reason.
    """

    at_s: float
    node_id: str
    reason: str
    user: str = ""
    is_stopping: bool = False


class NodeReturned(Struct, frozen=True, kw_only=True, gc=False):
    """An excluded node may be used again."""

    at_s: float
    node_id: str
    user: str = ""


class JobSubmitted(Struct, frozen=True, kw_only=True, gc=False):
    """A user asks for a job. The same id again changes nothing: a submit may be repeated."""

    at_s: float
    job: Job


class CancelRequested(Struct, frozen=True, kw_only=True, gc=False):
    """A user wants the job stopped."""

    at_s: float
    job_id: str
    user: str = ""


class ResizeRequested(Struct, frozen=True, kw_only=True, gc=False):
    """A user wants the job to have ``devices``, in the place of those that it has asked for so far.

    An attempt that does not hold as many gets its grace, and the job goes on with them. What the job asks for
    already changes nothing.
    """

    at_s: float
    job_id: str
    devices: tuple[DeviceRequest, ...]
    user: str = ""


class AttemptStarted(Struct, frozen=True, kw_only=True, gc=False):
    """The engine says that the attempt's processes run."""

    at_s: float
    job_id: str
    epoch: int


class AttemptEnded(Struct, frozen=True, kw_only=True, gc=False):
    """The engine says that nothing of the attempt runs any more."""

    at_s: float
    job_id: str
    epoch: int
    outcome: Outcome


class AttemptProgressed(Struct, frozen=True, kw_only=True, gc=False):
    """What the attempt's first worker has said by now: said now and then, and only where it is news.

    ``saved_s`` is up to when its work is in a durable checkpoint (None: there is none of this attempt yet).
    It did ``steps`` steps in ``steps_s`` seconds, from the attempt's beginning on, its first step and what
    lies between two restarts left out: 0 and 0 where it tells of no steps. Later ones replace earlier ones.

    ``workers``: those steps that no earlier event told of were done by so many; None: by all that it was placed with.
    A gang may shrink and grow in place, and who tells of its steps does so at each change.
    """

    at_s: float
    job_id: str
    epoch: int
    saved_s: float | None = None
    steps: float = 0.0
    steps_s: float = 0.0
    workers: int | None = None


class ClockTicked(Struct, frozen=True, kw_only=True, gc=False):
    """Nothing but time has passed: what is due by ``at_s`` may go on."""

    at_s: float


Event = (
    NodeJoined
    | NodeLost
    | NodeExcluded
    | NodeReturned
    | JobSubmitted
    | CancelRequested
    | ResizeRequested
    | AttemptStarted
    | AttemptEnded
    | AttemptProgressed
    | ClockTicked
)
EVENT_TYPES: tuple[type[Event], ...] = (
    NodeJoined,
    NodeLost,
    NodeExcluded,
    NodeReturned,
    JobSubmitted,
    CancelRequested,
    ResizeRequested,
    AttemptStarted,
    AttemptEnded,
    AttemptProgressed,
    ClockTicked,
)
