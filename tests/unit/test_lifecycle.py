"""The life of a job: which changes happen, and which never do."""

import pytest

from artesian.kernel import lifecycle
from artesian.kernel.lifecycle import ALLOWED, JobRecord, JobState
from artesian.model.job import Cause, Outcome, RetryPolicy
from artesian.model.plan import Hold, HoldCode
from builders import a_job, a_placement, retry

PLACEMENT = a_placement(("n1", [0]))
END_CAUSES = [cause for cause in Cause if cause not in {Cause.COMPLETED, Cause.CANCELLED, Cause.RESIZED}]


def a_record(policy: RetryPolicy | None = None) -> JobRecord:
    return lifecycle.submit(a_job(retry=policy or RetryPolicy()), 0.0)


def start(record: JobRecord, epoch: int, at_s: float) -> None:
    lifecycle.start(record, epoch, PLACEMENT, at_s, "it is first")


def a_running(policy: RetryPolicy | None = None) -> JobRecord:
    record = a_record(policy)
    start(record, 1, 1.0)
    lifecycle.started(record, 2.0)
    return record


def end(record: JobRecord, cause: Cause, at_s: float = 3.0) -> JobState:
    lifecycle.ended(record, Outcome(cause=cause), at_s)
    return record.state


def test_a_job_that_ends_with_code_0_has_succeeded() -> None:
    record = a_running()
    assert end(record, Cause.COMPLETED) is JobState.SUCCEEDED
    assert record.ended_s == 3.0
    assert [(change.state.value, change.at_s) for change in record.history] == [
        ("queued", 0.0),
        ("starting", 1.0),
        ("running", 2.0),
        ("succeeded", 3.0),
    ]


def test_an_attempt_may_end_before_anybody_said_that_it_started() -> None:
    record = a_record()
    start(record, 1, 1.0)
    assert end(record, Cause.COMPLETED) is JobState.SUCCEEDED
    assert record.attempt.started_s is None


def test_a_second_report_of_the_start_changes_nothing() -> None:
    record = a_running()
    lifecycle.started(record, 9.0)
    assert (record.attempt.started_s, record.state, len(record.history)) == (2.0, JobState.RUNNING, 3)


def test_a_start_that_is_reported_while_it_must_stop_is_noted_and_the_job_still_stops() -> None:
    record = a_record()
    start(record, 1, 1.0)
    lifecycle.must_stop(record, Cause.CANCELLED, "cancelled by ann", 2.0)
    lifecycle.started(record, 3.0)
    assert (record.state, record.attempt.started_s) == (JobState.STOPPING, 3.0)


@pytest.mark.parametrize("reported", list(Cause))
def test_the_cause_of_our_own_stop_wins_over_what_the_engine_reports(reported: Cause) -> None:
    record = a_running()
    lifecycle.must_stop(record, Cause.PREEMPTED, "room", 2.5)
    lifecycle.ended(record, Outcome(cause=reported, exit_code=0, worker=1, message="saved"), 3.0)
    assert record.attempt.outcome == Outcome(cause=Cause.PREEMPTED, exit_code=0, worker=1, message="saved")
    assert record.state is JobState.QUEUED


@pytest.mark.parametrize("first", [Cause.PREEMPTED, Cause.NODE_LOST])
def test_a_cancel_overrides_every_other_stop_and_nothing_overrides_a_cancel(first: Cause) -> None:
    record = a_running()
    lifecycle.must_stop(record, first, "first", 2.1)
    lifecycle.must_stop(record, Cause.CANCELLED, "cancelled by ann", 2.2)
    lifecycle.must_stop(record, first, "again", 2.3)
    assert record.attempt.stop_reason == "cancelled by ann"
    assert end(record, Cause.COMPLETED) is JobState.CANCELLED


def test_an_attempt_that_was_cancelled_behind_our_back_has_failed() -> None:
    assert end(a_running(retry(3, *Cause)), Cause.CANCELLED) is JobState.FAILED


@pytest.mark.parametrize("cause", END_CAUSES)
def test_a_cause_that_the_policy_does_not_name_ends_the_job(cause: Cause) -> None:
    others = frozenset(END_CAUSES) - {cause}
    assert end(a_running(retry(9, *others)), cause) is JobState.FAILED


