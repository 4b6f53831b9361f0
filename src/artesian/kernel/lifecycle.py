"""The life of a job, as a state machine.

::

                 ┌───────────────────── retry ────────────────────┐
                 ▼                                                │
    submit ─▶ QUEUED ──Start──▶ STARTING ──started──▶ RUNNING ────┤
                 ▲                 │                     │        │
              due│                 └cancel/preempt/resize┤        │
                 │                                       ▼        │
             BACKING_OFF ◀──────── retry later ────── STOPPING ───┤
                                                                  ▼
                                                SUCCEEDED · FAILED · CANCELLED

========== ================================================= ==========================================
state      meaning                                           leaves when
========== ================================================= ==========================================
queued     wants devices                                     the policy starts it; a user cancels it
backing    waits out the delay before the next attempt       the delay is over; a user cancels it
_off
starting   a Start is decided, and may be under way; it      the engine says started or ended
           holds devices
running    the engine said that its processes run            the engine says ended; it must stop
stopping   a Stop is decided, and may be under way; it       the engine says ended
           holds devices until then
succeeded  ended with code 0                                 never
failed     ended, and is not to be tried again               never
cancelled  stopped because a user asked for it               never
========== ================================================= ==========================================

Rules that hold everywhere:

- Every Start has a new epoch, one more than the last. What is said about another epoch than the
  current one changes nothing (fencing).
- Devices are held from the Start's decision to the attempt's reported end, whatever happens between.
- A stop's own cause wins over what the process made of it: a preempted job that exits with code 0
  has saved its state and gone, it has not finished.
- Whether there is a next attempt is for the job's RetryPolicy to say, by cause.
- A resize changes what the next attempt gets. The one under way is stopped only if it does not hold as many.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from artesian.kernel.nodes import NodeRecord
from artesian.model.events import AttemptProgressed
from artesian.model.history import Holding
from artesian.model.job import Cause, Job, Outcome
from artesian.model.placement import Placement, Worked, with_work
from artesian.model.plan import Hold, HoldCode
from artesian.model.resources import DeviceRequest
from artesian.model.speeds import Speed, family_of
from artesian.model.usage import amounts


class JobState(StrEnum):
    """Where a job is in its life; the module's table says what each state means."""

    QUEUED = "queued"
    BACKING_OFF = "backing_off"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the job is over."""
        return self in _FINAL

    @property
    def holds_devices(self) -> bool:
        """Whether an attempt of the job has devices."""
        return self in _HOLDING


_FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
_HOLDING = frozenset({JobState.STARTING, JobState.RUNNING, JobState.STOPPING})

ALLOWED: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.STARTING, JobState.CANCELLED}),
    JobState.BACKING_OFF: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.STARTING: frozenset(
        {
            JobState.RUNNING,
            JobState.STOPPING,
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.QUEUED,
            JobState.BACKING_OFF,
        }
    ),
    JobState.RUNNING: frozenset(
        {JobState.STOPPING, JobState.SUCCEEDED, JobState.FAILED, JobState.QUEUED, JobState.BACKING_OFF}
    ),
    JobState.STOPPING: frozenset(
        {JobState.CANCELLED, JobState.FAILED, JobState.QUEUED, JobState.BACKING_OFF}
    ),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
"""Every change of state that can happen."""


class Attempt(Struct, kw_only=True, gc=False):
    """One run of a job: where, when, why then and there, and how it ended.

    ``stop_cause`` is set once it must stop. ``accelerator`` is the model of its devices as the node named it then.
    ``saved_s``, ``steps`` and ``steps_s`` are what ``AttemptProgressed`` said last, ``workers`` the most that it said,
    ``worked`` with how many of the devices the attempt was at work up to ``told_s``, when it said so last.
    """

    epoch: int
    placement: Placement
    decided_s: float
    reason: str
    started_s: float | None = None
    ended_s: float | None = None
    outcome: Outcome | None = None
    stop_cause: Cause | None = None
    stop_reason: str = ""
    is_stop_decided: bool = False
    accelerator: str | None = None
    saved_s: float | None = None
    steps: float = 0.0
    steps_s: float = 0.0
    workers: int | None = None
    worked: tuple[Worked, ...] = ()
    told_s: float | None = None

    def worked_by(self, at_s: float) -> tuple[Worked, ...]:
        """Return with how many devices it was at work by ``at_s``, and how long with each number, the latest last."""
        return self.placement.worked_on(
            self.worked, at_s - (self.decided_s if self.told_s is None else self.told_s)
        )


class Change(Struct, kw_only=True, gc=False):
    """A job came into ``state`` at ``at_s``."""

    state: JobState
    at_s: float


class JobRecord(Struct, kw_only=True, gc=False):
    """All that the kernel knows of a job. Only the functions of this module change its state.

    ``attempts`` and ``history`` are tuples, and not lists, for what most of 100,000 waiting jobs have in
    them: nothing, and one change.

    ``submitted_devices``: what it asked for when it was submitted, where that was changed since (``resize``).

    ``claim``: where devices are kept for it that others were stopped for, until it starts or is over. ``number``:
    how many jobs were submitted before it.
    """

    job: Job
    submitted_s: float
    number: int = 0
    state: JobState = JobState.QUEUED
    attempts: tuple[Attempt, ...] = ()
    history: tuple[Change, ...] = ()
    counted_retries: int = 0
    due_s: float | None = None
    hold: Hold | None = None
    claim: Placement | None = None
    submitted_devices: tuple[DeviceRequest, ...] | None = None

    @property
    def submitted_job(self) -> Job:
        """The job as it was submitted."""
        return replace(self.job, devices=self.submitted_devices or self.job.devices)

    @property
    def epoch(self) -> int:
        """Number of the latest attempt; 0 before the first."""
        return len(self.attempts)

    @property
    def attempt(self) -> Attempt:
        """The latest attempt. There must be one."""
        return self.attempts[-1]

    @property
    def job_now(self) -> Job:
        """The job as an engine is to run it now: with the retries that it has left."""
        retry = self.job.retry
        return replace(self.job, retry=replace(retry, limit=max(0, retry.limit - self.counted_retries)))

    @property
    def served_device_s(self) -> float:
        """What the attempts that are over have had, in device-seconds."""
        return sum(
            (attempt.ended_s - attempt.decided_s) * attempt.placement.whole_devices
            for attempt in self.attempts
            if attempt.ended_s is not None
        )

    def holdings(self) -> Iterator[Holding]:
        """Yield when its team came to hold what it has, and when it gave that back."""
        for attempt in self.attempts:
            yield self._holding(attempt, attempt.decided_s, 1)
            if attempt.ended_s is not None:
                yield self._holding(attempt, attempt.ended_s, -1)

    def holding(self, at_s: float, sign: int) -> Holding:
        """Return that its team now holds what the latest attempt has (1), or does no longer (-1)."""
        return self._holding(self.attempt, at_s, sign)

    def _holding(self, attempt: Attempt, at_s: float, sign: int) -> Holding:
        assert attempt.accelerator is not None
        milli, cpu_milli, memory_bytes = amounts(self.job, attempt.placement)
        return Holding(
            at_s, self.job.team, attempt.accelerator, sign * milli, sign * cpu_milli, sign * memory_bytes
        )

    @property
    def saved_s(self) -> float | None:
        """Up to when the work is in a checkpoint that workers told of; None where they told of none, ever."""
        latest = self.attempts[-1]
        if latest.saved_s is not None or len(self.attempts) == 1:
            return latest.saved_s
        # What the attempts before it left, it went on from.
        has_saved = any(attempt.saved_s is not None for attempt in self.attempts)
        return latest.decided_s if has_saved else None

    @property
    def ended_s(self) -> float | None:
        """When the job was over; None while it is not."""
        return self.history[-1].at_s if self.state.is_final else None


def submit(job: Job, at_s: float, number: int = 0) -> JobRecord:
    """Return the record of a job that was just submitted, after ``number`` others."""
    return JobRecord(
        job=job, submitted_s=at_s, number=number, history=(Change(state=JobState.QUEUED, at_s=at_s),)
    )


def start(record: JobRecord, epoch: int, placement: Placement, at_s: float, reason: str) -> None:
    """The policy starts the next attempt."""
    assert epoch == record.epoch + 1, f"{record.job.id}: attempt {epoch} after {record.epoch}"
    attempt = Attempt(epoch=epoch, placement=placement, decided_s=at_s, reason=reason)
    record.attempts = (*record.attempts, attempt)
    record.hold = record.claim = None
    _enter(record, JobState.STARTING, at_s)


def started(record: JobRecord, at_s: float) -> None:
    """The engine says that the latest attempt runs."""
    attempt = record.attempt
    if attempt.started_s is None:
        attempt.started_s = at_s
    if record.state is JobState.STARTING:
        _enter(record, JobState.RUNNING, at_s)


def progressed(record: JobRecord, event: AttemptProgressed, at_s: float) -> Speed | None:
    """The workers of the latest attempt said where they are; return what that adds to what was measured, if anything."""
    attempt = record.attempt
    saved_s, steps, steps_s, workers = event.saved_s, event.steps, event.steps_s, event.workers
    if saved_s is not None and (attempt.saved_s is None or saved_s > attempt.saved_s):
        attempt.saved_s = saved_s
    if workers is not None:
        attempt.workers = max(workers, attempt.workers or 0)
    devices = _devices_of(record.job, attempt, workers)
    before_s = attempt.decided_s if attempt.told_s is None else attempt.told_s
    attempt.worked, attempt.told_s = with_work(attempt.worked, devices, at_s - before_s), at_s
    more, more_s = steps - attempt.steps, steps_s - attempt.steps_s
    if attempt.accelerator is None or more <= 0 or more_s <= 0:
        return None
    attempt.steps, attempt.steps_s = steps, steps_s
    return Speed(
        family=family_of(record.job),
        accelerator=attempt.accelerator,
        devices=devices,
        steps=more,
        seconds=more_s,
    )


def _devices_of(job: Job, attempt: Attempt, workers: int | None) -> float:
    """Return how many of the attempt's devices so many of its workers stand on: all have as many."""
    held = attempt.placement.whole_devices
    if workers is None:
        return held
    # A command that starts its workers by itself may have any number: all of them are the most that it ever told of.
    all_workers = max(job.gang_size(attempt.placement.devices), attempt.workers or 0)
    return held * workers / all_workers


