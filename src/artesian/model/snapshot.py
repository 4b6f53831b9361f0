"""What a policy sees: one consistent, read-only view per scheduling cycle."""

from collections.abc import Mapping

from msgspec import Struct, field

from artesian.model.capacity import Capacity
from artesian.model.history import NO_HISTORY, History
from artesian.model.job import Cause, Job
from artesian.model.placement import Placement, Worked
from artesian.model.plan import Start
from artesian.model.queue import NOTHING_RAN, NOTHING_SERVED, WaitingJob, WaitingQueue
from artesian.model.speeds import NOTHING_MEASURED, Speeds


class RunningJob(Struct, frozen=True, kw_only=True, gc=False):
    """A job that holds devices, from ``since_s`` on; ``is_stopping`` when it is about to give them back.

    ``served_device_s`` is what its earlier attempts have had, in device-seconds, and
    ``served_by_accelerator`` the same by model of device, ``ran_s`` how long they were at work, in seconds by model
    and number of devices. ``claim`` is where devices are kept for it, to go on at once when it has stopped, if any.
    ``worked`` is with how many of its devices this attempt was at work up to ``told_s`` (None: nobody said so far), the
    latest number last: a gang that has lost workers may go on without them.
    ``started_s`` is when the engine said that its processes run, ``saved_s`` up to when its work is in a
    checkpoint that workers told of; None where nobody said so.
    """

    job: Job
    epoch: int
    placement: Placement
    since_s: float
    is_stopping: bool
    submitted_s: float = 0.0
    served_device_s: float = 0.0
    served_by_accelerator: Mapping[str, float] = field(default_factory=lambda: NOTHING_SERVED)
    ran_s: Mapping[tuple[str, float], float] = field(default_factory=lambda: NOTHING_RAN)
    claim: Placement | None = None
    started_s: float | None = None
    saved_s: float | None = None
    worked: tuple[Worked, ...] = ()
    told_s: float | None = None

    @classmethod
    def begun(cls, entry: WaitingJob, start: Start, at_s: float) -> "RunningJob":
        """Return what a job that waited is once it holds what it starts on."""
        return cls(
            job=entry.job,
            epoch=start.epoch,
            placement=start.placement,
            since_s=at_s,
            is_stopping=False,
            submitted_s=entry.submitted_s,
            served_device_s=entry.served_device_s,
            served_by_accelerator=entry.served_by_accelerator,
            ran_s=entry.ran_s,
        )

    @property
    def saves(self) -> bool:
        """Whether it is known to save its state: its user said so, or its workers did."""
        return self.saved_s is not None or self.job.checkpoint_every_s is not None

    @property
    def is_preemptible(self) -> bool:
        """Whether a policy may stop it: it is not stopping yet, and would be tried again."""
        return not self.is_stopping and Cause.PREEMPTED in self.job.retry.causes

    def served_s(self, at_s: float) -> float:
        """Return what it has had by ``at_s``, this attempt included, in device-seconds."""
        return self.served_device_s + (at_s - self.since_s) * self.placement.whole_devices

    def worked_by(self, at_s: float) -> tuple[Worked, ...]:
        """Return with how many devices the attempt was at work by ``at_s``, and how long with each number."""
        return self.placement.worked_on(
            self.worked, at_s - (self.since_s if self.told_s is None else self.told_s)
        )

    def lost_s(self, at_s: float) -> float:
        """Return how much of what the attempt did would be lost if it stopped now, in seconds.

        What its workers told of checkpoints counts; else how often the job's user says that it saves. All of
        it where nobody told.
        """
        if self.saved_s is not None:
            return max(0.0, at_s - max(self.saved_s, self.since_s))
        every_s = self.job.checkpoint_every_s
        if every_s is None:
            return at_s - self.since_s
        began_s = self.since_s if self.started_s is None else self.started_s
        return max(0.0, at_s - began_s) % every_s if every_s > 0 else 0.0


class Snapshot(Struct, frozen=True, kw_only=True, gc=False):
    """The fleet and the jobs at one moment, by id.

    The mappings have no order that means anything: two drivers that replayed one journal may have
    different ones. A policy changes nothing; what it tries out on ``capacity`` it does in ``trial``.
    ``before_s`` is when the cycle before this one was (None: this is the first): a policy that decides
    in rounds knows from it whether a round has ended since, and needs no memory of its own.
    ``speeds`` are the steps per second that were measured of jobs so far, ``history`` what teams have had.
    """

    at_s: float
    waiting: WaitingQueue
    running: Mapping[str, RunningJob]
    capacity: Capacity
    before_s: float | None = None
    speeds: Speeds = field(default_factory=lambda: NOTHING_MEASURED)
    history: History = field(default_factory=lambda: NO_HISTORY)
