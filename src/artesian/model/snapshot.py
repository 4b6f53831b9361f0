"""What a policy sees: one consistent, read-only view per scheduling cycle."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from artesian.model.capacity import Capacity
from artesian.model.job import Cause, Job
from artesian.model.placement import Placement
from artesian.model.queue import NOTHING_SERVED, WaitingQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningJob:
    """A job that holds devices, from ``since_s`` on; ``is_stopping`` when it is about to give them back.

    ``served_device_s`` is what its earlier attempts have had, in device-seconds, and
    ``served_by_accelerator`` the same by model of device. ``claim`` is where devices are kept for it,
    to go on at once when it has stopped, if any.
    """

    job: Job
    epoch: int
    placement: Placement
    since_s: float
    is_stopping: bool
    submitted_s: float = 0.0
    served_device_s: float = 0.0
    served_by_accelerator: Mapping[str, float] = field(default_factory=lambda: NOTHING_SERVED)
    claim: Placement | None = None

    @property
    def is_preemptible(self) -> bool:
        """Whether a policy may stop it: it is not stopping yet, and would be tried again."""
        return not self.is_stopping and Cause.PREEMPTED in self.job.retry.causes

    def served_s(self, at_s: float) -> float:
        """Return what it has had by ``at_s``, this attempt included, in device-seconds."""
        return self.served_device_s + (at_s - self.since_s) * self.placement.whole_devices

    def lost_s(self, at_s: float) -> float:
        """Return how much of what the attempt did would be lost if it stopped now, in seconds.

        All of it where it is not known how often the job saves its state.
        """
        ran_s, every_s = at_s - self.since_s, self.job.checkpoint_every_s
        if every_s is None:
            return ran_s
        return ran_s % every_s if every_s > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The fleet and the jobs at one moment, by id.

    The mappings have no order that means anything: two drivers that replayed one journal may have
    different ones. A policy changes nothing; what it tries out on ``capacity`` it does in ``trial``.
    ``before_s`` is when the cycle before this one was (None: this is the first): a policy that decides
    in rounds knows from it whether a round has ended since, and needs no memory of its own.
    """

    at_s: float
    waiting: WaitingQueue
    running: Mapping[str, RunningJob]
    capacity: Capacity
    before_s: float | None = None
