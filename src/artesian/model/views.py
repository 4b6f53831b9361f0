"""What is told of jobs, nodes and the queue: the JSON of the command line and of the API, as plain data.

Unlike the kernel's records these are made for readers: strings instead of parsed resources, nothing of a
job's environment (that may hold secrets), and nothing that numpy would have to be loaded for.
"""

from collections.abc import Mapping

from msgspec import UNSET, Struct, UnsetType, field

from artesian.model.fleet import NO_CENTER
from artesian.model.job import Cause
from artesian.model.ledger import Ceiling
from artesian.model.plan import Reason
from artesian.model.replicas import DivergedReplicas
from artesian.model.stragglers import SlowWorker

OVER = ("succeeded", "failed", "cancelled")
HOLDING = ("starting", "running", "stopping")
WAITING = ("queued", "backing_off")
"""The states of a job, by what they mean to a reader."""


class ShareView(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt's part of one node; ``milli`` of each of these devices, in thousandths."""

    node: str
    devices: tuple[int, ...]
    milli: int

    def __str__(self) -> str:
        return f"{self.node}[{','.join(map(str, self.devices))}]"


class OutcomeView(Struct, frozen=True, kw_only=True, gc=False):
    """How an attempt ended."""

    cause: Cause
    exit_code: int | None
    signal: int | None
    worker: int | None
    message: str

    def __str__(self) -> str:
        cause = self.cause.value.replace("_", " ")
        return f"{cause}: {self.message}" if self.message else cause


class AttemptView(Struct, frozen=True, kw_only=True, gc=False):
    """One run of a job. Times are seconds since the epoch, None while they have not come."""

    epoch: int
    placement: tuple[ShareView, ...]
    decided_s: float
    started_s: float | None
    ended_s: float | None
    outcome: OutcomeView | None

    @property
    def place(self) -> str:
        """Nodes and devices on one line."""
        return " + ".join(map(str, self.placement))


class JobView(Struct, frozen=True, kw_only=True, gc=False):
    """A job. ``waits_for`` is why it waits, None where it does not; a list of jobs leaves it out."""

    id: str
    name: str
    kind: str
    state: str
    team: str
    user: str
    priority: int
    command: tuple[str, ...]
    workdir: str
    grace_s: float
    devices: tuple[str, ...]
    submitted_s: float
    ended_s: float | None
    waits_for: Reason | UnsetType | None = UNSET
    attempts: tuple[AttemptView, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing more becomes of the job."""
        return self.state in OVER

    @property
    def holds_devices(self) -> bool:
        """Whether an attempt of the job has devices."""
        return self.state in HOLDING

    @property
    def epoch(self) -> int:
        """Number of the latest attempt; 0 before the first."""
        return len(self.attempts)

    @property
    def reason(self) -> Reason | None:
        """Why it waits, as far as that was told."""
        return None if self.waits_for is UNSET else self.waits_for


class JobList(Struct, frozen=True, kw_only=True, gc=False):
    """Some jobs in the order of their submits, and how many more there are."""

    jobs: tuple[JobView, ...]
    more: int


class JobPage(Struct, frozen=True, kw_only=True, gc=False):
    """One page of a list. ``next`` is the cursor of the page behind it, None on the last one."""

    jobs: tuple[JobView, ...]
    next: str | None


class Decision(Struct, frozen=True, kw_only=True, gc=False):
    """What was last decided about a job, why, and what would let it go on (None: nothing has to).

    Of a job that waits also ``nearest_start_s``, when it is likely to start (None: nobody can tell), and
    ``would_start``: changes that would let it start now, in words that go on after "would start now". Of a job that
    runs, ``stragglers`` are the workers that hold the others up now, and ``divergences`` the replicas that went apart;
    None where its script does not look for them.
    """

    job: str
    state: str
    reason: str
    unblock: str | None
    nearest_start_s: float | None = None
    would_start: tuple[str, ...] = ()
    stragglers: tuple[SlowWorker, ...] | None = None
    divergences: tuple[DivergedReplicas, ...] | None = None


class MoveView(Struct, frozen=True, kw_only=True, gc=False):
    """A running job that could go on on ``to``, so that a job that waits, ``lets_start``, starts on ``starts_on``.

    ``kind`` is ``moves``, or ``shrinks`` where it goes on with fewer devices. It would lose what it did in the
    ``lost_s`` since its last checkpoint, which is ``lost_device_s`` device-seconds; ``cost_device_s`` counts a restart
    as well. ``standing``: ``under_way``, ``next_cycle`` (the policy would decide it), ``possible`` (the policy in force
    does not move anybody), or ``held_back``, for the reason in ``held_back_by``.
    """

    job: str
    kind: str
    now: str
    to: str
    lost_s: float
    lost_device_s: float
    cost_device_s: float
    lets_start: str
    starts_on: str | None
    standing: str
    held_back_by: str | None


class MovesView(Struct, frozen=True, kw_only=True, gc=False):
    """The moves with which waiting jobs can start. ``by_itself`` is whether the policy in force makes such moves."""

    at_s: float
    by_itself: bool
    moves: tuple[MoveView, ...]


class Started(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt's processes run."""

    epoch: int
    place: str
    at_s: float


class Ended(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt is over; ``is_last``: and so is the job."""

    epoch: int
    outcome: OutcomeView
    is_last: bool


class Held(Struct, frozen=True, kw_only=True, gc=False):
    """The job waits, for a reason that was not told before."""

    reason: Reason


class Output(Struct, frozen=True, kw_only=True, gc=False):
    """What an attempt's first worker has printed; ``offset`` is where in the whole output it begins."""

    epoch: int
    is_err: bool
    offset: int
    data: bytes


class Over(Struct, frozen=True, kw_only=True, gc=False):
    """The job is over."""

    job: JobView


Happening = Started | Ended | Held | Output | Over
"""What a follower of a job is told, in the order in which it happened."""


class DeviceView(Struct, frozen=True, kw_only=True, gc=False):
    """A device of a node: which part of it is held, 0 to 1, by which jobs that one may see, or that it is
    ``occupied`` by others, who did not ask artesian.
    """

    index: int
    held: float
    is_occupied: bool
    jobs: tuple[str, ...]


class NodeView(Struct, frozen=True, kw_only=True, gc=False):
    """A node and what of it is held. ``peak_flops`` of one device, dense FP16/BF16; None where unknown.

    ``excluded`` is why an operator keeps it out of use, None where nobody does; ``excluded_by`` is who.
    ``jobs``, each device by itself and ``ceilings`` are told of single nodes only. ``ceilings``, by dtype: the FLOP/s
    of one device that MFU is taken against, of nodes of which there is a census. ``center`` is the site of its pool.
    """

    id: str
    accelerator: str
    devices: int
    held: float
    is_up: bool
    pool: str
    cpus: int
    memory_bytes: int
    device_memory_bytes: int | None
    peak_flops: float | None
    joined_s: float
    jobs: tuple[str, ...] = ()
    excluded: str | None = None
    excluded_by: str | None = None
    each: tuple[DeviceView, ...] = ()
    ceilings: Mapping[str, Ceiling] = field(default_factory=dict)
    center: str = NO_CENTER

    @property
    def state(self) -> str:
        """``up``, ``excluded`` or ``gone``, in a word."""
        if not self.is_up:
            return "gone"
        return "up" if self.excluded is None else "excluded"


class NodePage(Struct, frozen=True, kw_only=True, gc=False):
    """One page of the nodes, in the order of their ids."""

    nodes: tuple[NodeView, ...]
    next: str | None


class KindView(Struct, frozen=True, kw_only=True, gc=False):
    """The devices of one model in one pool. ``devices`` is the sum of ``held``, ``free``, and those that are not
    held: ``lost``, of nodes that are gone, and ``excluded``, of nodes that an operator keeps out of use.
    """

    accelerator: str
    pool: str
    nodes: int
    devices: int
    held: float
    free: float
    lost: float
    excluded: float = 0.0
    center: str = NO_CENTER


class FleetView(Struct, frozen=True, kw_only=True, gc=False):
    """The fleet by model of device and pool."""

    at_s: float
    kinds: tuple[KindView, ...]


class TeamView(Struct, frozen=True, kw_only=True, gc=False):
    """What a team has, and is entitled to: see ``model.quota.Team``.

    ``jobs``, by state, are its own; ``held`` and ``borrowed``, devices held and those of them beyond what is guaranteed,
    are its own and those of the teams below it. ``borrow_limit`` None: without limit.
    """

    team: str
    jobs: Mapping[str, int]
    held: float
    borrowed: float = 0.0
    parent: str | None = None
    weight: float = 1.0
    guaranteed: Mapping[str, int] = field(default_factory=dict)
    borrow_limit: int | None = None
    lends: bool = True


class QueueView(Struct, frozen=True, kw_only=True, gc=False):
    """How many jobs are in each state, and the number of the last record that this counts."""

    jobs: Mapping[str, int]
    seq: int
    oldest_waits_s: float | None


class TokenView(Struct, frozen=True, kw_only=True, gc=False):
    """A token, without its secret."""

    id: str
    user: str
    role: str
    team: str | None
    created_s: float
    expires_s: float | None
    revoked_s: float | None
    note: str = ""


class NewToken(Struct, frozen=True, kw_only=True, gc=False):
    """A token that was just made. ``secret`` is told this once."""

    token: TokenView
    secret: str


class LogPage(Struct, frozen=True, kw_only=True, gc=False):
    """A piece of what an attempt printed. ``next`` is where the next piece begins; ``is_end``: nothing was
    left when this was read (a running attempt may print more).
    """

    job: str
    attempt: int
    offset: int
    next: int
    is_end: bool
    data: bytes


class JobIds(Struct, frozen=True, kw_only=True, gc=False):
    """The jobs that were submitted, in the order in which they were given."""

    jobs: tuple[str, ...]


class JobFile(Struct, frozen=True, kw_only=True, gc=False):
    """The text of a job file, and what its submitter adds: see ``jobfile.parse_job``."""

    text: str
    source: str
    base_dir: str
    env: Mapping[str, str]
    home: str | None
