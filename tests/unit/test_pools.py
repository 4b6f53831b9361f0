"""A policy for each pool: jobs go where they fit, once, by the rules that hold there."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from artesian.model.errors import ArtesianError
from artesian.model.job import Cause
from artesian.model.plan import HoldCode
from artesian.model.snapshot import Snapshot
from artesian.policy.pools import Pools
from artesian.policy.registry import policy, pooled
from artesian.server.rules import Rules
from artesian.server.settings import Settings
from builders import Kernel, a_job, a_node, ended, free_of, ticked
from strategies import snapshots

FLEET = [a_node("a1", devices=4, pool="a"), a_node("b1", devices=4, pool="b")]


@pytest.mark.parametrize(("by_pool", "node"), [({"b": "easy"}, "b1"), ({"b": "fifo"}, "a1")])
def test_each_pool_goes_by_its_own_policy(by_pool: dict[str, str], node: str) -> None:
    """Behind a gang that waits in both, only the pool with backfill lets a short job start."""
    other = "easy" if by_pool == {"b": "fifo"} else "fifo"
    kernel = Kernel(*FLEET, policy=pooled(other, by_pool))
    kernel.run(*(a_job(f"r{n}", devices="cpu:3", estimated_duration_s=100.0) for n in range(2)))
    plan = kernel.submit(a_job("big", devices="cpu:4"), a_job("short", estimated_duration_s=9.0), at_s=1.0)
    assert [(start.job_id, start.placement.shares[0].node_id) for start in plan.starts] == [("short", node)]


def test_who_finds_no_place_in_one_pool_is_asked_about_in_the_next() -> None:
    kernel = Kernel(*FLEET, policy=pooled("fifo", {"a": "fifo"}))
    plan = kernel.submit(*(a_job(f"j{n}", devices="cpu:4") for n in range(3)))
    assert {start.placement.shares[0].node_id for start in plan.starts} == {"a1", "b1"}
    assert [hold.job_id for hold in plan.holds] == ["j2"]


def test_a_gang_stays_within_one_pool() -> None:
    kernel = Kernel(*FLEET, policy=pooled("fifo", {"a": "fifo"}))
    plan = kernel.submit(a_job("wide", devices="cpu:8"))
    assert [hold.code for hold in plan.holds] == [HoldCode.LARGER_THAN_FLEET]


def test_room_is_made_in_the_pool_whose_policy_does_so() -> None:
    kernel = Kernel(*FLEET, policy=pooled("fifo", {"b": "priority"}))
    kernel.run(*(a_job(f"low{n}", devices="cpu:4") for n in range(2)))
    kernel.submit(a_job("high", devices="cpu:4", priority=10), at_s=10.0)
    plan = kernel.step(ticked(600.0))
    (stop,) = plan.stops
    assert kernel.job(stop.job_id).attempt.placement.shares[0].node_id == "b1"
    started = kernel.step(ended(stop.job_id, 1, Cause.SIGNAL, 601.0)).starts
    assert [start.job_id for start in started] == ["high"]


MIXED: dict[str, Callable[[], Pools]] = {
    "fifo and easy": lambda: Pools({"default": policy("easy")}, policy("fifo")),
    "fair and packing": lambda: Pools(
        {"p": policy("fair-share"), "q": policy("packing")}, policy("least-waste")
    ),
}


@pytest.mark.parametrize("made", MIXED.values(), ids=MIXED)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(snapshot=snapshots())
def test_pools_keep_what_every_policy_promises(made: Callable[[], Pools], snapshot: Snapshot) -> None:
    both = made()
    before = free_of(snapshot.capacity)
    plan = both.plan(snapshot)
    assert both.plan(snapshot) == plan
    assert free_of(snapshot.capacity) == before
    free = snapshot.capacity.copy()
    for start in plan.starts:
        free.take(snapshot.waiting[start.job_id].job, start.placement)
    starts = {start.job_id for start in plan.starts}
    assert len(starts) == len(plan.starts)
    holds = {hold.job_id: hold for hold in plan.holds}
    for job_id in snapshot.waiting:
        reason = both.explain(snapshot, job_id)
        assert (reason is None) == (job_id in starts)
        if job_id in holds and reason is not None:
            assert holds[job_id].code is reason.code
    assert not starts & holds.keys()


def test_pools_are_tables_in_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "artesian.toml"
    path.write_text('policy = "easy"\n[pools.batch]\npolicy = "conservative"\n')
    assert Settings.load(path).rules.pools == {"batch": "conservative"}


def test_a_pool_is_in_the_center_that_its_table_names_and_keeps_the_policy_of_all(tmp_path: Path) -> None:
    path = tmp_path / "artesian.toml"
    path.write_text('[pools.batch]\npolicy = "easy"\ncenter = "north"\n[pools.serve]\ncenter = "south 2"\n')
    rules = Settings.load(path).rules
    assert rules.pools == {"batch": "easy"}
    assert rules.centers == {"batch": "north", "serve": "south 2"}
    assert Rules.decode(rules.encode()) == rules


@pytest.mark.parametrize(
    "text",
    [
        "pools = 3",
        "[pools]\na = 3",
        "[pools.a]",
        "[pools.a]\npolicy = 3",
        '[pools.a]\npolcy = "easy"',
        '[pools.a]\npolicy = "no-such"',
        "[pools.a]\ncenter = 3",
        '[pools.a]\ncenter = ""',
        '[pools.a]\ncenter = " north"',
        '[pools.a]\ncenter = "no\\nrth"',
        '[pools.a]\ncenter = "north"\nprice = 3',
    ],
)
def test_a_wrong_pool_is_refused_by_the_name_of_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "artesian.toml"
    path.write_text(text)
    with pytest.raises(ArtesianError, match=str(path)):
        Settings.load(path)