@pytest.mark.parametrize("cause", [Cause.NODE_LOST, Cause.PREEMPTED, Cause.RESIZED])
def test_what_is_not_the_jobs_fault_is_retried_without_limit_and_at_once(cause: Cause) -> None:
    record = a_record(retry(0))
    for epoch in range(1, 6):
        start(record, epoch, float(epoch))
        assert end(record, cause, epoch + 0.5) is JobState.QUEUED
    assert (record.counted_retries, record.epoch) == (0, 5)


def test_a_resized_job_goes_on_whatever_its_retry_policy_names() -> None:
    record = a_running(retry(0, Cause.SIGNAL))
    lifecycle.must_stop(record, Cause.RESIZED, "resized to cpu:2 by ann", 2.5)
    assert end(record, Cause.SIGNAL) is JobState.QUEUED
    assert record.counted_retries == 0


def test_counted_retries_wait_twice_as_long_each_time_up_to_the_longest_and_then_end() -> None:
    record = a_record(retry(4, Cause.SIGNAL, backoff_s=2.0, max_backoff_s=10.0))
    delays = []
    now_s = 0.0
    for epoch in range(1, 5):
        start(record, epoch, now_s)
        assert end(record, Cause.SIGNAL, now_s) is JobState.BACKING_OFF
        assert record.due_s is not None
        delays.append(record.due_s - now_s)
        now_s = record.due_s
        lifecycle.due(record, now_s)
        assert record.due_s is None
    start(record, 5, now_s)
    assert end(record, Cause.SIGNAL, now_s) is JobState.FAILED
    assert (delays, record.counted_retries) == ([2.0, 4.0, 8.0, 10.0], 4)


def test_restarts_within_an_attempt_count_as_retries() -> None:
    record = a_running(retry(3, Cause.SIGNAL, Cause.NODE_LOST, backoff_s=0.0))
    assert record.job_now.retry.limit == 3
    lifecycle.ended(record, Outcome(cause=Cause.NODE_LOST, restarts=2), 3.0)
    assert (record.state, record.counted_retries, record.job_now.retry.limit) == (JobState.QUEUED, 2, 1)
    start(record, 2, 4.0)
    lifecycle.ended(record, Outcome(cause=Cause.SIGNAL, restarts=1), 5.0)
    assert (record.state, record.counted_retries, record.job_now.retry.limit) == (JobState.FAILED, 3, 0)


def test_a_retry_without_delay_does_not_back_off() -> None:
    record = a_running(retry(1, Cause.SIGNAL, backoff_s=0.0))
    assert end(record, Cause.SIGNAL) is JobState.QUEUED
    assert record.counted_retries == 1


def test_a_job_that_backs_off_says_so() -> None:
    record = a_running(retry(1, Cause.OOM_KILL, backoff_s=30.0))
    assert end(record, Cause.OOM_KILL) is JobState.BACKING_OFF
    assert record.hold == Hold(job_id="j1", code=HoldCode.BACKING_OFF)
    assert record.due_s == 33.0


def test_a_reason_to_wait_does_not_outlive_the_wait() -> None:
    record = a_running(retry(2, Cause.SIGNAL))
    end(record, Cause.SIGNAL)
    lifecycle.due(record, 4.0)
    assert record.hold is None
    record = a_running(retry(2, Cause.SIGNAL))
    end(record, Cause.SIGNAL)
    lifecycle.cancel_waiting(record, 4.0)
    assert (record.hold, record.state) == (None, JobState.CANCELLED)


def test_an_epoch_follows_the_last_one() -> None:
    record = a_record()
    with pytest.raises(AssertionError, match="attempt 2 after 0"):
        start(record, 2, 1.0)


@pytest.mark.parametrize("state", [state for state in JobState if state.is_final])
def test_a_final_state_is_left_by_nothing(state: JobState) -> None:
    assert ALLOWED[state] == frozenset()
    record = a_record()
    record.state = state
    with pytest.raises(AssertionError, match="cannot happen"):
        lifecycle.cancel_waiting(record, 1.0)


def test_every_state_that_is_not_final_leads_to_a_final_one() -> None:
    assert set(ALLOWED) == set(JobState)
    for state in JobState:
        reached, frontier = {state}, [state]
        while frontier:
            for after in ALLOWED[frontier.pop()] - reached:
                reached.add(after)
                frontier.append(after)
        assert any(end.is_final for end in reached), state


def test_devices_are_held_from_the_decision_to_the_reported_end() -> None:
    assert {state for state in JobState if state.holds_devices} == {
        JobState.STARTING,
        JobState.RUNNING,
        JobState.STOPPING,
    }
    assert not any(state.is_final and state.holds_devices for state in JobState)
