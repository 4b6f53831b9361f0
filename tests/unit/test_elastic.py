"""Elastic gangs: they grow into what is idle where it pays, and give it back before anybody is stopped."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.model.job import Cause
from artesian.model.plan import Plan
from artesian.model.quota import Team, Teams
from artesian.policy.backfill import EasyBackfill
from artesian.policy.order import AgedPriority
from artesian.policy.place import Pack
from artesian.policy.preemptive import Preemptive
from artesian.policy.registry import fair_share
from artesian.policy.room import Limits
from builders import Kernel, a_job, a_node, ended, ticked
from simulations import a_fleet, a_sim_job, job, run

POLICY = Preemptive(
    EasyBackfill(order=AgedPriority(), place=Pack()), Pack(), limits=Limits(min_runtime_s=100.0)
)


def elastic(**more: Any) -> Kernel:
    """Four of eight devices for a gang of 2..8, the others until 50 s for another job."""
    kernel = Kernel(a_node(devices=8), policy=POLICY)
    told = {"estimated_duration_s": 10_000.0, "checkpoint_every_s": 10.0, **more}
    kernel.run(a_job("a", devices="cpu:4"), a_job("e", devices="cpu:2..8", **told))
    kernel.step(ended("a", 1, Cause.COMPLETED, 50.0))
    return kernel


def sizes(plan: Plan) -> dict[str, int]:
    return {start.job_id: start.placement.devices for start in plan.starts}


def test_a_gang_grows_into_what_nobody_wants_once_it_has_run_its_time() -> None:
    kernel = elastic()
    assert kernel.step(ticked(99.0)).stops == ()
    assert kernel.scheduler.next_due_s == 100.0, "time alone will let it"
    plan = kernel.step(ticked(200.0))
    (stop,) = plan.stops
    assert stop.reason.startswith("grows from 4 devices into what nobody wants")
    assert sizes(kernel.step(ended("e", 1, Cause.SIGNAL, 201.0))) == {"e": 8}


def test_what_it_grows_into_is_kept_for_it() -> None:
    kernel = elastic()
    kernel.step(ticked(200.0))
    assert not kernel.submit(a_job("late", devices="cpu:1"), at_s=200.5).starts
    assert sizes(kernel.step(ended("e", 1, Cause.SIGNAL, 201.0))) == {"e": 8}


@pytest.mark.parametrize(
    "told",
    [
        {"estimated_duration_s": 210.0},  # nearly done: a restart costs more than it saves
        {"parallel_share": 0.01},  # more devices make it hardly faster
        {"checkpoint_every_s": None},  # a restart would lose all
    ],
)
def test_it_does_not_grow_where_that_does_not_pay(told: dict[str, Any]) -> None:
    assert elastic(**told).step(ticked(200.0)).stops == ()


@pytest.mark.parametrize(
    ("teams", "most"),
    [
        ((Team(name="vision", guaranteed=(("cpu", 2),), borrow_limit=4),), 6),
        ((Team(name="vision", guaranteed=(("cpu", 2),), borrow_limit=1),), None),  # it has as many already
        ((Team(name="vision"), Team(name="archive", guaranteed=(("cpu", 3),), lends=False)), 5),
        ((Team(name="vision"),), 8),
    ],
)
def test_it_grows_to_what_its_team_may_have(teams: tuple[Team, ...], most: int | None) -> None:
    kernel = Kernel(a_node(devices=8), policy=fair_share(Teams(teams)))
    told = {"estimated_duration_s": 1e5, "checkpoint_every_s": 10.0, "team": "vision"}
    kernel.run(a_job("a", devices="cpu:5", team="archive"))
    kernel.run(a_job("e", devices="cpu:2..8", **told))
    kernel.step(ended("a", 1, Cause.COMPLETED, 50.0))
    plan = kernel.step(ticked(5_000.0))
    assert [stop.job_id for stop in plan.stops] == ([] if most is None else ["e"])
    if most is not None:
        assert sizes(kernel.step(ended("e", 1, Cause.SIGNAL, 5_001.0))) == {"e": most}


def test_it_does_not_grow_where_somebody_waits() -> None:
    kernel = elastic()
    kernel.submit(a_job("big", devices="cpu:8"), at_s=60.0)
    assert all("grows" not in stop.reason for stop in kernel.step(ticked(200.0)).stops)


def test_it_gives_back_what_it_has_beyond_its_least() -> None:
    kernel = Kernel(a_node(devices=8), policy=POLICY)
    kernel.run(a_job("e", devices="cpu:2..8", checkpoint_every_s=10.0))
    plan = kernel.submit(a_job("other", devices="cpu:5"), at_s=200.0)
    assert [stop.job_id for stop in plan.stops] == ["e"]
    assert sizes(kernel.step(ended("e", 1, Cause.SIGNAL, 201.0))) == {"other": 5, "e": 3}


@given(share=st.floats(0, 1), devices=st.integers(1, 1000))
def test_a_speedup_lies_between_none_and_all(share: float, devices: int) -> None:
    told = a_job("x", parallel_share=share)
    assert 1 - 1e-9 <= told.speedup(devices) <= devices * (1 + 1e-9)
    assert told.speedup(devices) <= told.speedup(devices + 1) * (1 + 1e-9)
    assert a_job("x").speedup(devices) == pytest.approx(devices)


def test_a_simulated_gang_is_slower_on_fewer_devices() -> None:
    result = run(a_fleet(4), a_sim_job("e", "cpu:1..8", takes=100.0))
    assert job(result, "e").ended_s == 200.0
    result = run(a_fleet(4), a_sim_job("e", "cpu:1..8", takes=100.0, parallel_share=0.0))
    assert job(result, "e").ended_s == 100.0


def test_a_simulated_gang_ends_earlier_for_growing() -> None:
    jobs = (
        a_sim_job("a", "cpu:4", takes=50.0),
        a_sim_job("e", "cpu:4..8", takes=5000.0, estimated_duration_s=9000.0, checkpoint_every_s=10.0),
    )
    grown = job(run(a_fleet(8), *jobs, policy=POLICY), "e").ended_s
    fixed = job(run(a_fleet(8), *jobs), "e").ended_s
    assert fixed == pytest.approx(10_000.0)
    assert grown is not None
    assert grown < 6000.0
