"""What every policy promises, whatever it prefers. A policy is done when it passes this file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial

import msgspec
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.kernel.scheduler import Scheduler
from artesian.model.capacity import BoolArray, Capacity
from artesian.model.events import AttemptEnded
from artesian.model.fleet import Node
from artesian.model.job import Cause
from artesian.model.plan import HoldCode, Plan
from artesian.model.queue import WaitingJob, WaitingQueue
from artesian.model.quota import Team, Teams
from artesian.model.resources import MILLI, DeviceRequest
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.policy.base import Policy
from artesian.policy.moves import without_moves
from artesian.policy.registry import BUILT_IN, fair_share, in_rounds
from artesian.policy.registry import policy as registered
from builders import a_job, a_node, a_placement, a_snapshot, ended, free_of, joined, nodes, submitted
from strategies import snapshots

ANY_SNAPSHOT = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


POLICIES: dict[str, Callable[[], Policy]] = {
    **BUILT_IN,
    **{name: partial(registered, name) for name in ("easy+fgd", "fair-share+topology", "priority+best-fit")},
    "fair-share with history": lambda: fair_share(Teams(usage_half_life_s=3600.0)),
    "min-jct with teams": lambda: in_rounds(
        "min-jct",
        teams=Teams((Team(name="default", guaranteed=(("any", 1),)),)),
    ),
    "priority without moves": lambda: without_moves(BUILT_IN["priority"]()),
}


@pytest.fixture(params=sorted(POLICIES))
def policy(request: pytest.FixtureRequest) -> Policy:
    """Each policy of the registry in turn, and some that settings make."""
    return POLICIES[request.param]()


def every_policy() -> Iterator[Policy]:
    """Yield each of them for one snapshot, which takes as long to draw as all of them take to plan."""
    for name, policy in made().items():
        note(f"policy {name}")  # the last one that a failure shows is the one that failed
        yield policy


@cache
def made() -> dict[str, Policy]:
    """Return the policies, each made once: what one remembers of a snapshot must not show in the next plan."""
    return {name: POLICIES[name]() for name in sorted(POLICIES)}


@ANY_SNAPSHOT
@given(snapshot=snapshots())
def test_the_same_snapshot_gives_the_same_plan(snapshot: Snapshot) -> None:
    for policy in every_policy():
        plan = policy.plan(snapshot)
        assert policy.plan(snapshot) == plan
        for job_id in snapshot.waiting:
            assert policy.explain(snapshot, job_id) == policy.explain(snapshot, job_id)
        assert policy.plan(snapshot) == plan, "also after the reasons were asked for"


@ANY_SNAPSHOT
@given(snapshot=snapshots())
def test_a_snapshot_that_went_through_json_gives_the_same_plan(snapshot: Snapshot) -> None:
    other = through_json(snapshot)
    for policy in every_policy():
        assert policy.plan(other) == policy.plan(snapshot)
        for job_id in snapshot.waiting:
            assert policy.explain(other, job_id) == policy.explain(snapshot, job_id)


@ANY_SNAPSHOT
@given(snapshot=snapshots())
def test_planning_leaves_the_snapshot_as_it_was(snapshot: Snapshot) -> None:
    for policy in every_policy():
        with unchanged(snapshot):
            policy.plan(snapshot)
        with unchanged(snapshot):
            for job_id in snapshot.waiting:
                policy.explain(snapshot, job_id)


@ANY_SNAPSHOT
@given(snapshot=snapshots(), lasts=st.integers(0, 30))
def test_a_policy_that_breaks_in_the_middle_leaves_the_snapshot_as_it_was(
    snapshot: Snapshot, lasts: int
) -> None:
    capacity = FailingCapacity(snapshot.capacity.nodes)
    broken = again(snapshot, capacity)
    for policy in every_policy():
        capacity.lasts = lasts
        with unchanged(broken), suppress(OutOfOrder):
            policy.plan(broken)
        for job_id in snapshot.waiting:
            capacity.lasts = lasts
            with unchanged(broken), suppress(OutOfOrder):
                policy.explain(broken, job_id)
        capacity.lasts = None
        assert policy.plan(broken) == policy.plan(snapshot)


@ANY_SNAPSHOT
@given(snapshot=snapshots())
def test_no_device_is_given_twice_and_no_host_promised_more_than_it_has(snapshot: Snapshot) -> None:
    for policy in every_policy():
        free = snapshot.capacity.copy()
        for start in policy.plan(snapshot).starts:
            # asserts that the devices are free
            free.take(snapshot.waiting[start.job_id].job, start.placement)
        assert (free.free_cpu_milli >= 0).all()
        assert (free.free_memory_bytes >= 0).all()


@ANY_SNAPSHOT
@given(snapshot=snapshots())
def test_a_gang_is_whole_on_nodes_that_are_up_and_of_its_kind(snapshot: Snapshot) -> None:
    capacity = snapshot.capacity
    for policy in every_policy():
        for start in policy.plan(snapshot).starts:
            rows = [capacity.row[share.node_id] for share in start.placement.shares]
            assert len(set(capacity.kind[rows].tolist())) == 1, "a gang runs on one model of device"
            millis = {share.milli for share in start.placement.shares}
            assert capacity.is_up[rows].all()
            assert any(
                request.min_devices <= start.placement.devices <= request.max_devices
                and millis == {request.max_milli if request.is_fraction else MILLI}
                and capacity.eligible(request)[rows].all()
                for request in snapshot.waiting[start.job_id].job.devices
            )


@ANY_SNAPSHOT
@given(snapshot=snapshots())
def test_every_waiting_job_starts_once_with_a_reason_or_is_told_why_it_waits(snapshot: Snapshot) -> None:
    for policy in every_policy():
        plan = policy.plan(snapshot)
        assert all(start.reason.strip() for start in plan.starts)
        starts = started_by(plan)
        assert len(starts) == len(plan.starts)
        reasons = {job_id: policy.explain(snapshot, job_id) for job_id in snapshot.waiting}
        assert {job_id for job_id, reason in reasons.items() if reason is None} == starts
        for reason in reasons.values():
            assert reason is None or (reason.text.strip() and reason.unblock.strip())


@ANY_SNAPSHOT
@given(snapshot=snapshots())
def test_who_is_held_waits_and_is_told_in_words_what_the_plan_says_in_short(snapshot: Snapshot) -> None:
    for policy in every_policy():
        plan = policy.plan(snapshot)
        held = [hold.job_id for hold in plan.holds]
        assert len(set(held)) == len(held)
        assert set(held) <= set(snapshot.waiting) - started_by(plan)
        assert held or started_by(plan) == set(snapshot.waiting), "who waits is held, or behind one that is"
        for hold in plan.holds:
            reason = policy.explain(snapshot, hold.job_id)
            assert reason is not None
            assert reason.code is hold.code
            assert (hold.behind is None) == (hold.code is not HoldCode.BEHIND_ANOTHER)
            if hold.behind is not None:
                assert hold.behind in set(snapshot.waiting) - {hold.job_id} - started_by(plan)
                assert f"({hold.behind})" in reason.text


@ANY_SNAPSHOT
@given(snapshot=snapshots())
def test_who_does_not_wait_is_not_known(snapshot: Snapshot) -> None:
    for policy in every_policy():
        for job_id in (*snapshot.running, "ghost"):
            with pytest.raises(KeyError, match=job_id):
                policy.explain(snapshot, job_id)


@ANY_SNAPSHOT
@given(snapshot=snapshots())
def test_every_start_has_the_next_epoch_and_every_stop_preempts_a_running_attempt(snapshot: Snapshot) -> None:
    for policy in every_policy():
        plan = policy.plan(snapshot)
        assert all(start.epoch == snapshot.waiting[start.job_id].next_epoch for start in plan.starts)
        running = {(id, entry.epoch) for id, entry in snapshot.running.items() if not entry.is_stopping}
        stops = [(stop.job_id, stop.epoch) for stop in plan.stops]
        assert len(set(stops)) == len(stops)
        assert set(stops) <= running
        assert all(stop.cause is Cause.PREEMPTED for stop in plan.stops)
        assert plan.at_s == snapshot.at_s


@ANY_SNAPSHOT
@given(snapshot=snapshots())
def test_where_nothing_runs_and_a_job_fits_something_starts(snapshot: Snapshot) -> None:
    if snapshot.running:
        return
    capacity = snapshot.capacity
    fits = any(
        int(capacity.by_kind(capacity.ownable(entry.job, request)).max()) >= max(1, request.min_devices)
        for entry in snapshot.waiting.values()
        for request in entry.job.devices
    )
    for policy in every_policy():
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
    snapshot = a_snapshot([], waiting=[a_job("a")])
    plan = policy.plan(snapshot)
    assert (plan.starts, [hold.job_id for hold in plan.holds]) == ((), ["a"])
    reason = policy.explain(snapshot, "a")
    assert reason is not None
    assert reason.code is HoldCode.NO_SUCH_DEVICES


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


def test_a_gang_that_would_fit_on_two_models_together_waits_for_one(policy: Policy) -> None:
    fleet = [a_node("a", devices=2, accelerator="A100-SXM4-80GB"), a_node("b", devices=2, accelerator="T4")]
    plan = policy.plan(a_snapshot(fleet, waiting=[a_job("big", devices="3"), a_job("small", devices="2")]))
    assert [start.job_id for start in plan.starts] == ["small"]


# -- helpers ------------------------------------------------------------------------------------------


def started_by(plan: Plan) -> set[str]:
    return {start.job_id for start in plan.starts}


def ends_of(plan: Plan) -> list[AttemptEnded]:
    return [ended(start.job_id, start.epoch) for start in plan.starts]


class OutOfOrder(Exception):  # noqa: N818 - reads as what it is
    """The capacity does not answer any more."""


class FailingCapacity(Capacity):
    """Answers ``lasts`` more questions about what is there, and then no more; None: for ever."""

    lasts: int | None = None

    def eligible(self, request: DeviceRequest) -> BoolArray:
        """Return what any Capacity does, or raise OutOfOrder."""
        if self.lasts is not None:
            if self.lasts == 0:
                raise OutOfOrder
            self.lasts -= 1
        return super().eligible(request)


def through_json(snapshot: Snapshot) -> Snapshot:
    """The same view from the texts of its parts."""
    fleet = msgspec.json.decode(msgspec.json.encode(snapshot.capacity.nodes), type=tuple[Node, ...])
    running = msgspec.json.decode(msgspec.json.encode(list(snapshot.running.values())), type=list[RunningJob])
    waiting = msgspec.json.decode(msgspec.json.encode(list(snapshot.waiting.values())), type=list[WaitingJob])
    parts = replace(
        snapshot, waiting=WaitingQueue(waiting), running={entry.job.id: entry for entry in running}
    )
    return again(parts, Capacity(fleet))


def again(snapshot: Snapshot, capacity: Capacity) -> Snapshot:
    """The same view on a new ``capacity``, whose arrays become the same, with its mappings the other way round."""
    for entry in snapshot.running.values():
        capacity.take(entry.job, entry.placement)
        capacity.expect(entry.job, entry.placement, entry.since_s)
    for node, is_up in zip(capacity.nodes, snapshot.capacity.is_up, strict=True):
        capacity.set_up(node.id, bool(is_up))
    return replace(
        snapshot,
        waiting=WaitingQueue(reversed(list(snapshot.waiting.values()))),
        running=dict(reversed(list(snapshot.running.items()))),
        capacity=capacity,
    )


@contextmanager
def unchanged(snapshot: Snapshot) -> Iterator[None]:
    """Check that the block changes nothing in the snapshot."""
    before = free_of(snapshot.capacity)
    jobs = (dict(snapshot.waiting), dict(snapshot.running))
    yield
    assert free_of(snapshot.capacity) == before
    assert (dict(snapshot.waiting), dict(snapshot.running)) == jobs
