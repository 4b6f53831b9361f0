"""The state: changed by records alone, the same after a replay, never contradicting itself."""

import msgspec
import pytest
from msgspec.structs import replace

from artesian.kernel.lifecycle import JobState
from artesian.kernel.replay import replay
from artesian.kernel.state import State, StateImage
from artesian.model.events import Event
from artesian.model.fleet import Node
from artesian.model.job import Cause
from artesian.model.plan import Plan
from builders import (
    Kernel,
    a_job,
    a_node,
    a_placement,
    cancelled,
    ended,
    joined,
    lost,
    nodes,
    retry,
    started,
    submitted,
    ticked,
)


def frozen(state: State) -> StateImage:
    """An image that later records cannot change."""
    return msgspec.json.decode(msgspec.json.encode(state.image()), type=StateImage)


def a_busy_kernel() -> Kernel:
    """Jobs in every state: running, stopping, waiting, backing off, and over."""
    kernel = Kernel(*nodes(2, devices=2))
    kernel.run(
        *(a_job(id, retry=retry(2, Cause.SIGNAL)) for id in ("runs", "stops", "fails", "ends")), at_s=1.0
    )
    kernel.submit(a_job("waits", devices="cpu:3"), at_s=2.0)
    kernel.step(cancelled("stops", 3.0), ended("fails", 1, Cause.SIGNAL, 3.0), ended("ends", 1, at_s=3.0))
    return kernel


STALE: list[Event] = [
    started("ghost"),
    ended("ghost"),
    cancelled("ghost"),
    started("runs", 0),
    started("runs", 2),
    ended("runs", 2),
    ended("ends"),
    started("ends"),
    cancelled("ends"),
    ended("fails"),
    ended("waits"),
    lost("nowhere"),
]


@pytest.mark.parametrize("event", STALE, ids=lambda event: f"{type(event).__name__}")
def test_what_is_said_of_what_is_over_or_unknown_is_counted_and_changes_nothing_else(event: Event) -> None:
    state = a_busy_kernel().state
    before = frozen(state)
    state.apply(event)
    state.validate()
    before.stale_events += 1
    assert frozen(state) == before


def test_a_busy_kernel_has_jobs_in_every_state_that_lasts() -> None:
    kernel = a_busy_kernel()
    assert {record.job.id: record.state.value for record in kernel.state.jobs.values()} == {
        "runs": "running",
        "stops": "stopping",
        "fails": "backing_off",
        "ends": "succeeded",
        "waits": "queued",
    }


def test_replay_gives_the_same_state_from_every_prefix() -> None:
    kernel = a_busy_kernel()
    kernel.step(ticked(4.0))
    kernel.step(lost("n1", 5.0))
    for cut in range(len(kernel.journal) + 1):
        state = State.from_image(frozen(replay(kernel.journal[:cut])))
        replay(kernel.journal[cut:], state).validate()
        assert state.image() == kernel.state.image()
        assert state.next_due_s == kernel.state.next_due_s


def test_a_replay_takes_plans_from_the_journal_and_decides_nothing() -> None:
    kernel = Kernel(a_node())
    kernel.submit(a_job())
    without_plans = [record for record in kernel.journal if not isinstance(record, Plan)]
    assert replay(without_plans).jobs["j1"].state is JobState.QUEUED


def test_time_never_runs_back() -> None:
    kernel = Kernel(a_node())
    kernel.submit(a_job(), at_s=10.0)
    kernel.step(started(at_s=4.0))
    assert kernel.state.at_s == 10.0
    assert kernel.job().attempt.started_s == 10.0


def test_compute_is_owned_from_the_first_record_on() -> None:
    state = State()
    assert state.first_s is None
    replay([joined(at_s=7.0), ticked(9.0)], state)
    assert state.first_s == 7.0


# -- nodes come and go --------------------------------------------------------------------------------


def test_a_node_that_is_lost_twice_has_one_outage() -> None:
    state = replay([joined(at_s=0.0), lost(at_s=1.0), lost(at_s=2.0), joined(at_s=3.0), joined(at_s=4.0)])
    assert [(outage.start_s, outage.end_s) for outage in state.nodes["n1"].outages] == [(1.0, 3.0)]
    assert state.stale_events == 1