def must_stop(record: JobRecord, cause: Cause, reason: str, at_s: float) -> None:
    """The latest attempt is to stop. A user's cancel overrides any other cause, and nothing overrides it."""
    attempt = record.attempt
    if attempt.stop_cause is not None and cause is not Cause.CANCELLED:
        return
    attempt.stop_cause, attempt.stop_reason = cause, reason
    if record.state is not JobState.STOPPING:
        _enter(record, JobState.STOPPING, at_s)


def resize(
    record: JobRecord,
    devices: tuple[DeviceRequest, ...],
    user: str,
    nodes: Mapping[str, NodeRecord],
    at_s: float,
) -> None:
    """A user wants the job to have these devices.

    An attempt that holds what is now asked for goes on; any other one is to stop. A place that was kept for the job
    was as large as it wanted it before: it is given up.
    """
    if record.submitted_devices is None:
        record.submitted_devices = record.job.devices
    record.job = replace(record.job, devices=devices)
    record.claim = None
    if record.state is JobState.QUEUED:
        record.hold = None
    if not record.state.holds_devices:
        return
    held = record.attempt.placement
    node = nodes[held.shares[0].node_id].node
    if not any(one.suits(node) and one.min_milli <= held.milli <= one.max_milli for one in devices):
        to = " | ".join(map(str, devices))
        must_stop(record, Cause.RESIZED, f"resized to {to} by {user or 'a user'}", at_s)


