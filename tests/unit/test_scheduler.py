"""One cycle of the scheduler: what it decides, what it refuses, and what a restart carries out again."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from artesian.kernel.lifecycle import JobState
from artesian.kernel.replay import replay
from artesian.kernel.scheduler import PlanRejected, Scheduler
from artesian.kernel.state import State
from artesian.model.events import Event
from artesian.model.job import Cause, Job
from artesian.model.placement import Placement
from artesian.model.plan import Hold, HoldCode, Plan, Reason, Start, Stop
from artesian.model.snapshot import Snapshot
from artesian.policy.backfill import EasyBackfill
from artesian.policy.order import ShortestAged
from artesian.policy.place import Pack
from builders import (
    Kernel,
    a_job,
    a_node,
    a_placement,
    cancelled,
    ended,
    free_of,
    joined,
    lost,
    nodes,
    retry,
    started,
    submitted,
    ticked,
)

H100 = "H100-SXM5-80GB"


@dataclass(frozen=True)
class Says:
    """A policy that plans what the test says, whatever the snapshot."""

    starts: tuple[Start, ...] = ()
    stops: tuple[Stop, ...] = ()
    holds: tuple[Hold, ...] = ()

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return the test's plan."""
        return Plan(at_s=snapshot.at_s, starts=self.starts, stops=self.stops, holds=self.holds)

    def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
        """Return the test's reason, for every job that waits."""
        assert job_id in snapshot.waiting
        return Reason(code=HoldCode.DEVICES_BUSY, text="the test says so", unblock="ask the test")

    def next_wake_s(self, snapshot: Snapshot) -> float | None:
        """Return None: the test says when it is asked again."""
        return None


def a_start(job_id: str, placement: Placement, epoch: int = 1) -> Start:
    return Start(job_id=job_id, epoch=epoch, placement=placement, reason="the test says so")


def a_stop(job_id: str, epoch: int = 1, cause: Cause = Cause.PREEMPTED) -> Stop:
    return Stop(job_id=job_id, epoch=epoch, grace_s=1.0, cause=cause, reason="the test says so")


def ids(plan: Plan) -> list[str]:
    return [command.id for command in plan.commands]


def test_without_events_nothing_is_decided_and_nothing_changes() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.submit(a_job("a"), a_job("b"))
    before = kernel.state.image()
    assert kernel.step().is_empty
    assert kernel.state.image() == before


def test_a_submitted_job_starts_on_a_free_node_with_its_first_epoch() -> None:
    plan = Kernel(a_node(devices=2)).submit(a_job(devices="cpu:2"))
    assert ids(plan) == ["start/j1/1"]
    assert plan.starts[0].placement == a_placement(("n1", [0, 1]))


def test_a_submit_that_is_repeated_starts_nothing_again() -> None:
    kernel = Kernel(a_node())
    kernel.submit(a_job())
    assert kernel.submit(a_job(devices="cpu:4")).is_empty
    assert kernel.job().job == a_job()


def test_the_next_attempt_has_the_next_epoch() -> None:
    kernel = Kernel(a_node())
    kernel.submit(a_job(retry=retry(1, Cause.SIGNAL, backoff_s=0.0)))
    assert ids(kernel.step(ended(cause=Cause.SIGNAL))) == ["start/j1/2"]


def test_a_job_that_backs_off_starts_when_its_delay_is_over_and_not_before() -> None:
    kernel = Kernel(a_node())
    kernel.submit(a_job(retry=retry(1, Cause.SIGNAL, backoff_s=5.0)))
    assert kernel.step(ended(cause=Cause.SIGNAL, at_s=10.0)).is_empty
    assert kernel.scheduler.next_due_s == 15.0
    assert kernel.step(ticked(14.9)).is_empty
    assert ids(kernel.step(ticked(15.0))) == ["start/j1/2"]
    assert kernel.scheduler.next_due_s is None


