"""EASY backfill: gaps are filled, and nobody who overtakes puts a promised start off."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.kernel.lifecycle import JobState
from artesian.kernel.scheduler import Scheduler
from artesian.model.events import AttemptEnded, AttemptStarted, Event
from artesian.model.job import Cause, Job, Outcome
from artesian.model.placement import Placement
from artesian.policy.backfill import EasyBackfill
from artesian.policy.base import Policy
from artesian.policy.conservative import Conservative
from artesian.policy.order import PriorityFifo
from artesian.policy.place import Pack
from builders import a_job, a_node, a_placement, a_snapshot, joined, nodes, submitted

EASY = EasyBackfill(order=PriorityFifo(), place=Pack())
ONE_NODE = [a_node("n", devices=4)]


def lasting(id: str, devices: int, seconds: float | None) -> Job:
    return a_job(id, devices=f"cpu:{devices}", estimated_duration_s=seconds)


def busy(devices: int, seconds: float | None) -> list[tuple[Job, Placement]]:
    return [(lasting("runs", devices, seconds), a_placement(("n", range(devices))))]


def starts(*waiting: Job, running: list[tuple[Job, Placement]]) -> list[str]:
    snapshot = a_snapshot(ONE_NODE, waiting=waiting, running=running)
    return [start.job_id for start in EASY.plan(snapshot).starts]


def test_a_short_job_starts_in_the_gap_before_the_first_one_is_due() -> None:
    assert starts(lasting("big", 4, 50), lasting("short", 2, 100), running=busy(2, 100)) == ["short"]


def test_a_job_that_would_put_the_first_one_off_waits() -> None:
    assert starts(lasting("big", 4, 50), lasting("long", 2, 101), running=busy(2, 100)) == []
    assert starts(lasting("big", 4, 50), lasting("unknown", 2, None), running=busy(2, 100)) == []


def test_devices_that_the_promise_leaves_alone_are_anybodys() -> None:
    # At 100 s four devices are free; the first one needs three of them, so one is nobody's.
    assert starts(lasting("big", 3, 50), lasting("long", 1, None), running=busy(2, 100)) == ["long"]
    assert starts(
        lasting("big", 3, 50), lasting("long", 1, None), lasting("other", 1, None), running=busy(2, 100)
    ) == ["long"]


def test_where_nothing_tells_when_devices_come_free_nobody_overtakes() -> None:
    assert starts(lasting("big", 4, 50), lasting("short", 1, 1), running=busy(2, None)) == []


def test_a_longer_job_of_a_shape_does_not_hide_a_shorter_one_behind_it() -> None:
    waiting = (lasting("big", 4, 50), lasting("long", 2, 500), lasting("short", 2, 100))
    assert starts(*waiting, running=busy(2, 100)) == ["short"]


def test_what_is_lent_until_the_promise_is_due_is_lent_once() -> None:
    waiting = (lasting("big", 4, 50), lasting("a", 1, 90), lasting("b", 1, 90), lasting("c", 1, 90))
    assert starts(*waiting, running=busy(2, 100)) == ["a", "b"]


def test_a_queue_for_one_kind_of_device_does_not_hold_up_another() -> None:
    fleet = [a_node("n", devices=4), a_node("h", devices=4, accelerator="H100-SXM5-80GB")]
    snapshot = a_snapshot(
        fleet, waiting=[lasting("big", 4, None), a_job("other", devices="H100:4")], running=busy(2, None)
    )
    assert [start.job_id for start in EASY.plan(snapshot).starts] == ["other"]


@pytest.mark.parametrize("policy", [EASY, Conservative(order=PriorityFifo(), place=Pack())])
def test_a_queue_deeper_than_a_cycle_looks_does_not_hold_up_other_devices(policy: Policy) -> None:
    fleet = [a_node("c", devices=4), a_node("h", accelerator="H100-SXM5-80GB", devices=4)]
    queue = [
        a_job(f"c{n:03}", devices="cpu:3", estimated_duration_s=500.0 + n, cpus_per_device=1.0 + n / 1000)
        for n in range(150)
    ]
    late = [a_job("late", devices="cpu:2", estimated_duration_s=900.0), a_job("other", devices="H100:1")]
    running = [(lasting("runs", 2, 100), a_placement(("c", range(2))))]
    snapshot = a_snapshot(fleet, waiting=[*queue, *late], running=running)
    assert [start.job_id for start in policy.plan(snapshot).starts] == ["other"]
    reason = policy.explain(snapshot, "late")
    assert reason is not None
    assert reason.text.startswith("c000 (c000) is ahead of it and waits for the same devices")


@pytest.mark.parametrize("policy", [EASY, Conservative(order=PriorityFifo(), place=Pack())])
def test_a_job_without_a_device_starts_though_all_devices_are_taken(policy: Policy) -> None:
    waiting = [lasting("big", 4, 50), a_job("host", devices="host", cpus_per_device=1.0)]
    snapshot = a_snapshot(ONE_NODE, waiting=waiting, running=busy(4, 100))
    assert [start.job_id for start in policy.plan(snapshot).starts] == ["host"]


def test_why_tells_when_the_first_one_is_due_and_what_would_let_another_ahead() -> None:
    snapshot = a_snapshot(
        ONE_NODE, waiting=[lasting("big", 4, 50), lasting("long", 2, 500)], running=busy(2, 100)
    )
    first, second = EASY.explain(snapshot, "big"), EASY.explain(snapshot, "long")
    assert first is not None
    assert second is not None
    assert first.unblock == "2 more devices become free, in 1m40s by the estimates of what runs"
    assert "big (big) is ahead of it" in second.text
    assert "its estimated duration is 8m20s" in second.text
    assert "it fits into a gap of 1m40s" in second.unblock


@pytest.mark.parametrize(("had_s", "end_s"), [(0, 10), (9, 10), (10, 20), (19, 20), (20, 40), (75, 80)])
def test_a_job_that_outlives_its_estimate_is_taken_to_need_as_long_again(had_s: float, end_s: float) -> None:
    capacity = a_snapshot(ONE_NODE).capacity
    placement = a_placement(("n", [0]))
    capacity.take(lasting("j", 1, 10.0), placement)
    capacity.expect(lasting("j", 1, 10.0), placement, 100.0)
    assert capacity.expected_ends_s(100.0 + had_s).tolist() == [[100.0 + end_s] + [-math.inf] * 3]
    capacity.give(lasting("j", 1, 10.0), placement)
    assert capacity.expected_ends_s(100.0 + had_s).tolist() == [[-math.inf] * 4]


def test_a_trial_leaves_the_estimates_as_they_were() -> None:
    snapshot = a_snapshot(ONE_NODE, running=busy(2, 100))
    before = snapshot.capacity.expected_ends_s(0.0).tolist()
    with snapshot.capacity.trial() as trial:
        trial.take(lasting("a", 2, 7.0), a_placement(("n", [2, 3])), at_s=0.0)
        trial.give(*busy(2, 100)[0])
        assert snapshot.capacity.expected_ends_s(0.0).tolist() == [[-math.inf] * 2 + [7.0] * 2]
    assert snapshot.capacity.expected_ends_s(0.0).tolist() == before


def test_without_an_estimate_the_end_is_not_known() -> None:
    snapshot = a_snapshot(ONE_NODE, waiting=[lasting("big", 4, 50)], running=busy(2, None))
    (promise,) = EASY.promises(snapshot)
    assert promise.at_s == math.inf


@settings(deadline=None)
@given(
    jobs=st.lists(
        st.tuples(st.integers(1, 8), st.integers(1, 30), st.integers(0, 40)), min_size=1, max_size=25
    )
)
def test_with_true_estimates_no_promise_is_ever_broken(jobs: list[tuple[int, int, int]]) -> None:
    """``jobs`` are (devices, duration, submitted); the engine ends each one exactly when its estimate says."""
    scheduler = Scheduler(EASY)
    scheduler.step([joined(node) for node in nodes(2, devices=4)])
    arrivals = sorted(
        (float(at_s), f"j{number}", lasting(f"j{number}", devices, float(seconds)))
        for number, (devices, seconds, at_s) in enumerate(jobs)
    )
    ends: list[tuple[float, str]] = []
    promised: dict[str, float] = {}
    while arrivals or ends:
        now_s = min([entry[0] for entry in arrivals[:1]] + [end[0] for end in ends])
        events: list[Event] = []
        for end in [end for end in ends if end[0] == now_s]:
            ends.remove(end)
            done = Outcome(cause=Cause.COMPLETED, exit_code=0)
            events.append(AttemptEnded(at_s=now_s, job_id=end[1], epoch=1, outcome=done))
        while arrivals and arrivals[0][0] == now_s:
            events.append(submitted(arrivals.pop(0)[2], now_s))
        plan = scheduler.step(events)
        scheduler.step([AttemptStarted(at_s=now_s, job_id=start.job_id, epoch=1) for start in plan.starts])
        for start in plan.starts:
            assert now_s <= promised.get(start.job_id, math.inf)
            job = scheduler.state.jobs[start.job_id].job
            assert job.estimated_duration_s is not None
            ends.append((now_s + job.estimated_duration_s, start.job_id))
        for promise in EASY.promises(scheduler.snapshot()):
            promised[promise.job.id] = min(promise.at_s, promised.get(promise.job.id, math.inf))
    assert all(record.state is JobState.SUCCEEDED for record in scheduler.state.jobs.values())
