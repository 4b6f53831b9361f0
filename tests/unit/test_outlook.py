"""What a job that waits can look forward to: its nearest start, and what would let it start now."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.quota import Team, Teams
from artesian.model.snapshot import Snapshot
from artesian.policy.base import Policy
from artesian.policy.foresight import nearest_start_s
from artesian.policy.outlook import outlook
from artesian.policy.registry import BUILT_IN, RANKINGS, policy
from builders import Kernel, a_job, a_node, a_placement, a_snapshot, free_of
from strategies import snapshots

H100 = {"accelerator": "H100-SXM5-80GB"}


def lasting(id: str, devices: str, seconds: float | None, **more: Any) -> Job:
    return a_job(id, devices=devices, estimated_duration_s=seconds, **more)


def running(job: Job, node: str, devices: range) -> tuple[Job, Placement]:
    return (job, a_placement((node, devices)))


def test_the_nearest_start_is_when_those_ahead_have_had_their_turn() -> None:
    snapshot = a_snapshot(
        [a_node(devices=4)],
        running=[running(lasting("runs", "cpu:4", 100), "n1", range(4))],
        waiting=[lasting("first", "cpu:4", 50), lasting("second", "cpu:4", 50)],
    )
    for name in ("fifo", "easy", "conservative"):
        assert nearest_start_s(policy(name), snapshot, "first") == 100
        assert nearest_start_s(policy(name), snapshot, "second") == 150


def test_where_no_estimate_tells_the_nearest_start_is_not_known() -> None:
    snapshot = a_snapshot(
        [a_node(devices=4)],
        running=[running(lasting("runs", "cpu:4", None), "n1", range(4))],
        waiting=[lasting("first", "cpu:4", 50)],
    )
    assert nearest_start_s(policy("easy"), snapshot, "first") is None


def test_a_job_starts_now_with_fewer_devices() -> None:
    snapshot = a_snapshot(
        [a_node(devices=8)],
        running=[running(lasting("runs", "cpu:2", 100), "n1", range(2))],
        waiting=[lasting("big", "cpu:8", 50)],
    )
    assert (
        outlook(policy("fifo"), snapshot, "big").would_start
        == (
            "with 6 instead of 8 devices",
            "with less CPU and memory for each device",
        )[:1]
    )


def test_a_job_starts_now_on_another_model() -> None:
    snapshot = a_snapshot(
        [a_node("h", devices=4, **H100), a_node("a", devices=4, accelerator="A100-SXM4-80GB")],
        running=[running(lasting("runs", "H100:4", 100), "h", range(4))],
        waiting=[lasting("big", "H100:4", 50)],
    )
    assert outlook(policy("easy"), snapshot, "big").would_start == ("with A100-SXM4-80GB:4",)


def test_a_job_starts_now_if_another_team_returned_what_it_borrows() -> None:
    teams = Teams((Team(name="vision", guaranteed=(("H100", 2),)), Team(name="speech")))
    snapshot = a_snapshot(
        [a_node("h", devices=8, **H100)],
        running=[
            running(lasting(f"v{n}", "H100:2", 100, team="vision"), "h", range(2 * n, 2 * n + 2))
            for n in range(4)
        ],
        waiting=[lasting("mine", "H100:4", 50, team="speech")],
    )
    would = outlook(policy("easy"), snapshot, "mine", teams).would_start
    assert would == ("if team vision returned 4 borrowed devices",)
    larger = a_snapshot(
        [a_node("h", devices=8, **H100)],
        running=[running(lasting("v", "H100:2", 100, team="vision"), "h", range(2))],
        waiting=[lasting("mine", "H100:8", 50, team="speech")],
    )
    assert "if team" not in " ".join(outlook(policy("easy"), larger, "mine", teams).would_start)


def test_who_would_have_to_return_more_than_it_borrows_is_not_said_to_borrow_it_all() -> None:
    teams = Teams((Team(name="vision", guaranteed=(("H100", 2),)), Team(name="speech")))
    snapshot = a_snapshot(
        [a_node("h", devices=4, **H100)],
        running=[running(lasting("v", "H100:4", 100, team="vision"), "h", range(4))],
        waiting=[lasting("mine", "H100:2", 50, team="speech")],
    )
    would = outlook(policy("easy"), snapshot, "mine", teams).would_start
    assert would == ("if team vision returned 4 devices, 2 of them borrowed",)


def test_moves_that_make_it_fit_are_not_told_where_others_would_go_before_it() -> None:
    half = {"checkpoint_every_s": 60.0}
    snapshot = a_snapshot(
        [a_node("n1", devices=1), a_node("n2", devices=1)],
        running=[
            (lasting("a", "0.5", 1000, **half), a_placement(("n1", [0]), milli=500)),
            (lasting("b", "0.5", 1000, **half), a_placement(("n2", [0]), milli=500)),
        ],
        waiting=[lasting("first", "cpu:1", 50), lasting("second", "cpu:1", 50)],
        at_s=90.0,
    )
    assert any("moved" in text for text in outlook(policy("fifo"), snapshot, "first").would_start)
    assert not any("moved" in text for text in outlook(policy("fifo"), snapshot, "second").would_start)


def test_the_end_of_a_job_without_a_device_is_foreseen_as_well() -> None:
    host = {"cpus_per_device": 8.0}
    snapshot = a_snapshot(
        [a_node(devices=1, cpus=8)],
        running=[(lasting("runs", "host", 100, **host), a_placement(("n1", [])))],
        waiting=[lasting("next", "host", 50, **host)],
    )
    assert nearest_start_s(policy("easy"), snapshot, "next") == 100


def test_a_job_starts_now_if_it_fits_into_the_gap_before_another() -> None:
    snapshot = a_snapshot(
        [a_node(devices=4)],
        running=[running(lasting("runs", "cpu:2", 1000), "n1", range(2))],
        waiting=[lasting("big", "cpu:4", 50), lasting("long", "cpu:2", 5000)],
    )
    would = outlook(policy("easy"), snapshot, "long").would_start
    assert would == ("with an estimated duration of 15m00s: instead of 1h23m",)


def test_a_job_starts_now_with_less_of_the_host() -> None:
    snapshot = a_snapshot(
        [a_node(devices=4, cpus=8)],
        running=[running(lasting("runs", "cpu:1", 100, cpus_per_device=7.0), "n1", range(1))],
        waiting=[lasting("mine", "cpu:1", 50, cpus_per_device=4.0)],
    )
    assert outlook(policy("fifo"), snapshot, "mine").would_start == (
        "with less CPU and memory for each device",
    )


def test_a_job_starts_now_if_a_share_moved_and_it_is_told_what_that_costs() -> None:
    half = {"checkpoint_every_s": 60.0}
    snapshot = a_snapshot(
        [a_node("n1", devices=1), a_node("n2", devices=1)],
        running=[
            (lasting("a", "0.5", 1000, **half), a_placement(("n1", [0]), milli=500)),
            (lasting("b", "0.5", 1000), a_placement(("n2", [0]), milli=500)),
        ],
        waiting=[lasting("whole", "cpu:1", 50)],
        at_s=90.0,
    )
    would = outlook(policy("easy"), snapshot, "whole").would_start
    assert would[-1] == "if a to n2[0] moved, at a cost of 45.0 s of a device"


def test_a_job_starts_now_if_a_node_that_is_out_of_use_came_back() -> None:
    snapshot = a_snapshot(
        [a_node("n1", devices=2), a_node("n2", devices=2), a_node("n3", devices=2, **H100)],
        waiting=[a_job("large", devices="cpu:4")],
    )
    for node in ("n2", "n3"):
        snapshot.capacity.set_up(node, False)
    assert "if node n2 came back" in outlook(policy("easy"), snapshot, "large").would_start
    assert not snapshot.capacity.is_up[snapshot.capacity.row["n2"]], "and it is as it was"


def test_the_kernel_tells_the_outlook_of_those_who_wait_only() -> None:
    kernel = Kernel(a_node(devices=2))
    kernel.submit(a_job("runs", devices="cpu:2"), a_job("waits"))
    assert kernel.scheduler.outlook("runs") is None
    told = kernel.scheduler.outlook("waits")
    assert told is not None
    assert told.start_s is None


@pytest.fixture(params=sorted(BUILT_IN.keys() - RANKINGS.keys()))
def any_policy(request: pytest.FixtureRequest) -> Policy:
    return BUILT_IN[request.param]()


@settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(snapshot=snapshots(), data=st.data())
def test_asking_changes_nothing_and_who_would_start_now_starts_now(
    any_policy: Policy, snapshot: Snapshot, data: st.DataObject
) -> None:
    if not snapshot.waiting:
        return
    job_id = data.draw(st.sampled_from(sorted(snapshot.waiting)))
    before, jobs = free_of(snapshot.capacity), dict(snapshot.waiting)
    told = outlook(any_policy, snapshot, job_id)
    assert (free_of(snapshot.capacity), dict(snapshot.waiting)) == (before, jobs)
    starts_now = any_policy.explain(snapshot, job_id) is None
    assert (told.start_s == snapshot.at_s) == starts_now or told.start_s is not None