def test_a_cancel_while_backing_off_ends_the_job_and_leaves_nothing_due() -> None:
    kernel = Kernel(a_node())
    kernel.submit(a_job(retry=retry(1, Cause.SIGNAL, backoff_s=5.0)))
    kernel.step(ended(cause=Cause.SIGNAL))
    assert kernel.step(cancelled()).is_empty
    assert kernel.scheduler.next_due_s is None
    assert kernel.step(ticked(100.0)).is_empty
    assert kernel.is_in() is JobState.CANCELLED


def test_a_job_cancelled_in_the_cycle_that_it_is_submitted_in_never_starts() -> None:
    kernel = Kernel(a_node())
    assert kernel.step(submitted(), cancelled()).is_empty
    assert kernel.is_in() is JobState.CANCELLED


def test_a_cancel_of_a_running_job_stops_it_once_and_keeps_its_devices_till_the_end() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.run(a_job(grace_s=7.0), a_job("next"))
    plan = kernel.step(cancelled(user="ann"))
    assert plan.stops == (
        Stop(job_id="j1", epoch=1, grace_s=7.0, cause=Cause.CANCELLED, reason="cancelled by ann"),
    )
    assert not plan.starts
    assert not kernel.step(cancelled()).commands
    assert ids(kernel.step(ended(cause=Cause.SIGNAL))) == ["start/next/1"]
    assert kernel.is_in() is JobState.CANCELLED


def test_a_lost_node_stops_the_whole_gang_and_it_starts_elsewhere() -> None:
    kernel = Kernel(*nodes(3, devices=2))
    kernel.run(a_job(devices="cpu:4"))
    assert {share.node_id for share in kernel.job().attempt.placement.shares} == {"n1", "n2"}
    plan = kernel.step(lost("n2"))
    assert [(stop.cause, stop.reason) for stop in plan.stops] == [(Cause.NODE_LOST, "node n2 is lost")]
    plan = kernel.step(ended())
    assert [str(start.placement) for start in plan.starts] == ["n1[0,1] + n3[0,1]"]


def test_required_stops_come_in_the_order_of_ids_also_after_a_restart() -> None:
    kernel = Kernel(*nodes(1, devices=3))
    kernel.submit(a_job("b"))
    kernel.submit(a_job("a"))
    restored = Kernel(state=State.from_image(replay(kernel.journal).image()))
    assert ids(kernel.step(lost())) == ids(restored.step(lost())) == ["stop/a/1", "stop/b/1"]


def test_a_reason_to_wait_is_told_once_and_again_when_it_changes() -> None:
    kernel = Kernel(a_node("c", devices=1), a_node("h", devices=1, accelerator=H100))
    plan = kernel.submit(a_job("a1"), a_job("a2", devices="H100:1"), a_job("b", devices="cpu:1 | H100:1"))
    assert plan.holds == (Hold(job_id="b", code=HoldCode.DEVICES_BUSY),)
    assert kernel.step(ticked(1.0)).is_empty
    plan = kernel.submit(a_job("c", priority=1))
    assert plan.holds == (
        Hold(job_id="c", code=HoldCode.DEVICES_BUSY),
        Hold(job_id="b", code=HoldCode.BEHIND_ANOTHER, behind="c"),
    )
    plan = kernel.submit(a_job("d", priority=2, devices="1"))
    assert plan.holds == (Hold(job_id="d", code=HoldCode.DEVICES_BUSY),), "nobody else is looked at"
    assert kernel.step(ticked(2.0)).is_empty


def test_who_waits_is_told_why_in_words_also_where_the_cycle_did_not_look_at_it() -> None:
    kernel = Kernel(a_node(devices=1))
    plan = kernel.submit(a_job("a"), a_job("b"), a_job("c"), a_job("huge", devices="cpu:9"))
    assert [hold.job_id for hold in plan.holds] == ["b"]
    assert kernel.why("b").text == "needs 1 device (cpu:1), 0 can be had now; held by a (1)"
    assert kernel.why("c").text == "b (b) is ahead of it and waits for the same devices"
    assert kernel.why("huge").code is HoldCode.LARGER_THAN_FLEET
    kernel.submit(a_job("first", priority=1))
    assert kernel.why("b").text == "first (first) is ahead of it and waits for the same devices"
    assert (kernel.why("c").code, kernel.why("first").code) == (
        HoldCode.BEHIND_ANOTHER,
        HoldCode.DEVICES_BUSY,
    )


