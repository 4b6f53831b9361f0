"""The kernel's records as readers are told of them: see ``model.views``."""

from typing import TYPE_CHECKING

from artesian.kernel.lifecycle import Attempt, JobRecord, JobState
from artesian.kernel.nodes import NodeRecord
from artesian.model.job import Cause, Outcome
from artesian.model.plan import Reason
from artesian.model.resources import MILLI
from artesian.model.views import (
    AttemptView,
    Decision,
    JobView,
    MovesView,
    MoveView,
    NodeView,
    OutcomeView,
    ShareView,
)
from artesian.policy.outlook import Outlook
from artesian.policy.proposals import Proposal, moves_by_itself

if TYPE_CHECKING:
    from artesian.kernel.scheduler import Scheduler


def job_view(record: JobRecord) -> JobView:
    """Return what a list tells of a job."""
    job = record.job
    return JobView(
        id=job.id,
        name=job.name,
        kind=job.kind.value,
        state=record.state.value,
        team=job.team,
        user=job.user,
        priority=job.priority,
        command=job.command,
        workdir=job.workdir,
        grace_s=job.grace_s,
        devices=tuple(map(str, job.devices)),
        submitted_s=record.submitted_s,
        ended_s=record.ended_s,
        attempts=tuple(map(attempt_view, record.attempts)),
    )


def attempt_view(attempt: Attempt) -> AttemptView:
    """Return what is told of an attempt."""
    return AttemptView(
        epoch=attempt.epoch,
        placement=tuple(
            ShareView(node=share.node_id, devices=share.devices, milli=share.milli)
            for share in attempt.placement.shares
        ),
        decided_s=attempt.decided_s,
        started_s=attempt.started_s,
        ended_s=attempt.ended_s,
        outcome=None if attempt.outcome is None else outcome_view(attempt.outcome),
    )


def outcome_view(outcome: Outcome) -> OutcomeView:
    """Return what is told of an outcome."""
    return OutcomeView(
        cause=outcome.cause,
        exit_code=outcome.exit_code,
        signal=outcome.signal,
        worker=outcome.worker,
        message=outcome.message,
    )


def node_view(record: NodeRecord, *, held_milli: int, jobs: tuple[str, ...]) -> NodeView:
    """Return what is told of a node of which so many thousandths of devices are held by these jobs."""
    node = record.node
    return NodeView(
        id=node.id,
        accelerator=node.accelerator,
        devices=node.devices,
        held=held_milli / MILLI,
        is_up=record.is_up,
        pool=node.pool,
        cpus=node.cpus,
        memory_bytes=node.memory_bytes,
        device_memory_bytes=node.device_memory_bytes,
        peak_flops=node.peak_flops,
        joined_s=record.joined_s,
        jobs=jobs,
        excluded=None if record.exclusion is None else record.exclusion.reason,
        excluded_by=None if record.exclusion is None else record.exclusion.user,
    )


def moves_view(scheduler: "Scheduler | None", at_s: float) -> MovesView:
    """Return the moves with which waiting jobs could start; none where nobody has taken stock of the nodes yet."""
    if scheduler is None:
        return MovesView(at_s=at_s, by_itself=False, moves=())
    found = scheduler.proposals(at_s)
    return MovesView(
        at_s=at_s, by_itself=moves_by_itself(scheduler.policy), moves=tuple(map(_move_view, found))
    )


def _move_view(proposal: Proposal) -> MoveView:
    move = proposal.move
    assert move.lets_start is not None, "who only grows lets nobody start"
    return MoveView(
        job=move.job_id,
        kind=move.kind,
        now=str(move.now),
        to=str(move.to),
        lost_s=move.lost_s,
        lost_device_s=move.lost_s * move.now.whole_devices,
        cost_device_s=move.cost_device_s,
        lets_start=move.lets_start,
        starts_on=None if proposal.starts_on is None else str(proposal.starts_on),
        standing=proposal.standing.value,
        held_back_by=proposal.held_back_by,
    )


def decision(record: JobRecord, waits_for: Reason | None, outlook: Outlook | None) -> Decision:
    """Return the last decision about the job in words, what would let it go on, and what it can look forward to."""
    reason, unblock = _in_words(record, waits_for)
    return Decision(
        job=record.job.id,
        state=record.state.value,
        reason=reason,
        unblock=unblock,
        nearest_start_s=None if outlook is None else outlook.start_s,
        would_start=() if outlook is None else outlook.would_start,
    )


def _in_words(record: JobRecord, waits_for: Reason | None) -> tuple[str, str | None]:
    state = record.state
    if waits_for is not None:
        return waits_for.text, waits_for.unblock
    if state is JobState.QUEUED:
        return "the scheduler has not looked at it yet", "the next scheduling cycle"
    if state is JobState.STOPPING:
        return record.attempt.stop_reason, None
    if state.holds_devices:
        return record.attempt.reason, None
    if state is JobState.CANCELLED and not record.attempts:
        return "a user cancelled it before it started", None
    outcome = record.attempt.outcome
    assert outcome is not None, "a job that is over has an outcome"
    if state is JobState.CANCELLED:
        return f"{record.attempt.stop_reason}; {outcome.message or 'its command had ended'}", None
    said = str(outcome_view(outcome))
    if state is JobState.SUCCEEDED:
        return said, None
    retry = record.job.retry
    cause = outcome.cause.value
    if outcome.cause in retry.causes:
        rule = f"the limit of {retry.limit} retries is reached (retry: limit in the job file)"
    else:
        rule = f"a job is not tried again after {cause} (unless retry: on in its file names it)"
    logs = f"artesian logs {record.job.id} shows what it printed"
    mend = "mend the command in the job file, and submit it again"
    return f"{said}; {rule}", mend if outcome.cause is Cause.START_FAILED else logs
