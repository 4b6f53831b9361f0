"""What every policy promises, whatever it prefers. A policy is done when it passes this file."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from artesian.kernel.scheduler import Scheduler
from artesian.model.capacity import Capacity
from artesian.model.events import AttemptEnded
from artesian.model.fleet import Node
from artesian.model.job import Cause
from artesian.model.plan import Plan
from artesian.model.resources import MILLI
from artesian.model.snapshot import RunningJob, Snapshot, WaitingJob
from artesian.policy.base import Policy
from artesian.policy.registry import BUILT_IN
from builders import a_job, a_node, a_placement, a_snapshot, ended, joined, nodes, submitted
from strategies import snapshots

ANY_POLICY = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(params=sorted(BUILT_IN))
def policy(request: pytest.FixtureRequest) -> Policy:
    """Each policy of the registry in turn."""
    return BUILT_IN[request.param]()


@ANY_POLICY
@given(snapshot=snapshots())
def test_the_same_snapshot_gives_the_same_plan(policy: Policy, snapshot: Snapshot) -> None:
    assert policy.plan(snapshot) == policy.plan(snapshot)


@ANY_POLICY
@given(snapshot=snapshots())
def test_a_snapshot_that_went_through_json_gives_the_same_plan(policy: Policy, snapshot: Snapshot) -> None:
    assert policy.plan(through_json(snapshot)) == policy.plan(snapshot)


@ANY_POLICY
@given(snapshot=snapshots())
def test_planning_leaves_the_snapshot_as_it_was(policy: Policy, snapshot: Snapshot) -> None:
    with unchanged(snapshot):
        policy.plan(snapshot)


@ANY_POLICY
@given(snapshot=snapshots())
def test_no_device_is_given_twice_and_no_host_promised_more_than_it_has(
    policy: Policy, snapshot: Snapshot
) -> None:
    jobs = {entry.job.id: entry.job for entry in snapshot.waiting}
    free = snapshot.capacity.copy()
    for start in policy.plan(snapshot).starts:
        free.take(jobs[start.job_id], start.placement)  # asserts that the devices are free
    assert (free.free_cpu_milli >= 0).all()
    assert (free.free_memory_bytes >= 0).all()


@ANY_POLICY
@given(snapshot=snapshots())
def test_a_gang_is_whole_on_nodes_that_are_up_and_of_its_kind(policy: Policy, snapshot: Snapshot) -> None:
    jobs = {entry.job.id: entry.job for entry in snapshot.waiting}
    capacity = snapshot.capacity
    for start in policy.plan(snapshot).starts:
        rows = [capacity.row[share.node_id] for share in start.placement.shares]
        assert len(set(capacity.kind[rows].tolist())) == 1, "a gang runs on one model of device"
        millis = {share.milli for share in start.placement.shares}
        assert capacity.is_up[rows].all()
        assert any(
            request.min_devices <= start.placement.devices <= request.max_devices
            and millis == {request.max_milli if request.is_fraction else MILLI}
            and capacity.eligible(request)[rows].all()
            for request in jobs[start.job_id].devices
        )


@ANY_POLICY
@given(snapshot=snapshots())
def test_every_waiting_job_starts_once_or_is_held_once_with_a_reason(
    policy: Policy, snapshot: Snapshot
) -> None:
    plan = policy.plan(snapshot)
    named = [start.job_id for start in plan.starts] + [hold.job_id for hold in plan.holds]
    assert sorted(named) == sorted(entry.job.id for entry in snapshot.waiting)
    assert all(start.reason.strip() for start in plan.starts)
    assert all(hold.reason.text.strip() and hold.reason.unblock.strip() for hold in plan.holds)


@ANY_POLICY
@given(snapshot=snapshots())
def test_every_start_has_the_next_epoch_and_every_stop_preempts_a_running_attempt(
    policy: Policy, snapshot: Snapshot
) -> None:
    plan = policy.plan(snapshot)
    epochs = {entry.job.id: entry.next_epoch for entry in snapshot.waiting}
    assert all(start.epoch == epochs[start.job_id] for start in plan.starts)
    running = {(entry.job.id, entry.epoch) for entry in snapshot.running if not entry.is_stopping}
    stops = [(stop.job_id, stop.epoch) for stop in plan.stops]
    assert len(set(stops)) == len(stops)
    assert set(stops) <= running
    assert all(stop.cause is Cause.PREEMPTED for stop in plan.stops)
    assert plan.at_s == snapshot.at_s


@ANY_POLICY
@given(snapshot=snapshots())
def test_where_nothing_runs_and_a_job_fits_something_starts(policy: Policy, snapshot: Snapshot) -> None:
    if snapshot.running:
        return
    fits = any(
        (request.min_devices <= int(snapshot.capacity.ownable(entry.job, request).sum()))
        for entry in snapshot.waiting
        for request in entry.job.devices
    )
    assert bool(policy.plan(snapshot).starts) == fits


def test_a_job_that_no_fleet_could_hold_stops_nobody_else(policy: Policy) -> None:
    snapshot = a_snapshot(nodes(2, devices=4), waiting=[a_job("huge", devices="cpu:9"), a_job("small")])
    assert started_by(policy.plan(snapshot)) == {"small"}


def test_a_queue_for_one_kind_of_device_does_not_hold_up_another(policy: Policy) -> None:
    fleet = [a_node("h", accelerator="H100-SXM5-80GB", devices=2), a_node("c", devices=2)]
    holder = a_job("holder", devices="H100:2")
    snapshot = a_snapshot(
        fleet,
        running=[(holder, a_placement(("h", [0, 1])))],
        waiting=[a_job("h1", devices="H100:2"), a_job("c1", devices="cpu:2")],
    )
    assert started_by(policy.plan(snapshot)) == {"c1"}


def test_two_shares_of_a_device_run_side_by_side(policy: Policy) -> None:
    snapshot = a_snapshot([a_node(devices=1)], waiting=[a_job(name, devices=0.5) for name in ("a", "b", "c")])
    assert len(policy.plan(snapshot).starts) == 2


def test_an_empty_fleet_and_an_empty_queue_give_empty_plans(policy: Policy) -> None:
    assert policy.plan(a_snapshot([], waiting=[])).is_empty
    plan = policy.plan(a_snapshot([], waiting=[a_job("a")]))
    assert (plan.starts, [hold.job_id for hold in plan.holds]) == ((), ["a"])


def test_the_kernel_accepts_its_plans_until_everybody_had_a_turn(policy: Policy) -> None:
    scheduler = Scheduler(policy)
    fleet = [joined(node) for node in nodes(2, devices=4)]
    jobs = [a_job(f"j{n}", devices=f"cpu:{1 + n % 8}", cpus_per_device=1.0) for n in range(20)]
    plan = scheduler.step([*fleet, *(submitted(job) for job in jobs)])
    had_a_turn: set[str] = set()
    while plan.starts:
        had_a_turn |= started_by(plan)
        plan = scheduler.step(ends_of(plan))
        scheduler.state.validate()
    assert had_a_turn == {job.id for job in jobs}


# -- helpers ------------------------------------------------------------------------------------------


def started_by(plan: Plan) -> set[str]:
    return {start.job_id for start in plan.starts}


def ends_of(plan: Plan) -> list[AttemptEnded]:
    return [ended(start.job_id, start.epoch) for start in plan.starts]


def through_json(snapshot: Snapshot) -> Snapshot:
    """The same view from the texts of its parts; the arrays are made anew."""
    fleet = msgspec.json.decode(msgspec.json.encode(snapshot.capacity.nodes), type=tuple[Node, ...])
    running = msgspec.json.decode(msgspec.json.encode(snapshot.running), type=list[RunningJob])
    waiting = msgspec.json.decode(msgspec.json.encode(snapshot.waiting), type=list[WaitingJob])
    capacity = Capacity(fleet)
    for entry in running:
        capacity.take(entry.job, entry.placement)
    capacity.is_up[:] = snapshot.capacity.is_up
    return Snapshot(at_s=snapshot.at_s, waiting=waiting, running=running, capacity=capacity)


@contextmanager
def unchanged(snapshot: Snapshot) -> Iterator[None]:
    """Check that the block changes nothing in the snapshot."""
    before = snapshot.capacity.copy()
    lists = (list(snapshot.waiting), list(snapshot.running))
    yield
    after = snapshot.capacity
    for name in ("free_milli", "free_whole", "free_cpu_milli", "free_memory_bytes", "is_up", "devices"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name), err_msg=name)
    assert (list(snapshot.waiting), list(snapshot.running)) == lists


def test_a_gang_that_would_fit_on_two_models_together_waits_for_one(policy: Policy) -> None:
    fleet = [a_node("a", devices=2, accelerator="A100-SXM4-80GB"), a_node("b", devices=2, accelerator="T4")]
    plan = policy.plan(a_snapshot(fleet, waiting=[a_job("big", devices="3"), a_job("small", devices="2")]))
    assert [start.job_id for start in plan.starts] == ["small"]
