"""Simulations computed by hand, and what is refused."""

import msgspec
import pytest

from artesian.kernel.lifecycle import JobState
from artesian.model.events import AttemptEnded, AttemptStarted, Event
from artesian.model.fleet import Fleet
from artesian.model.job import Cause, Outcome
from artesian.model.ledger import Stage
from artesian.model.plan import HoldCode, Plan, Reason, Start, Stop
from artesian.model.snapshot import Snapshot
from artesian.sim import (
    Failure,
    NoProgress,
    report,
)
from artesian.sim.engine import VirtualEngine
from builders import a_job, a_node, cancelled, ended, fifo, joined, lost, retry, started, submitted
from simulations import SIGNALLED, a_fleet, a_sim_job, job, run, times

# -- by hand ------------------------------------------------------------------------------------------


def test_one_job_takes_as_long_as_it_takes() -> None:
    figures = report(run(a_fleet(2), a_sim_job("a", "cpu:2", at=5.0, takes=30.0)))
    assert figures.makespan_s == 30.0
    assert figures.jobs[0].wait_s == 0.0
    assert figures.jobs[0].jct_s == 30.0
    assert figures.jobs[0].state is JobState.SUCCEEDED
    assert figures.allocated_share == 1.0


def test_jobs_that_fit_run_side_by_side() -> None:
    result = run(a_fleet(2, 2), *(a_sim_job(id, takes=10.0) for id in "abcd"))
    assert report(result).makespan_s == 10.0


def test_jobs_that_do_not_fit_follow_in_the_order_of_submission() -> None:
    result = run(
        a_fleet(1),
        a_sim_job("third", at=2.0, takes=1.0),
        a_sim_job("second", at=1.0, takes=20.0),
        a_sim_job("first", at=0.0, takes=10.0),
    )
    assert times(result) == {"first": (0.0, 10.0), "second": (10.0, 30.0), "third": (30.0, 31.0)}
    assert report(result).makespan_s == 31.0


def test_a_gang_waits_until_it_is_whole_and_nothing_overtakes_it() -> None:
    result = run(
        a_fleet(1, 1),
        a_sim_job("early", at=0.0, takes=10.0),
        a_sim_job("gang", "cpu:2", at=1.0, takes=5.0),
        a_sim_job("late", at=2.0, takes=1.0),
    )
    assert times(result) == {"early": (0.0, 10.0), "gang": (10.0, 15.0), "late": (15.0, 16.0)}


def test_a_higher_priority_goes_first_among_those_that_wait() -> None:
    result = run(
        a_fleet(1),
        a_sim_job("running", takes=10.0),
        a_sim_job("low", at=1.0, priority=-1, takes=10.0),
        a_sim_job("usual", at=2.0, takes=10.0),
        a_sim_job("high", at=3.0, priority=7, takes=10.0),
    )
    assert [times(result)[id][0] for id in ("running", "high", "usual", "low")] == [0.0, 10.0, 20.0, 30.0]


def test_a_failed_attempt_is_retried_after_its_delay_from_the_beginning() -> None:
    result = run(
        a_fleet(2),
        a_sim_job(
            "a",
            "cpu:2",
            takes=10.0,
            fails=[(4.0, SIGNALLED), (5.0, SIGNALLED)],
            retry=retry(3, backoff_s=1.0),
        ),
    )
    # 0-4 fails, waits 1 s; 5-10 fails, waits 2 s; 12-22 completes.
    [figures] = report(result).jobs
    assert (figures.started_s, figures.ended_s, figures.attempts) == (0.0, 22.0, 3)
    assert figures.held_milli_us == 2 * 1000 * 19 * 10**6


def test_other_jobs_run_while_one_backs_off() -> None:
    result = run(
        a_fleet(1),
        a_sim_job("a", takes=10.0, fails=[(1.0, SIGNALLED)], retry=retry(1, backoff_s=5.0)),
        a_sim_job("b", takes=2.0),
    )
    assert times(result) == {"a": (0.0, 16.0), "b": (1.0, 3.0)}


def test_a_users_error_is_not_retried() -> None:
    result = run(a_fleet(1), a_sim_job("a", fails=[(3.0, Outcome(cause=Cause.USER_ERROR, exit_code=1))]))
    assert job(result, "a").state is JobState.FAILED
    assert report(result).jct is None
    assert report(result).makespan_s == 3.0


