"""What is to be done: commands, each with its reason, and why the other jobs wait."""

from enum import StrEnum

from msgspec import Struct

from artesian.model.job import Cause
from artesian.model.placement import Placement


class Start(Struct, frozen=True, kw_only=True, gc=False):
    """Start attempt ``epoch`` of the job there. Carrying it out twice starts it once."""

    job_id: str
    epoch: int
    placement: Placement
    reason: str

    @property
    def id(self) -> str:
        """The command's name: the same command always has the same one."""
        return f"start/{self.job_id}/{self.epoch}"


class Stop(Struct, frozen=True, kw_only=True, gc=False):
    """Stop attempt ``epoch`` of the job: SIGTERM, and SIGKILL after ``grace_s``.

    ``cause`` is what the attempt's end will count as: cancelled, preempted or node_lost.
    """

    job_id: str
    epoch: int
    grace_s: float
    cause: Cause
    reason: str

    @property
    def id(self) -> str:
        """The command's name: the same command always has the same one."""
        return f"stop/{self.job_id}/{self.epoch}"


class Claim(Struct, frozen=True, kw_only=True, gc=False):
    """Devices that are kept for the job until it starts there: free ones, and those of attempts that stop.

    It is given to a job that waits, and to one that is stopped and is to go on at once, elsewhere or with fewer
    devices. Where something else gets in its way, it is none any more.
    """

    job_id: str
    placement: Placement


Command = Start | Stop


class HoldCode(StrEnum):
    """Why a job waits."""

    DEVICES_BUSY = "devices_busy"
    BEHIND_ANOTHER = "behind_another"
    LARGER_THAN_FLEET = "larger_than_fleet"
    NO_SUCH_DEVICES = "no_such_devices"
    OVER_QUOTA = "over_quota"
    KEPT_FOR_TEAMS = "kept_for_teams"
    BACKING_OFF = "backing_off"


class Reason(Struct, frozen=True, kw_only=True, gc=False):
    """Why a job waits: the kind of reason, in words, and what would let it start."""

    code: HoldCode
    text: str
    unblock: str


class Hold(Struct, frozen=True, kw_only=True, gc=False):
    """A job that stays where it is, and why, in short; ``behind`` is the job that is ahead of it.

    The words for it are made when somebody asks (``Policy.explain``): thousands of jobs wait for each one
    that a person asks about.
    """

    job_id: str
    code: HoldCode
    behind: str | None = None


class Plan(Struct, frozen=True, kw_only=True, gc=False):
    """The outcome of one scheduling cycle: stops go first, then starts, each in order.

    ``holds`` has the jobs that the cycle looked at in vain and whose reason to wait is new. Who is not
    in it and waits is behind one of them. ``claims`` keep devices for whom the stopped ones make room. ``notice`` is
    what operators should know of how it was decided: that a solver failed, say, and what went instead.
    """

    at_s: float
    stops: tuple[Stop, ...] = ()
    starts: tuple[Start, ...] = ()
    holds: tuple[Hold, ...] = ()
    claims: tuple[Claim, ...] = ()
    notice: str | None = None

    @property
    def commands(self) -> tuple[Command, ...]:
        """Everything for an engine to do, in order."""
        return (*self.stops, *self.starts)

    @property
    def is_empty(self) -> bool:
        """Whether the cycle changed nothing."""
        return not (self.stops or self.starts or self.holds)