def test_why_is_the_policys_word_for_who_is_queued_and_nothing_for_who_does_not_wait() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.run(a_job("runs"), a_job("waits"))
    kernel.submit(a_job("gone"))
    kernel.step(cancelled("gone"))
    kernel.scheduler.policy = Says()
    assert kernel.why("waits").text == "the test says so"
    assert kernel.scheduler.why("runs") is None
    assert kernel.scheduler.why("gone") is None
    with pytest.raises(KeyError, match="ghost"):
        kernel.scheduler.why("ghost")


def test_a_job_that_backs_off_says_after_what_and_for_how_long_still() -> None:
    kernel = Kernel(a_node())
    kernel.submit(a_job(retry=retry(1, Cause.OOM_KILL, backoff_s=30.0)))
    kernel.step(ended(cause=Cause.OOM_KILL, at_s=10.0))
    assert kernel.why() == Reason(
        code=HoldCode.BACKING_OFF,
        text="attempt 1 ended with oom_kill; the next one may start in 30.0 s",
        unblock="the delay is over",
    )
    kernel.step(ticked(20.0))
    assert kernel.why().text == "attempt 1 ended with oom_kill; the next one may start in 20.0 s"
    kernel.step(ticked(40.0))
    assert kernel.scheduler.why("j1") is None


def test_asking_why_changes_nothing() -> None:
    kernel = Kernel(*nodes(2, devices=4))
    kernel.submit(*(a_job(f"j{n}", devices=f"cpu:{1 + n % 9}", cpus_per_device=1.0) for n in range(12)))
    before = free_of(kernel.state.capacity)
    for job_id in kernel.state.jobs:
        kernel.scheduler.why(job_id)
    assert free_of(kernel.state.capacity) == before
    assert kernel.step(ticked(1.0)).is_empty


def test_a_job_that_starts_has_no_reason_to_wait_any_more() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.submit(a_job("a"), a_job("b"))
    kernel.step(ended("a"))
    assert (kernel.is_in("b"), kernel.job("b").hold) == (JobState.STARTING, None)


