"""What a simulation is told in advance: a job, when it comes, how long it takes, how it fails."""

import math
from dataclasses import dataclass

from artesian.model.job import Cause, Job, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An attempt ends with ``outcome`` when it has run for ``after_s``."""

    after_s: float
    outcome: Outcome

    def __post_init__(self) -> None:
        if not (math.isfinite(self.after_s) and self.after_s >= 0):
            raise ValueError(f"failure: expected after_s of at least 0, got {self.after_s}")
        if self.outcome.cause is Cause.COMPLETED:
            raise ValueError("failure: expected an outcome that is a failure, got completed")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimJob:
    """A job that is submitted at ``submit_s`` and runs for ``duration_s``.

    Every attempt starts up for ``start_up_s`` and then runs from the beginning: there are no
    checkpoints yet. ``failures`` happen to the first attempts, one to each, the next ones complete.
    An attempt that is stopped before its failure uses that failure up.
    """

    job: Job
    submit_s: float
    duration_s: float
    start_up_s: float = 0.0
    failures: tuple[Failure, ...] = ()

    def __post_init__(self) -> None:
        for name in ("submit_s", "duration_s", "start_up_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"job {self.job.name}: expected {name} of at least 0, got {value}")
        for failure in self.failures:
            if failure.after_s > self.duration_s:
                raise ValueError(
                    f"job {self.job.name}: expected failures within its {self.duration_s} s, got one after {failure.after_s} s"
                )

    def end(self, epoch: int) -> tuple[float, Outcome]:
        """Return for how long attempt ``epoch`` runs, start-up aside, and how it ends if nobody stops it."""
        if epoch <= len(self.failures):
            failure = self.failures[epoch - 1]
            return failure.after_s, failure.outcome
        return self.duration_s, Outcome(cause=Cause.COMPLETED, exit_code=0)