def test_starting_up_holds_devices_before_the_attempt_runs() -> None:
    result = run(a_fleet(1), a_sim_job("a", takes=10.0, start_up_s=2.5))
    attempt = result.state.jobs["a"].attempt
    assert (attempt.decided_s, attempt.started_s, attempt.ended_s) == (0.0, 2.5, 12.5)


def test_jobs_that_take_no_time_end_when_they_start() -> None:
    result = run(a_fleet(1), *(a_sim_job(id, takes=0.0, at=3.0) for id in "abc"))
    assert set(times(result).values()) == {(3.0, 3.0)}
    assert report(result).allocated_share is None


def test_a_cancelled_job_gives_its_devices_back_at_once() -> None:
    result = run(
        a_fleet(1),
        a_sim_job("a", takes=100.0),
        a_sim_job("b", at=1.0, takes=5.0),
        a_sim_job("c", at=2.0, takes=5.0),
        events=[cancelled("a", 20.0), cancelled("c", 10.0)],
    )
    assert times(result) == {"a": (0.0, 20.0), "b": (20.0, 25.0), "c": (None, 10.0)}
    assert job(result, "a").state is job(result, "c").state is JobState.CANCELLED


def test_a_lost_nodes_job_starts_again_on_another_one() -> None:
    result = run(
        a_fleet(1, 1),
        a_sim_job("a", takes=10.0),
        events=[lost("n1", 4.0), joined(a_node("n1", devices=1), 50.0)],
    )
    record = result.state.jobs["a"]
    assert [attempt.placement.shares[0].node_id for attempt in record.attempts] == ["n1", "n2"]
    assert record.ended_s == 14.0


def test_reports_of_attempts_that_are_over_change_nothing() -> None:
    jobs = [a_sim_job("a", takes=10.0, fails=[(2.0, SIGNALLED)]), a_sim_job("b", takes=3.0)]
    stale: list[Event] = [ended("a", 1, at_s=5.0), started("a", 1, at_s=6.0), ended("b", 1, at_s=9.0)]
    quiet, noisy = run(a_fleet(2), *jobs), run(a_fleet(2), *jobs, events=stale)
    assert times(noisy) == times(quiet)


def test_what_happens_at_one_time_is_one_cycle() -> None:
    class Counting:
        def __init__(self) -> None:
            self.at_s: list[float] = []

        def plan(self, snapshot: Snapshot) -> Plan:
            self.at_s.append(snapshot.at_s)
            return fifo().plan(snapshot)

        def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
            return fifo().explain(snapshot, job_id)

        def next_wake_s(self, snapshot: Snapshot) -> float | None:
            return None

    policy = Counting()
    run(
        a_fleet(2),
        a_sim_job("a", takes=10.0),
        a_sim_job("b", takes=10.0),
        a_sim_job("c", at=10.0),
        policy=policy,
    )
    # Twice when something starts: the engine answers at the same time, and later than it was asked.
    assert policy.at_s == [0.0, 0.0, 10.0, 10.0, 20.0]


# -- what never starts, what never ends ---------------------------------------------------------------


def test_a_job_that_can_never_start_is_reported_with_its_reason() -> None:
    figures = report(
        run(
            a_fleet(2, 2),
            a_sim_job("huge", "cpu:5"),
            a_sim_job("other", "H100:1"),
            a_sim_job("fits", takes=1.0),
        )
    )
    reasons = {entry.job_id: entry.hold for entry in figures.unstarted}
    assert set(reasons) == {"huge", "other"}
    assert reasons["huge"] is not None
    assert reasons["huge"].code is HoldCode.LARGER_THAN_FLEET
    assert reasons["other"] is not None
    assert reasons["other"].code is HoldCode.NO_SUCH_DEVICES
    assert figures.makespan_s == 1.0


def test_on_no_nodes_nothing_starts() -> None:
    figures = report(run(Fleet(nodes=()), a_sim_job("a")))
    assert [entry.job_id for entry in figures.unstarted] == ["a"]
    assert (figures.makespan_s, figures.wait, figures.jct, figures.allocated_share) == (
        None,
        None,
        None,
        None,
    )
    assert figures.waterfall.nameplate_us == 0


def test_without_jobs_nothing_happens() -> None:
    figures = report(run(a_fleet(1)))
    assert (figures.jobs, figures.allocation, figures.makespan_s) == ((), (), None)


