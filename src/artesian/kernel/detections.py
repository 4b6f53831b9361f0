"""What the ranks of a job have found about one another: who is slow, and whose replica went apart."""

from collections.abc import Iterator
from typing import NamedTuple

from artesian.kernel.progress import AttemptLog, JobLog
from artesian.kernel.stragglers import slow_now, slow_workers
from artesian.model.replicas import DivergedReplicas
from artesian.model.stragglers import SlowWorker
from artesian.wire import ReplicasDiverged


class Detections(NamedTuple):
    """Each is None where no worker has said that it looks for it."""

    stragglers: tuple[SlowWorker, ...] | None = None
    divergences: tuple[DivergedReplicas, ...] | None = None


def detected_now(job: JobLog) -> Detections:
    """Return what holds of a job that runs."""
    found = diverged_replicas(job)
    return Detections(
        stragglers=slow_now(slow_workers(job)),
        divergences=None if found is None else tuple(each for each in found if each.is_now),
    )


def diverged_replicas(job: JobLog) -> tuple[DivergedReplicas, ...] | None:
    """Return the replicas that went apart, by time; None where no worker has said that it compares them."""
    checks = [worker.checks_replicas for log in job.attempts for worker in log.workers.values()]
    found = [each for log in job.attempts for each in _of_attempt(job, log)]
    return tuple(found) if found or any(checks) else None


def _of_attempt(job: JobLog, log: AttemptLog) -> Iterator[DivergedReplicas]:
    told = sorted(log.divergences, key=lambda said: (said.at_s, said.step))
    for said in told:
        yield DivergedReplicas(
            workers=said.ranks,
            epoch=log.attempt.epoch,
            step=said.step,
            at_s=said.at_s,
            is_certain=said.is_certain,
            is_now=said is told[-1] and _is_now(job, log, said),
        )


def _is_now(job: JobLog, log: AttemptLog, said: ReplicasDiverged) -> bool:
    """Whether nothing was restored since: that puts the same state on all."""
    if log is not job.attempts[-1] or log.attempt.ended_s is not None:
        return False
    restored = [each.at_s for worker in log.workers.values() for each in worker.restored]
    return all(at_s < said.at_s for at_s in [*restored, *(each.at_s for each in log.recoveries)])
