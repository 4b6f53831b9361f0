"""What a simulation is told in advance: a job, when it comes, how long it takes, how it fails."""

import math
from collections.abc import Mapping
from typing import NoReturn

from msgspec import Struct, field
from msgspec.structs import replace

from artesian.model.errors import ArtesianError
from artesian.model.job import Cause, Job, Outcome


class UnknownSpeed(ArtesianError, ValueError):  # noqa: N818 - reads as what it is
    """A job was placed on a model of device for which its trace has no speed."""


_NO_SPEEDS: Mapping[str, float] = {}
_COMPLETED = Outcome(cause=Cause.COMPLETED, exit_code=0)


class Failure(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt ends with ``outcome`` when it has run for ``after_s``."""

    after_s: float
    outcome: Outcome

    def __post_init__(self) -> None:
        if not (math.isfinite(self.after_s) and self.after_s >= 0):
            raise ValueError(f"failure: expected after_s of at least 0, got {self.after_s}")
        if self.outcome.cause is Cause.COMPLETED:
            raise ValueError("failure: expected an outcome that is a failure, got completed")


class SimJob(Struct, frozen=True, kw_only=True, gc=False):
    """A job that is submitted at ``submit_s`` and runs for ``duration_s``.

    Every attempt starts up for ``start_up_s`` and then goes on from the last checkpoint; they are made
    every ``checkpoint_every_s`` (0: nothing is ever lost; None: there are none, it runs from the
    beginning). ``failures`` happen to the first attempts, one to each, the next ones complete.
    An attempt that is stopped before its failure uses that failure up.

    What else a trace may tell: ``deadline_s`` is on the clock of ``submit_s``. ``duration_s`` is on the
    job's first choice of devices; where the work is known, it is the job's ``total_steps``, of which the whole
    gang does ``steps_per_s``, by the name of the accelerator that it is on.
    """

    job: Job
    submit_s: float
    duration_s: float
    start_up_s: float = 0.0
    failures: tuple[Failure, ...] = ()
    deadline_s: float | None = None
    steps_per_s: Mapping[str, float] = field(default_factory=lambda: _NO_SPEEDS)  # one for all
    checkpoint_every_s: float | None = None

    def __post_init__(self) -> None:
        # Written out: traces have millions of jobs, and a loop over names takes twice as long.
        if not (0 <= self.submit_s < math.inf and 0 <= self.duration_s < math.inf):
            self._refuse("submit_s and duration_s of at least 0", f"{self.submit_s} and {self.duration_s}")
        if not 0 <= self.start_up_s < math.inf:
            self._refuse("start_up_s of at least 0", self.start_up_s)
        if self.deadline_s is not None and not 0 <= self.deadline_s < math.inf:
            self._refuse("deadline_s of at least 0", self.deadline_s)
        if self.checkpoint_every_s is not None and not 0 <= self.checkpoint_every_s < math.inf:
            self._refuse("checkpoint_every_s of at least 0", self.checkpoint_every_s)
        if self.steps_per_s and not all(0 <= speed < math.inf for speed in self.steps_per_s.values()):
            self._refuse("steps_per_s of at least 0", self.steps_per_s)
        for failure in self.failures:
            if failure.after_s > self.duration_s:
                raise ValueError(
                    f"job {self.job.name}: expected failures within its {self.duration_s} s, got one after {failure.after_s} s"
                )

    def _refuse(self, expected: str, actual: object) -> NoReturn:
        raise ValueError(f"job {self.job.name}: expected {expected}, got {actual}")

    @property
    def told(self) -> Job:
        """The job as its user submits it: with the deadline and the checkpoints that the trace tells of."""
        job = self.job
        deadline_s, every_s = job.deadline_s, job.checkpoint_every_s
        if deadline_s is None and self.deadline_s is not None and self.deadline_s > self.submit_s:
            deadline_s = self.deadline_s - self.submit_s
        if every_s is None:
            every_s = self.checkpoint_every_s
        if (deadline_s, every_s) == (job.deadline_s, job.checkpoint_every_s):
            return job  # nearly always: a copy of each of a million jobs would be felt
        return replace(job, deadline_s=deadline_s, checkpoint_every_s=every_s)

    @property
    def tells_steps(self) -> bool:
        """Whether its work is known in steps, and how fast it does them."""
        return self.job.total_steps is not None and bool(self.steps_per_s)

    @property
    def work(self) -> float:
        """What there is to do: steps where the speeds are told, else seconds, as fast on any device."""
        steps = self.job.total_steps
        return steps if steps is not None and self.steps_per_s else self.duration_s

    def speed(self, accelerator: str | None, devices: int) -> float:
        """Return how much of ``work`` gets done in a second on so many devices of that model.

        What is told is of as many as the job asks for at most; an elastic gang is slower on fewer, by its scaling curve.

        Raises UnknownSpeed where the job's speeds are told, and none above 0 for this one.
        """
        if self.job.total_steps is None or not self.steps_per_s:
            return self._scale(devices)
        speed = self.steps_per_s.get(accelerator, 0.0) if accelerator is not None else 0.0
        if speed <= 0:
            raise UnknownSpeed(
                f"job {self.job.name}: expected steps per second on {accelerator}, got them for {', '.join(self.steps_per_s)}",
                hint="tell its speed there (0 does not do), or name in its devices only what it has a speed for",
            )
        return speed * self._scale(devices)

    def _scale(self, devices: int) -> float:
        request = self.job.devices[0]
        if request.max_devices == request.min_devices or devices == request.max_devices:
            return 1.0
        return self.job.speedup(devices) / self.job.speedup(request.max_devices)

    def kept_s(self, ran_s: float) -> float:
        """Return how much of an attempt that ran so long the next one need not do again."""
        if self.checkpoint_every_s is None:
            return 0.0
        if self.checkpoint_every_s == 0:
            return ran_s
        return ran_s // self.checkpoint_every_s * self.checkpoint_every_s

    def end(self, epoch: int, left_s: float) -> tuple[float, Outcome]:
        """Return for how long attempt ``epoch`` runs, start-up aside, and how it ends if nobody stops it.

        ``left_s`` is how long the work that is left takes it.
        """
        if epoch <= len(self.failures) and self.failures[epoch - 1].after_s <= left_s:
            failure = self.failures[epoch - 1]
            return failure.after_s, failure.outcome
        return left_s, _COMPLETED