def test_outstanding_commands_are_those_decided_and_not_ended_with_a_start_before_its_stop() -> None:
    kernel = Kernel(a_node(devices=3))
    kernel.run(a_job("a"), a_job("b"), a_job("c"), a_job("waits"))
    kernel.step(cancelled("b"))
    kernel.step(ended("c"), cancelled("waits"))
    again = Scheduler(kernel.scheduler.policy, replay(kernel.journal))
    assert [command.id for command in again.outstanding()] == ["start/a/1", "start/b/1", "stop/b/1"]
    assert again.outstanding() == kernel.scheduler.outstanding()
    decided = [
        command for record in kernel.journal if isinstance(record, Plan) for command in record.commands
    ]
    assert all(command in decided for command in again.outstanding())


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ([a_start("ghost", a_placement(("n1", [0])))], "start/ghost/1: the job does not wait"),
        ([a_start("j1", a_placement(("n1", [0, 1])), epoch=2)], "start/j1/2: the job does not wait"),
        ([a_start("j1", a_placement(("n1", [0, 1])))] * 2, "start/j1/1: the job does not wait"),
        ([a_start("j1", a_placement(("n1", [0])))], "n1\\[0\\] is no gang"),
        ([a_start("j1", a_placement(("n1", [0, 1, 2])))], "is no gang"),
        ([a_start("j1", a_placement(("n1", [0, 1]), milli=500))], "is no gang"),
        ([a_start("j1", a_placement(("h", [0, 1])))], "is no gang"),
        ([a_start("either", a_placement(("n1", [0])))], "is no gang"),
        ([a_start("share", a_placement(("n1", [0])))], "is no gang"),
        ([a_start("share", a_placement(("n1", [0]), milli=501))], "is no gang"),
        ([a_start("j1", a_placement(("nowhere", [0, 1])))], "node nowhere is not there"),
        ([a_start("j1", a_placement(("down", [0, 1])))], "node down is not there, or takes no"),
        ([a_start("j1", a_placement(("n1", [3, 4])))], "node n1 has no device 4"),
        ([a_start("j1", a_placement(("n1", [2, 3])))], "a device of n1\\[2,3\\] is taken"),
        (
            [a_start("j1", a_placement(("n1", [0, 1]))), a_start("j2", a_placement(("n1", [1, 2])))],
            "start/j2/1: a device of n1\\[1,2\\] is taken",
        ),
        ([a_start("hungry", a_placement(("n1", [0])))], "has not the CPUs and the memory for 1"),
    ],
)
def test_a_start_that_cannot_be_is_rejected_before_anything_is_done(starts: list[Start], said: str) -> None:
    kernel = Kernel(
        a_node("n1", devices=4, cpus=4),
        a_node("h", accelerator=H100, devices=2),
        a_node("down", devices=2),
    )
    kernel.step(lost("down"))
    kernel.scheduler.policy = Says(starts=(a_start("holder", a_placement(("n1", [3]))),))
    kernel.submit(a_job("holder"))
    kernel.scheduler.policy = Says(starts=tuple(starts))
    jobs = [
        a_job("j1", devices="cpu:2"),
        a_job("j2", devices="cpu:2"),
        a_job("either", devices="H100:1 | cpu:2"),
        a_job("share", devices="cpu:0.5"),
        a_job("hungry", cpus_per_device=5.0),
    ]
    with pytest.raises(PlanRejected, match=said):
        kernel.submit(*jobs)
    kernel.state.validate()
    assert list(kernel.state.running) == ["holder"]
    assert free_of(kernel.state.capacity) == free_of(State.from_image(kernel.state.image()).capacity)


def test_a_policy_that_breaks_in_the_middle_leaves_what_is_free_as_it_was() -> None:
    class Breaks(Says):
        def plan(self, snapshot: Snapshot) -> Plan:
            """Take what is free, and what is not."""
            job = snapshot.waiting["waits"].job
            with snapshot.capacity.trial() as trial:
                trial.take(job, a_placement(("n2", [0])))
                trial.take(job, a_placement(("n2", [1]), ("n1", [1, 0])))
            raise AssertionError("n1[0] was taken twice")

    kernel = Kernel(*nodes(2, devices=2))
    kernel.run(a_job("runs"))
    before = free_of(kernel.state.capacity)
    good, kernel.scheduler.policy = kernel.scheduler.policy, Breaks()
    with pytest.raises(AssertionError, match=r"n1\[1,0\] is oversubscribed"):
        kernel.submit(a_job("waits", devices="cpu:3", cpus_per_device=1.0))
    assert free_of(kernel.state.capacity) == before
    kernel.scheduler.policy = good
    assert ids(kernel.step(ticked())) == ["start/waits/1"]


@pytest.mark.parametrize(
    ("stops", "said"),
    [
        ([a_stop("ghost")], "stop/ghost/1: no such attempt"),
        ([a_stop("waits")], "stop/waits/1: no such attempt"),
        ([a_stop("runs", epoch=2)], "stop/runs/2: no such attempt"),
        ([a_stop("runs")] * 2, "stop/runs/1: no such attempt"),
        ([a_stop("stopping")], "stop/stopping/1: no such attempt"),
        ([a_stop("runs", cause=Cause.CANCELLED)], "a policy can only preempt, not stop as cancelled"),
        ([a_stop("runs", cause=Cause.COMPLETED)], "a policy can only preempt, not stop as completed"),
    ],
)
def test_a_stop_that_cannot_be_is_rejected(stops: list[Stop], said: str) -> None:
    kernel = Kernel(a_node(devices=2))
    kernel.run(a_job("runs"), a_job("stopping"), a_job("waits"))
    kernel.step(cancelled("stopping"))
    kernel.scheduler.policy = Says(stops=tuple(stops))
    with pytest.raises(PlanRejected, match=said):
        kernel.step(ticked())