def test_a_node_that_comes_back_before_its_attempt_has_ended_keeps_those_devices_taken() -> None:
    kernel = Kernel(a_node(devices=2))
    kernel.run(a_job("a", devices="cpu:2"))
    kernel.step(lost())
    assert not kernel.step(joined(a_node(devices=2))).starts
    kernel.submit(a_job("b"))
    assert kernel.is_in("b") is JobState.QUEUED
    kernel.step(ended("a"))
    assert (kernel.is_in("a"), kernel.job("a").epoch) == (JobState.STARTING, 2)


def test_a_node_that_says_it_has_more_devices_gets_jobs_on_them_at_once() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.run(a_job("a"), a_job("b"))
    plan = kernel.step(joined(a_node(devices=2)))
    assert [str(start.placement) for start in plan.starts] == ["n1[1]"]


def test_a_node_with_fewer_devices_stops_who_held_the_others_and_shrinks_when_they_have_ended() -> None:
    kernel = Kernel(a_node(devices=4))
    kernel.run(a_job("low"))
    kernel.run(a_job("high", devices="cpu:2"))
    kernel.run(a_job("waits", devices="cpu:2"), at_s=1.0)
    plan = kernel.step(joined(a_node(devices=2)))
    assert [(stop.job_id, stop.cause) for stop in plan.stops] == [("high", Cause.NODE_LOST)]
    assert "came back with fewer devices" in plan.stops[0].reason
    assert kernel.is_in("low") is JobState.RUNNING
    known = kernel.state.nodes["n1"]
    assert (known.node.devices, known.is_up, known.is_open) == (4, True, False)
    kernel.step(ended("low"))
    assert kernel.is_in("waits") is JobState.QUEUED, "nothing starts on a node that is about to shrink"
    kernel.step(ended("high"))
    assert (known.node.devices, known.is_open, known.next_node) == (2, True, None)
    assert list(kernel.state.running) == ["high"]
    assert kernel.state.holding == [kernel.job("high")]
    assert kernel.job("high").attempt.placement == a_placement(("n1", [0, 1]))


def test_a_node_with_fewer_devices_shrinks_at_once_where_nobody_holds_the_others() -> None:
    kernel = Kernel(a_node(devices=4))
    kernel.run(a_job("low"))
    assert not kernel.step(joined(a_node(devices=1))).stops
    assert kernel.state.nodes["n1"].node.devices == 1
    kernel.submit(a_job("next"))
    assert kernel.is_in("next") is JobState.QUEUED


def test_a_node_that_takes_its_shrinking_back_is_open_again() -> None:
    kernel = Kernel(a_node(devices=2))
    kernel.run(a_job("a", devices="cpu:2"))
    kernel.step(joined(a_node(devices=1)))
    kernel.step(joined(a_node(devices=2)))
    assert kernel.state.nodes["n1"].is_open
    assert kernel.is_in("a") is JobState.STOPPING


def test_a_shrinking_node_is_the_same_after_a_replay_from_an_image() -> None:
    kernel = Kernel(a_node(devices=2))
    kernel.run(a_job("a", devices="cpu:2"))
    kernel.step(joined(a_node(devices=1)))
    state = State.from_image(frozen(kernel.state))
    for each in (state, kernel.state):
        each.apply(ended("a"))
        each.validate()
        assert each.nodes["n1"].node.devices == 1
    assert state.image() == kernel.state.image()


def test_a_node_that_comes_back_with_fewer_cpus_than_are_in_use_breaks_no_gang() -> None:
    fleet = [
        a_node("n1", devices=2, cpus=2),
        a_node("n2", devices=2, cpus=2),
        a_node("n3", devices=4, cpus=4),
    ]
    kernel = Kernel(*fleet)
    kernel.run(a_job("holds", devices="cpu:3", cpus_per_device=1.0))
    kernel.step(joined(a_node("n3", devices=4, cpus=1)))
    plan = kernel.submit(a_job("gang", devices="cpu:3..5", cpus_per_device=1.0))
    assert [str(start.placement) for start in plan.starts] == ["n1[0,1] + n2[0,1]"]


