"""What the workers of a job said, in order, and which of their steps are still worth something.

A step is *kept* when nothing that came later did it again and its result is not gone:

- a later step of the same or a lower number, or a restore of an earlier step, undoes it;
- where the next attempt has not shown yet from where it goes on, or there is none and the job did not
  finish, what is after the last committed checkpoint is gone.
"""

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from artesian.kernel.lifecycle import Attempt, JobRecord, JobState
from artesian.model.job import Cause
from artesian.wire import (
    CheckpointCommitted,
    Message,
    PhaseEnded,
    Recovered,
    ReplicasDiverged,
    Restored,
    StepCommitted,
    StragglerFound,
    WorkerFailed,
    WorkerStarted,
)

Progress = Mapping[tuple[str, int], Sequence[Message]]
"""Messages by job id and epoch, in any order."""


class WorkerLog(Struct, kw_only=True, gc=False):
    """What one worker said in one attempt. ``steps`` are in order of time; ``is_kept`` goes with them."""

    rank: int
    dtype: str | None = None
    seeks_stragglers: bool | None = None
    checks_replicas: bool | None = None
    steps: list[StepCommitted] = field(default_factory=list)
    is_kept: list[bool] = field(default_factory=list)
    phases: list[PhaseEnded] = field(default_factory=list)
    restored: list[Restored] = field(default_factory=list)

    @property
    def kept_steps(self) -> list[StepCommitted]:
        """The steps that are kept, in order of time."""
        return [step for step, kept in zip(self.steps, self.is_kept, strict=True) if kept]


class AttemptLog(Struct, kw_only=True, gc=False):
    """What was said in one attempt: by its workers, by rank, and by the agent that watches them.

    ``recoveries`` are those within the attempt, in order of time. ``failed_s`` is when the attempt failed: when the
    agent saw a worker fail or a node of the attempt was lost, else when the attempt ended; None where it did not fail. ``failed_rank`` is the first worker to fail.
    """

    attempt: Attempt
    workers: dict[int, WorkerLog] = field(default_factory=dict)
    checkpoints: list[CheckpointCommitted] = field(default_factory=list)
    recoveries: list[Recovered] = field(default_factory=list)
    stragglers: list[StragglerFound] = field(default_factory=list)
    divergences: list[ReplicasDiverged] = field(default_factory=list)
    world_size: int | None = None
    failed_s: float | None = None
    failed_rank: int | None = None

    @property
    def first_step_s(self) -> float | None:
        """When the first step began; None while there was none."""
        return min((step.start_s for log in self.workers.values() for step in log.steps), default=None)

    @property
    def resumed_from_step(self) -> int | None:
        """The last step that the attempt took over (0: none); None while it has not shown it."""
        restored = [said for log in self.workers.values() for said in log.restored]
        if restored:
            return min(restored, key=lambda said: said.at_s).step
        numbers = [step.step for log in self.workers.values() for step in log.steps]
        return max(0, min(numbers) - 1) if numbers else None


class JobLog(Struct, kw_only=True, gc=False):
    """What was said in all attempts of a job, first attempt first."""

    record: JobRecord
    attempts: list[AttemptLog]


def read_log(record: JobRecord, progress: Progress) -> JobLog:
    """Return what was said about ``record``'s attempts. Messages of a negative rank are nobody's."""
    stops = _stop_times(record)
    attempts = []
    for attempt in record.attempts:
        log = AttemptLog(attempt=attempt)
        failures = _sort(log, progress.get((record.job.id, attempt.epoch), ()))
        _note_failure(log, failures, stops.get(attempt.epoch))
        attempts.append(log)
    _mark_kept(attempts)
    return JobLog(record=record, attempts=attempts)