@pytest.mark.parametrize("held", [["ghost"], ["runs"], ["waits", "waits"]])
def test_a_reason_is_only_for_a_job_that_waits(held: list[str]) -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.run(a_job("runs"), a_job("waits"))
    kernel.scheduler.policy = Says(holds=tuple(Hold(job_id=id, code=HoldCode.DEVICES_BUSY) for id in held))
    with pytest.raises(PlanRejected, match="does not wait, or is held twice"):
        kernel.step(ticked())


def test_a_preempted_job_waits_again_when_its_attempt_has_ended() -> None:
    kernel = Kernel(a_node(devices=1), policy=Says(stops=()))
    kernel.scheduler.policy = Says(starts=(a_start("a", a_placement(("n1", [0]))),))
    kernel.submit(a_job("a"))
    kernel.scheduler.policy = Says(stops=(a_stop("a"),))
    assert ids(kernel.step(started("a"))) == ["stop/a/1"]
    kernel.scheduler.policy = Says()
    kernel.step(ended("a"))
    assert (kernel.is_in("a"), kernel.job("a").counted_retries) == (JobState.QUEUED, 0)


def test_a_share_of_a_device_leaves_the_rest_of_it_to_others() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.submit(a_job("a", devices=0.5), a_job("b", devices=0.5), a_job("c", devices=0.001))
    assert [kernel.is_in(id) for id in "abc"] == [JobState.STARTING, JobState.STARTING, JobState.QUEUED]
    kernel.step(ended("a"))
    assert kernel.is_in("c") is JobState.STARTING


def test_the_state_to_go_on_from_decides_as_if_it_had_never_stopped() -> None:
    kernel = Kernel(*nodes(2, devices=2))
    kernel.submit(*(a_job(f"j{n}", devices="cpu:2") for n in range(4)))
    restored = Kernel(state=replay(kernel.journal))
    event = ended("j0", at_s=5.0)
    assert restored.step(event) == kernel.step(event)


def test_a_plan_is_as_late_as_the_latest_event() -> None:
    kernel = Kernel(a_node())
    kernel.step(ticked(9.0))
    assert kernel.step(ticked(3.0)).at_s == 9.0
    assert replace(joined(), at_s=1.0).at_s == 1.0


class Counted:
    """The default policy, with a count of its cycles; ``is_steady`` as it says itself, or as if it could not tell."""

    def __init__(self) -> None:
        self.inner = EasyBackfill(order=ShortestAged(), place=Pack())
        self.cycles = 0

    def plan(self, snapshot: Snapshot) -> Plan:
        self.cycles += 1
        return self.inner.plan(snapshot)

    def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
        return self.inner.explain(snapshot, job_id)


class CountedSteady(Counted):
    def is_unmoved(self, snapshot: Snapshot, came: Sequence[Job]) -> bool:
        return self.inner.is_unmoved(snapshot, came)


@pytest.mark.parametrize("seed", range(4))
def test_a_cycle_that_is_left_out_would_have_decided_nothing(seed: int) -> None:
    always, steady = Counted(), CountedSteady()
    one, other = Scheduler(always), Scheduler(steady)
    draw = random.Random(seed)
    cycles: list[list[Event]] = [[joined(node) for node in nodes(2, devices=4)]]
    for number in range(150):
        at_s = float(number)
        holding = sorted(one.state.running)
        if holding and draw.random() < 0.3:
            event: Event = ended(draw.choice(holding), 1, Cause.COMPLETED, at_s)
        else:
            lasts_s = draw.choice([None, 5.0, 50.0, 500.0])
            devices = f"cpu:{draw.choice([1, 1, 2, 4, 9])}"
            event = submitted(a_job(f"j{number}", devices=devices, estimated_duration_s=lasts_s), at_s)
        cycles.append([event])
        for events in cycles:
            assert one.step(events) == other.step(events)
        cycles.clear()
    assert one.state.image() == other.state.image()
    assert steady.cycles < 0.8 * always.cycles