def test_a_policy_sees_since_when_a_job_waits_and_what_it_has_had_with_shares_counted_as_what_they_are() -> (
    None
):
    kernel = Kernel(a_node(devices=4))
    kernel.run(a_job("gang", devices="cpu:3"), a_job("share", devices=0.5), at_s=1.0)
    assert (kernel.state.running["gang"].submitted_s, kernel.state.running["gang"].since_s) == (1.0, 1.0)
    assert kernel.state.running["gang"].served_device_s == 0.0, "what runs has not had its devices yet"
    kernel.step(lost(at_s=5.0))
    for job_id in ("gang", "share"):
        kernel.step(ended(job_id, at_s=7.0))
    waiting = kernel.state.waiting
    assert {id: (e.submitted_s, e.waits_since_s, e.next_epoch) for id, e in waiting.items()} == {
        "gang": (1.0, 7.0, 2),
        "share": (1.0, 7.0, 2),
    }
    assert {id: entry.served_device_s for id, entry in waiting.items()} == {"gang": 18.0, "share": 3.0}
    kernel.step(joined(a_node(devices=4), at_s=10.0))
    running = kernel.state.running
    assert {id: entry.served_device_s for id, entry in running.items()} == {"gang": 18.0, "share": 3.0}
    kernel.step(lost(at_s=11.0))
    kernel.step(ended("share", 2, at_s=12.0))
    assert kernel.state.waiting["share"].served_device_s == 4.0
    again = State.from_image(frozen(kernel.state))
    assert again.waiting == kernel.state.waiting
    assert again.running == kernel.state.running


# -- what validate sees -------------------------------------------------------------------------------


def test_a_job_filed_under_the_wrong_state_is_seen() -> None:
    state = a_busy_kernel().state
    state.jobs["waits"].state = JobState.FAILED
    with pytest.raises(AssertionError):
        state.validate()


def test_a_job_that_waits_and_that_no_policy_will_see_is_seen() -> None:
    state = a_busy_kernel().state
    entry = state.waiting["waits"]
    state.waiting.discard("waits")
    with pytest.raises(AssertionError):
        state.validate()
    state.waiting.add(replace(entry, next_epoch=7))
    with pytest.raises(AssertionError):
        state.validate()
    state.waiting.discard("waits")
    state.waiting.add(entry)
    state.validate()


def test_a_device_that_two_attempts_hold_is_seen() -> None:
    kernel = Kernel(a_node(devices=2))
    kernel.run(a_job("a"), a_job("b"))
    twice = a_placement(("n1", [0]))
    kernel.job("b").attempt.placement = twice
    kernel.state.running.put(replace(kernel.state.running["b"], placement=twice))
    with pytest.raises(AssertionError, match="oversubscribed"):
        kernel.state.validate()


def test_a_device_that_its_node_does_not_have_is_seen() -> None:
    kernel = Kernel(a_node(devices=2))
    kernel.run(a_job("a", devices="cpu:2"))
    node: Node = a_node(devices=1)
    kernel.state.nodes["n1"].node = node
    with pytest.raises(AssertionError, match="n1"):
        kernel.state.validate()


def test_a_stop_that_nobody_will_decide_is_seen() -> None:
    kernel = Kernel(a_node())
    kernel.run(a_job())
    kernel.state.apply(cancelled())
    kernel.state.validate()
    kernel.state._to_stop.clear()
    with pytest.raises(AssertionError, match="j1"):
        kernel.state.validate()


def test_a_submit_is_journaled_with_all_that_the_job_is() -> None:
    job = a_job(devices="H100:4..8 | 0.5", env={"A": "1"}, retry=retry(2, Cause.OOM_KILL))
    event = submitted(job)
    assert msgspec.json.decode(msgspec.json.encode(event), type=type(event)) == event


def test_what_others_occupy_is_not_started_on_and_takes_nothing_from_ours() -> None:
    kernel = Kernel(a_node("n1", devices=2))
    kernel.run(a_job("ours", devices="cpu:1"), at_s=1.0)
    held = kernel.state.running["ours"].placement.shares[0].devices
    occupied = replace(kernel.state.nodes["n1"].node, occupied=(0, 1))
    kernel.step(joined(occupied, 2.0))
    assert kernel.state.jobs["ours"].state is JobState.RUNNING
    kernel.submit(a_job("next", devices="cpu:1"), at_s=3.0)
    assert kernel.state.jobs["next"].state is JobState.QUEUED
    kernel.step(ended("ours", at_s=4.0))
    assert kernel.state.jobs["next"].state is JobState.QUEUED, "what was ours is the others' now"
    reason = kernel.scheduler.why("next")
    assert reason is not None
    assert "held by others outside of artesian (2)" in reason.text
    kernel.step(joined(replace(occupied, occupied=held), 5.0))
    (share,) = kernel.state.running["next"].placement.shares
    assert set(share.devices).isdisjoint(held)