def cancel_waiting(record: JobRecord, at_s: float) -> None:
    """A user cancels a job that holds nothing."""
    record.hold = None
    _enter(record, JobState.CANCELLED, at_s)


def due(record: JobRecord, at_s: float) -> None:
    """The delay before the next attempt is over."""
    record.due_s = None
    record.hold = None
    _enter(record, JobState.QUEUED, at_s)


def ended(record: JobRecord, outcome: Outcome, at_s: float) -> None:
    """The engine says that nothing of the latest attempt runs any more: retry, or over."""
    attempt = record.attempt
    if attempt.stop_cause is not None:
        outcome = replace(outcome, cause=attempt.stop_cause)
    attempt.ended_s, attempt.outcome = at_s, outcome
    if outcome.cause is Cause.COMPLETED:
        _enter(record, JobState.SUCCEEDED, at_s)
        return
    if outcome.cause is Cause.CANCELLED:
        # An engine can say that an attempt was cancelled under it; only our own stop is a user's cancel.
        _enter(record, JobState.CANCELLED if attempt.stop_cause else JobState.FAILED, at_s)
        return
    record.counted_retries = min(record.counted_retries + outcome.restarts, record.job.retry.limit)
    delay_s = record.job.retry.delay_s(outcome.cause, record.counted_retries)
    if delay_s is None:
        _enter(record, JobState.FAILED, at_s)
        return
    if record.job.retry.counts(outcome.cause):
        record.counted_retries += 1
    if delay_s == 0:
        _enter(record, JobState.QUEUED, at_s)
    else:
        record.due_s = at_s + delay_s
        record.hold = Hold(job_id=record.job.id, code=HoldCode.BACKING_OFF)
        _enter(record, JobState.BACKING_OFF, at_s)


def _enter(record: JobRecord, state: JobState, at_s: float) -> None:
    assert state in ALLOWED[record.state], f"{record.job.id}: {record.state} -> {state} cannot happen"
    record.state = state
    if state in _FINAL:
        record.claim = None
    record.history = (*record.history, Change(state=state, at_s=at_s))
