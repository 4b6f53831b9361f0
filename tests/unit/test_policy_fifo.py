"""FIFO with priorities: whose turn it is, and that nobody passes who wants the same nodes."""

from importlib.metadata import EntryPoint
from typing import Any

import pytest
from hypothesis import given, settings

from artesian.model.job import Job
from artesian.model.plan import Plan
from artesian.model.snapshot import Snapshot
from artesian.policy import registry
from artesian.policy.order import PriorityFifo
from artesian.policy.registry import BrokenPolicy, UnknownPolicy
from builders import a_job, a_node, a_placement, a_snapshot, fifo, nodes
from strategies import snapshots

H100, A100 = "H100-SXM5-80GB", "A100-SXM4-40GB"


def started(plan: Plan) -> list[str]:
    return [start.job_id for start in plan.starts]


def held(plan: Plan) -> dict[str, str]:
    return {hold.job_id: hold.reason.code.value for hold in plan.holds}


def test_higher_priority_goes_first_then_the_earlier_submit_then_the_id() -> None:
    jobs = [a_job("low", priority=-1), a_job("b"), a_job("a"), a_job("high", priority=5)]
    snapshot = a_snapshot(waiting=jobs)
    assert [entry.job.id for entry in PriorityFifo().rank(snapshot)] == ["high", "b", "a", "low"]


def test_a_large_gang_is_not_passed_by_small_jobs_that_would_fit() -> None:
    snapshot = a_snapshot(
        nodes(1, devices=4),
        running=[(a_job("x"), a_placement(("n1", [0])))],
        waiting=[a_job("big", devices="cpu:4"), a_job("small")],
    )
    plan = fifo().plan(snapshot)
    assert started(plan) == []
    assert held(plan) == {"big": "devices_busy", "small": "behind_another"}


def test_one_that_waits_behind_another_keeps_its_other_nodes_from_those_behind_it() -> None:
    fleet = [a_node("h", accelerator=H100, devices=4), a_node("a", accelerator=A100, devices=4)]
    running = [
        (a_job("x", devices="H100:1"), a_placement(("h", [0]))),
        (a_job("y", devices="A100:1"), a_placement(("a", [0]))),
    ]
    waiting = [
        a_job("first", devices="H100:4"),
        a_job("second", devices="H100:4 | A100:4"),
        a_job("third", devices="A100:1"),
    ]
    plan = fifo().plan(a_snapshot(fleet, running=running, waiting=waiting))
    assert started(plan) == []
    assert held(plan) == {"first": "devices_busy", "second": "behind_another", "third": "behind_another"}
    behind = {hold.job_id: hold.reason.text.split()[0] for hold in plan.holds}
    assert (behind["second"], behind["third"]) == ("first", "second")


def test_one_that_waits_for_one_kind_starts_on_its_other_choice() -> None:
    fleet = [a_node("h", accelerator=H100, devices=4), a_node("a", accelerator=A100, devices=4)]
    running = [(a_job("x", devices="H100:1"), a_placement(("h", [0])))]
    waiting = [a_job("first", devices="H100:4"), a_job("second", devices="H100:2 | A100:2")]
    plan = fifo().plan(a_snapshot(fleet, running=running, waiting=waiting))
    assert [(start.job_id, str(start.placement)) for start in plan.starts] == [("second", "a[0,1]")]
    assert plan.starts[0].reason.startswith("no job ahead of it wants these devices")


@settings(deadline=None)
@given(snapshot=snapshots())
def test_nobody_starts_on_a_node_that_one_ahead_of_it_waits_for(snapshot: Snapshot) -> None:
    plan = fifo().plan(snapshot)
    capacity = snapshot.capacity
    starts = {start.job_id: start for start in plan.starts}
    kept: set[str] = set()
    for entry in PriorityFifo().rank(snapshot):
        if (start := starts.get(entry.job.id)) is not None:
            assert not kept & {share.node_id for share in start.placement.shares}
        elif fits_the_empty_fleet(entry.job, snapshot):
            kept |= {
                node.id
                for row, node in enumerate(capacity.nodes)
                if any(bool(capacity.eligible(request)[row]) for request in entry.job.devices)
            }


@settings(deadline=None)
@given(snapshot=snapshots())
def test_who_waits_would_not_have_fitted_when_its_turn_came(snapshot: Snapshot) -> None:
    plan = fifo().plan(snapshot)
    free = snapshot.capacity.copy()
    jobs = {entry.job.id: entry.job for entry in snapshot.waiting}
    for start in plan.starts:
        free.take(jobs[start.job_id], start.placement)
    for hold in plan.holds:
        if hold.reason.code.value == "devices_busy":
            job = jobs[hold.job_id]
            gangs = [request for request in job.devices if not request.is_fraction]
            assert all(int(free.startable(job, request).sum()) < request.min_devices for request in gangs)


def fits_the_empty_fleet(job: Job, snapshot: Snapshot) -> bool:
    return any(
        int(snapshot.capacity.ownable(job, request).sum()) >= request.min_devices for request in job.devices
    )


# -- the registry -------------------------------------------------------------------------------------


def plugins(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    entries = [
        EntryPoint(name=name, value=value, group="artesian.policies") for name, value in values.items()
    ]

    def entry_points(**given: Any) -> list[EntryPoint]:
        assert given == {"group": "artesian.policies"}
        return entries

    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_the_default_policy_is_built_in() -> None:
    assert registry.DEFAULT in registry.BUILT_IN
    assert registry.policy(registry.DEFAULT) == fifo()


def test_an_unknown_policy_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins(monkeypatch, mine="a:b")
    with pytest.raises(UnknownPolicy, match="policy 'fifi' is not known") as caught:
        registry.policy("fifi")
    assert caught.value.hint == "known policies: fifo, mine"


def test_a_plugin_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins(monkeypatch, mine="builders:fifo")
    assert registry.policy("mine") == fifo()


@pytest.mark.parametrize("value", ["no_such_module:policy", "builders:no_such_name", "builders:a_placement"])
def test_a_plugin_that_does_not_load_is_fatal_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    plugins(monkeypatch, mine=value)
    with pytest.raises(BrokenPolicy, match=f"policy 'mine' from {value} does not load: ") as caught:
        registry.policy("mine")
    assert caught.value.__cause__ is not None
    assert caught.value.hint is not None