def _sort(log: AttemptLog, messages: Sequence[Message]) -> list[WorkerFailed]:
    failures = []
    for message in messages:
        if isinstance(message, Recovered):  # also of a failure that was no single worker's
            log.recoveries.append(message)
            continue
        if message.rank < 0:
            continue
        if isinstance(message, StragglerFound):  # rank 0's word about another
            log.stragglers.append(message)
            continue
        if isinstance(message, ReplicasDiverged):
            log.divergences.append(message)
            continue
        if isinstance(message, WorkerFailed):
            failures.append(message)
            continue
        worker = log.workers.get(message.rank)
        if worker is None:
            worker = log.workers[message.rank] = WorkerLog(rank=message.rank)
        match message:
            case StepCommitted():
                worker.steps.append(message)
            case PhaseEnded():
                worker.phases.append(message)
            case Restored():
                worker.restored.append(message)
            case CheckpointCommitted():
                log.checkpoints.append(message)
            case WorkerStarted():
                worker.dtype = message.dtype
                worker.seeks_stragglers = message.seeks_stragglers
                worker.checks_replicas = message.checks_replicas
                log.world_size = max(log.world_size or 0, message.world_size)
    log.recoveries.sort(key=lambda said: said.at_s)
    for worker in log.workers.values():
        worker.steps.sort(key=lambda step: (step.end_s, step.step))
        worker.restored.sort(key=lambda said: (said.at_s, said.step))
    return failures


def _note_failure(log: AttemptLog, failures: Sequence[WorkerFailed], stop_s: float | None) -> None:
    attempt = log.attempt
    cause = attempt.stop_cause if attempt.outcome is None else attempt.outcome.cause
    if cause in (Cause.COMPLETED, Cause.PREEMPTED, Cause.RESIZED):
        return
    if cause is Cause.CANCELLED and attempt.stop_cause is not None:
        return  # The same cause without a stop of ours is an engine's failure.
    times = [failure.at_s for failure in failures]
    if cause is Cause.NODE_LOST and attempt.stop_cause is not None and stop_s is not None:
        times.append(stop_s)
    elif attempt.ended_s is not None:
        times.append(attempt.ended_s)
    if times:
        end_s = math.inf if attempt.ended_s is None else attempt.ended_s
        log.failed_s = min(max(min(times), attempt.decided_s), end_s)
    if failures:
        log.failed_rank = min(failures, key=lambda failure: failure.at_s).rank
    elif attempt.outcome is not None:
        log.failed_rank = attempt.outcome.worker


def _stop_times(record: JobRecord) -> dict[int, float]:
    """Return when it became clear that an attempt must stop, by epoch."""
    times, epoch = {}, 0
    for change in record.history:
        if change.state is JobState.STARTING:
            epoch += 1
        elif change.state is JobState.STOPPING:
            times[epoch] = change.at_s
    return times


def _mark_kept(attempts: Sequence[AttemptLog]) -> None:
    """Fill in every worker's ``is_kept``: backwards, with the last step that nothing later undoes."""
    if not attempts:
        return
    limit = math.inf if _goes_on(attempts[-1]) else _committed(attempts)
    for log in reversed(attempts):
        # The gang goes on from one step: what one worker had to take back, all had to.
        limit = min((_mark_worker(worker, limit) for worker in log.workers.values()), default=limit)


def _goes_on(latest: AttemptLog) -> bool:
    """Whether all that the latest attempt did counts, so far or for good."""
    attempt = latest.attempt
    if latest.resumed_from_step is None or latest.failed_s is not None:
        return False
    return attempt.outcome is None or attempt.outcome.cause is Cause.COMPLETED


def _committed(attempts: Sequence[AttemptLog]) -> int:
    """Return the step of the checkpoint from which a further attempt would go on; 0 for none."""
    committed = 0
    for log in attempts:
        if log.resumed_from_step is not None:
            committed = min(committed, log.resumed_from_step)
        said_in_order: list[Restored | CheckpointCommitted] = [*log.checkpoints]
        said_in_order += [said for worker in log.workers.values() for said in worker.restored]
        for said in sorted(said_in_order, key=lambda said: said.at_s):
            committed = said.step if isinstance(said, Restored) else max(committed, said.step)
    return committed


def _mark_worker(log: WorkerLog, limit: float) -> float:
    """Mark the worker's steps, given the last step that is kept after the attempt; return the one before it."""
    restored = list(log.restored)
    log.is_kept = [False] * len(log.steps)
    for index in range(len(log.steps) - 1, -1, -1):
        step = log.steps[index]
        while restored and restored[-1].at_s > step.end_s:
            limit = min(limit, restored.pop().step)
        log.is_kept[index] = step.step <= limit
        limit = min(limit, step.step - 1)
    return min([limit, *(said.step for said in restored)])
