"""Teams: whose turn it is, what a team may hold, and that the books add up."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.model.capacity import Capacity
from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.plan import HoldCode, Plan
from artesian.model.quota import QuotaError, Team, Teams
from artesian.model.resources import MILLI
from artesian.model.snapshot import Snapshot
from artesian.policy.accounts import Accounts
from artesian.policy.fairshare import FairShare
from artesian.policy.pipeline import InOrder
from artesian.policy.place import Pack
from artesian.policy.registry import fair_share
from builders import GIB, a_job, a_node, a_placement, a_snapshot
from strategies import snapshots

H100 = {"accelerator": "H100-SXM5-80GB"}


def jobs(team: str, count: int, devices: str = "H100:1", **more: Any) -> list[Job]:
    return [a_job(f"{team}-{number:02}", devices=devices, team=team, **more) for number in range(count)]


def started(plan: Plan) -> Counter[str]:
    return Counter(start.job_id.rpartition("-")[0] for start in plan.starts)


def plan_of(teams: Teams, fleet: list[Node], *waiting: Job) -> Plan:
    return fair_share(teams).plan(a_snapshot(fleet, waiting=waiting))


# -- shares -------------------------------------------------------------------------------------------


def test_teams_share_by_weight_whatever_order_their_jobs_came_in() -> None:
    teams = Teams((Team(name="a", weight=3.0), Team(name="b")))
    plan = plan_of(teams, [a_node(devices=8, **H100)], *jobs("b", 8), *jobs("a", 8))
    assert started(plan) == {"a": 6, "b": 2}


def test_what_a_team_does_not_use_others_get() -> None:
    teams = Teams((Team(name="a", weight=3.0), Team(name="b")))
    plan = plan_of(teams, [a_node(devices=8, **H100)], *jobs("a", 1), *jobs("b", 8))
    assert started(plan) == {"a": 1, "b": 7}


def test_children_share_what_their_parent_has() -> None:
    teams = Teams(
        (Team(name="lab"), Team(name="x", parent="lab"), Team(name="y", parent="lab"), Team(name="z"))
    )
    plan = plan_of(teams, [a_node(devices=8, **H100)], *jobs("x", 8), *jobs("y", 8), *jobs("z", 8))
    assert started(plan) == {"x": 2, "y": 2, "z": 4}


def test_dominant_shares_are_equal_in_the_example_of_the_paper() -> None:
    """9 CPUs and 18 GB; A's jobs take 1 CPU and 4 GB, B's 3 CPUs and 1 GB: three of A and two of B."""
    fleet = [a_node(devices=0, cpus=9, memory_bytes=18 * GIB)]
    a = jobs("a", 9, "host", cpus_per_device=1.0, memory_bytes_per_device=4 * GIB)
    b = jobs("b", 9, "host", cpus_per_device=3.0, memory_bytes_per_device=GIB)
    policy = InOrder(order=FairShare(), place=Pack())
    assert started(policy.plan(a_snapshot(fleet, waiting=[*a, *b]))) == {"a": 3, "b": 2}


@settings(deadline=None, max_examples=60)
@given(demands=st.lists(st.integers(0, 20), min_size=1, max_size=5), devices=st.integers(1, 16))
def test_every_team_gets_what_an_equal_part_of_the_fleet_would_give_it(
    demands: list[int], devices: int
) -> None:
    """Sharing incentive, and no device idle that somebody wants."""
    waiting = [job for number, demand in enumerate(demands) for job in jobs(f"t{number}", demand)]
    got = started(plan_of(Teams(), [a_node(devices=devices, **H100)], *waiting))
    for number, demand in enumerate(demands):
        assert got[f"t{number}"] >= min(demand, devices // len(demands))
    assert sum(got.values()) == min(devices, sum(demands))


# -- quotas -------------------------------------------------------------------------------------------


def test_within_its_guarantee_a_team_goes_before_one_that_has_less() -> None:
    teams = Teams((Team(name="a", guaranteed=(("H100", 4),)), Team(name="b")))
    fleet = [a_node(devices=4, **H100)]
    assert started(plan_of(teams, fleet, *jobs("b", 4), *jobs("a", 4))) == {"a": 4}


def test_a_team_at_its_limit_to_borrow_waits_and_keeps_nothing_from_others() -> None:
    teams = Teams((Team(name="a", guaranteed=(("H100", 2),), borrow_limit=1), Team(name="b")))
    snapshot = a_snapshot([a_node(devices=8, **H100)], waiting=[*jobs("a", 6), *jobs("b", 1)])
    plan = fair_share(teams).plan(snapshot)
    assert started(plan) == {"a": 3, "b": 1}
    assert [hold.code for hold in plan.holds] == [HoldCode.OVER_QUOTA]
    reason = fair_share(teams).explain(snapshot, "a-05")
    assert reason is not None
    assert (
        reason.text
        == "team a may not have as many devices now: it holds 1 beyond its guarantee, of at most 1"
    )


def test_an_elastic_gang_gets_no_more_than_its_team_may_have() -> None:
    teams = Teams((Team(name="a", guaranteed=(("H100", 3),), borrow_limit=0),))
    plan = plan_of(teams, [a_node(devices=8, **H100)], *jobs("a", 1, "H100:2..8"))
    assert [start.placement.devices for start in plan.starts] == [3]


def test_a_team_that_does_not_lend_finds_its_devices_free() -> None:
    teams = Teams((Team(name="a", guaranteed=(("H100", 6),), lends=False), Team(name="b")))
    fleet = [a_node(devices=8, **H100)]
    assert started(plan_of(teams, fleet, *jobs("b", 8))) == {"b": 2}
    assert started(plan_of(teams, fleet, *jobs("b", 8), *jobs("a", 8))) == {"a": 6, "b": 2}


def test_a_parents_limit_binds_its_children_together() -> None:
    teams = Teams(
        (Team(name="lab", borrow_limit=3), Team(name="x", parent="lab"), Team(name="y", parent="lab"))
    )
    plan = plan_of(teams, [a_node(devices=8, **H100)], *jobs("x", 8), *jobs("y", 8))
    assert sum(started(plan).values()) == 3


def test_a_guarantee_of_one_model_is_none_of_another() -> None:
    teams = Teams((Team(name="a", guaranteed=(("H100", 4),), borrow_limit=0),))
    fleet = [a_node("h", devices=4, **H100), a_node("t", devices=4, accelerator="T4")]
    assert started(plan_of(teams, fleet, *jobs("a", 4, "T4:1"))) == {}
    assert started(plan_of(teams, fleet, *jobs("a", 4, "T4:1 | H100:1"))) == {"a": 4}


@settings(deadline=None, max_examples=60)
@given(
    guaranteed=st.lists(st.integers(0, 6), min_size=2, max_size=4),
    limits=st.lists(st.none() | st.integers(0, 4), min_size=4, max_size=4),
    gangs=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=20),
)
def test_no_team_ever_holds_more_than_its_guarantee_and_what_it_may_borrow(
    guaranteed: list[int], limits: list[int | None], gangs: list[tuple[int, int]]
) -> None:
    teams = Teams(
        tuple(
            Team(name=f"t{n}", guaranteed=(("H100", count),), borrow_limit=limits[n])
            for n, count in enumerate(guaranteed)
        )
    )
    waiting = [
        a_job(f"j{number:02}", devices=f"H100:{size}", team=f"t{team}")
        for number, (team, size) in enumerate(gangs)
    ]
    snapshot = a_snapshot([a_node(f"n{n}", devices=4, **H100) for n in range(3)], waiting=waiting)
    held: Counter[str] = Counter()
    for start in fair_share(teams).plan(snapshot).starts:
        held[snapshot.waiting[start.job_id].job.team] += start.placement.devices
    for team in teams.teams:
        if team.borrow_limit is not None:
            assert held[team.name] <= dict(team.guaranteed)["H100"] + team.borrow_limit


# -- books --------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(snapshot=snapshots())
def test_what_is_used_is_what_runs(snapshot: Snapshot) -> None:
    capacity = snapshot.capacity
    milli = sum(sum(used[: capacity.kinds]) for used in capacity.used.values())
    assert milli == round(MILLI * sum(e.placement.whole_devices for e in snapshot.running.values()))
    for entry in snapshot.running.values():
        capacity.give(entry.job, entry.placement)
    assert capacity.used == {}


def test_a_parent_holds_what_its_children_hold_together() -> None:
    teams = Teams((Team(name="lab"), Team(name="x", parent="lab"), Team(name="y", parent="lab")))
    capacity = Capacity([a_node(devices=8, **H100)])
    for job, devices in zip([*jobs("x", 1), *jobs("y", 1), *jobs("lab", 1)], ([0], [1, 2], [3]), strict=True):
        capacity.take(job, a_placement(("n1", devices)))
    accounts = Accounts(teams, capacity)
    held = {name: -accounts.within(teams.path(name)[-1], 0) // MILLI for name in ("lab", "x", "y")}
    assert held == {"lab": 4, "x": 1, "y": 2}
    accounts.add(jobs("x", 1)[0], a_placement(("n1", [0])), -1)
    assert -accounts.within(teams.path("lab")[-1], 0) // MILLI == 3


def test_a_parent_that_does_not_say_is_guaranteed_what_its_children_are() -> None:
    x, y = (Team(name=name, parent="lab", guaranteed=(("H100", 4),)) for name in "xy")
    assert Teams((Team(name="lab"), x, y)).path("x")[0].guaranteed == (("H100", 8),)
    with pytest.raises(QuotaError, match="its children are guaranteed 8 H100 together, and it 7"):
        Teams((Team(name="lab", guaranteed=(("H100", 7),)), x, y))


# -- what a file says ---------------------------------------------------------------------------------


def test_teams_are_read_from_a_table() -> None:
    table = {"lab": {}, "x": {"parent": "lab", "weight": 2, "guaranteed": {"H100": 8}, "borrow": 4}}
    lab, x = Teams.from_table({**table, "y": {"borrow": False, "lend": False}}).teams[:2]
    assert lab == Team(name="lab")
    assert x == Team(name="x", parent="lab", weight=2.0, guaranteed=(("H100", 8),), borrow_limit=4)
    assert Teams.from_table({"y": {"borrow": False, "lend": False}}).teams[0].borrow_limit == 0


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"a": 1}, "expected a table"),
        ({"a": {"wieght": 1}}, "wieght is no key"),
        ({"a": {"weight": "2"}}, "weight: expected a number"),
        ({"a": {"weight": 0}}, "expected a weight above 0"),
        ({"a": {"guaranteed": {"H100": -1}}}, "guaranteed: expected models"),
        ({"a": {"guaranteed": 8}}, "guaranteed: expected models"),
        ({"a": {"borrow": "yes"}}, "borrow: expected true, false or a count"),
        ({"a": {"lend": 1}}, "lend: expected true or false"),
        ({"a": {"parent": "b"}}, "its parent b is no team"),
        ({"a": {"parent": "b"}, "b": {"parent": "a"}}, "it is its own parent"),
    ],
)
def test_what_is_wrong_with_teams_is_said(table: dict[str, object], said: str) -> None:
    with pytest.raises(QuotaError, match=said):
        Teams.from_table(table)