def test_a_policy_that_stops_what_it_starts_is_told_so() -> None:
    class Restless:
        def plan(self, snapshot: Snapshot) -> Plan:
            stops = tuple(
                Stop(job_id=entry.job.id, epoch=entry.epoch, grace_s=0.0, cause=Cause.PREEMPTED, reason="")
                for entry in snapshot.running.values()
                if not entry.is_stopping
            )
            return Plan(at_s=snapshot.at_s, stops=stops, starts=fifo().plan(snapshot).starts)

        def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
            return fifo().explain(snapshot, job_id)

        def next_wake_s(self, snapshot: Snapshot) -> float | None:
            return None

    with pytest.raises(NoProgress, match=r"job a \(a\) starts for the 1001th time at 0 s"):
        run(a_fleet(1), a_sim_job("a"), policy=Restless())


# -- what is asked for --------------------------------------------------------------------------------


def test_two_jobs_of_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="distinct ids"):
        run(a_fleet(1), a_sim_job("a"), a_sim_job("a"))


def test_events_that_no_simulation_can_take_are_refused() -> None:
    with pytest.raises(ValueError, match="jobs to come as SimJobs"):
        run(a_fleet(1), events=[submitted(a_job("a"))])
    with pytest.raises(ValueError, match="finite times of at least 0, got nan"):
        run(a_fleet(1), events=[lost("n1", float("nan"))])


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["at", "takes", "start_up_s"])
def test_times_that_are_none_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="of at least 0, got"):
        a_sim_job("a", **{name: value})  # type: ignore[arg-type]  # one of three floats


def test_failures_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="failures within its 10"):
        a_sim_job("a", fails=[(11.0, SIGNALLED)])
    with pytest.raises(ValueError, match="a failure, got completed"):
        Failure(after_s=1.0, outcome=Outcome(cause=Cause.COMPLETED))
    with pytest.raises(ValueError, match="after_s of at least 0"):
        Failure(after_s=-1.0, outcome=SIGNALLED)


def test_the_engine_carries_a_command_out_once() -> None:
    result = run(a_fleet(1), a_sim_job("a"))
    [start] = [record.starts[0] for record in result.records if isinstance(record, Plan) and record.starts]
    assert isinstance(start, Start)
    engine = VirtualEngine({"a": a_sim_job("a", takes=10.0)})
    engine.carry_out(start, 0.0)
    engine.carry_out(start, 5.0)
    stop = Stop(job_id="a", epoch=2, grace_s=1.0, cause=Cause.PREEMPTED, reason="")
    engine.carry_out(stop, 6.0)
    happened: list[Event] = []
    while engine.next_s is not None:
        happened += engine.pop(engine.next_s)
    assert [(type(event), event.at_s) for event in happened] == [(AttemptStarted, 0.0), (AttemptEnded, 10.0)]


# -- the report ---------------------------------------------------------------------------------------


def test_the_report_adds_up_by_hand() -> None:
    # a: 2 devices 0-10, b: 1 device 0-20, c: 2 devices waits 1-10, runs 10-20, on 3 devices in all.
    result = run(
        a_fleet(3),
        a_sim_job("a", "cpu:2", takes=10.0),
        a_sim_job("b", takes=20.0),
        a_sim_job("c", "cpu:2", at=1.0, takes=10.0),
    )
    body = report(result).to_dict()
    assert body["simulated"] is True
    assert body["makespan_s"] == 20.0
    assert body["wait"] == {"count": 3, "mean_s": 3.0, "median_s": 0.0, "p99_s": 9.0}
    assert body["jct"] == {"count": 3, "mean_s": (10 + 20 + 19) / 3, "median_s": 19.0, "p99_s": 20.0}
    assert (body["owned_device_s"], body["allocated_device_s"]) == (60.0, 60.0)
    assert body["allocation"] == [
        {"at_s": 0.0, "devices": 3.0},
        {"at_s": 10.0, "devices": 3.0},
        {"at_s": 20.0, "devices": 0.0},
    ]
    assert [entry["held_device_s"] for entry in body["jobs"]] == [20.0, 20.0, 20.0]
    assert body["waterfall"]["simulated"] is True
    msgspec.json.encode(body)


def test_the_waterfall_says_that_it_is_simulated_and_what_nobody_measured() -> None:
    waterfall = report(run(a_fleet(4), a_sim_job("a", "cpu:1", takes=10.0))).waterfall
    assert waterfall.is_simulated
    assert waterfall.nameplate_us == 40 * 10**6
    assert waterfall.left_us(Stage.ALLOCATED) == 10 * 10**6
    assert waterfall.left_us(Stage.PRODUCTIVE) == 10 * 10**6
    assert waterfall.left_us(Stage.MODEL_FLOPS) is None
