"""Usage that decays: closed forms, the same however it came about, and what fair shares make of it."""

import math
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.kernel.image import StateImage
from artesian.kernel.replay import replay
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import State
from artesian.model.history import Had, History, Holding, Usage
from artesian.model.job import Cause
from artesian.model.quota import QuotaError, Team, Teams
from artesian.policy.registry import fair_share
from artesian.server.rules import Rules
from artesian.sim import report, simulate
from builders import GIB, Kernel, a_job, a_node, ended
from simulations import a_fleet, a_sim_job

HALF_LIFE_S = 100.0
HOST_WISH: dict[str, Any] = {"devices": "host", "cpus_per_device": 1.5, "memory_bytes_per_device": 3 * GIB}
JOBS: list[dict[str, Any]] = [
    {"team": "a", "devices": "cpu:2"},
    {"team": "b", "devices": "cpu:2", "cpus_per_device": 2.25},
    {"team": "a", "devices": "0.5", "memory_bytes_per_device": GIB},
    {"team": "a", **HOST_WISH},
    {"team": "b", **HOST_WISH},
]
TEAMS = Teams((Team(name="a"), Team(name="b")), HALF_LIFE_S)


# -- the sums -----------------------------------------------------------------------------------------


def test_what_is_held_for_ever_is_what_was_had() -> None:
    usage = Usage(HALF_LIFE_S)
    usage.note(Holding(0.0, "a", "H100", 8000, cpu_milli=500, memory_bytes=64))
    had = usage.had(100 * HALF_LIFE_S)["a"]
    assert had.milli["H100"] == pytest.approx(8000)
    assert (had.cpu_milli, had.memory_bytes) == pytest.approx((500, 64))


def test_it_counts_by_half_with_every_half_life() -> None:
    usage = Usage(HALF_LIFE_S)
    usage.note(Holding(0.0, "a", "H100", 8000, 16_000, GIB))
    usage.note(Holding(HALF_LIFE_S, "a", "H100", -8000, -16_000, -GIB))
    for half_lives, part in ((1, 1 / 2), (2, 1 / 4), (5, 1 / 32)):
        had = usage.had(half_lives * HALF_LIFE_S)["a"]
        assert had.milli["H100"] == pytest.approx(8000 * part)
        assert had.cpu_milli == pytest.approx(16_000 * part)
        assert had.memory_bytes == pytest.approx(GIB * part)


@given(
    holdings=st.lists(
        st.tuples(
            st.floats(0, 1000),
            st.floats(0, 1000),
            st.tuples(st.sampled_from([0, 500, 8000]), st.integers(0, 9000), st.integers(0, 2**44)),
        ),
        max_size=6,
    ),
    half_life_s=st.sampled_from([1.0, 100.0, 1e6]),
)
def test_it_is_the_integral_of_what_was_held(
    holdings: list[tuple[float, float, tuple[int, int, int]]], half_life_s: float
) -> None:
    changes = []
    expected, now_s = [0.0, 0.0, 0.0], 3000.0
    rate = math.log(2) / half_life_s
    for start_s, lasts_s, amounts in holdings:
        changes.append(Holding(start_s, "a", "X", *amounts))
        changes.append(Holding(start_s + lasts_s, "a", "X", *(-amount for amount in amounts)))
        part = math.exp(-rate * (now_s - start_s - lasts_s)) - math.exp(-rate * (now_s - start_s))
        expected = [sum_ + amount * part for sum_, amount in zip(expected, amounts, strict=True)]
    had = History(lambda: changes).usage(half_life_s).had(now_s).get("a", Had())
    found = (had.milli.get("X", 0.0), had.cpu_milli, had.memory_bytes)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-3)


# -- in the kernel --------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(JOBS), st.booleans(), st.integers(0, 50)), max_size=12),
    asked_at=st.integers(0, 12),
)
def test_it_is_the_same_kept_up_to_date_or_worked_out_at_the_end_or_after_a_restart(
    steps: list[tuple[dict[str, Any], bool, int]], asked_at: int
) -> None:
    kernel = Kernel(a_node(devices=4))
    at_s = 0.0
    for number, (wish, is_end, more_s) in enumerate(steps):
        at_s += more_s
        if number == asked_at:
            kernel.state.history.usage(HALF_LIFE_S)
        if is_end and kernel.state.running:
            id = min(kernel.state.running)
            kernel.step(ended(id, kernel.job(id).epoch, Cause.NODE_LOST, at_s))
        else:
            kernel.submit(a_job(f"j{number}", **wish), at_s=at_s)
    image = msgspec.json.decode(msgspec.json.encode(kernel.state.image()), type=StateImage)
    for state in (State.from_image(image), replay(kernel.journal)):
        assert had_by(state, at_s + 10.0) == pytest.approx(had_by(kernel.state, at_s + 10.0))


def had_by(state: State, at_s: float) -> dict[tuple[str, str], float]:
    """What each team has had, by team and resource."""
    found = {}
    for team, had in state.history.usage(HALF_LIFE_S).had(at_s).items():
        found[team, "cpus"], found[team, "memory"] = had.cpu_milli, had.memory_bytes
        found |= {(team, f"device {model}"): milli for model, milli in had.milli.items()}
    return found


@given(wishes=st.lists(st.sampled_from(JOBS), max_size=8))
def test_who_holds_something_for_ever_has_had_as_much_as_counts_as_used_now(
    wishes: list[dict[str, Any]],
) -> None:
    kernel = Kernel(a_node(devices=4), a_node("n2", accelerator="H100"))
    kernel.submit(*(a_job(f"j{number}", **wish) for number, wish in enumerate(wishes)))
    had = had_by(kernel.state, 100 * HALF_LIFE_S)
    capacity = kernel.state.capacity
    models = [f"device {accelerator}" for accelerator in ("cpu", "H100")]
    used = {
        (team, resource): amount
        for (team, _), amounts in capacity.used.items()
        for resource, amount in zip((*models, "cpus", "memory"), amounts, strict=True)
        if amount
    }
    assert {key: amount for key, amount in had.items() if amount} == pytest.approx(used)


# -- what fair shares make of it ------------------------------------------------------------------------


def first_started(teams: Teams) -> str:
    """Team ``a`` has had the only device for long, it is free now, and both teams want it; ``a`` came first."""
    kernel = Kernel(a_node(devices=1), policy=fair_share(teams))
    kernel.run(a_job("past", team="a"))
    kernel.submit(a_job("a", team="a"), at_s=1000.0)
    kernel.submit(a_job("b", team="b"), at_s=1001.0)
    plan = kernel.step(ended("past", at_s=1002.0))
    return plan.starts[0].job_id


def test_who_has_had_less_goes_first_though_nobody_holds_anything_now() -> None:
    assert first_started(TEAMS) == "b"
    assert first_started(Teams(TEAMS.teams)) == "a", "without a half-life, what was had does not count"


@pytest.mark.parametrize("wish", [{"cpus_per_device": 8.0}, {"memory_bytes_per_device": 64 * GIB}], ids=str)
@pytest.mark.parametrize("teams", [TEAMS, Teams(TEAMS.teams)], ids=["with history", "without"])
def test_who_has_had_no_devices_but_cpus_or_memory_has_had_something(
    teams: Teams, wish: dict[str, Any]
) -> None:
    kernel = Kernel(a_node(devices=1), policy=fair_share(teams))
    kernel.run(a_job("past", team="a", devices="host", **wish))
    kernel.submit(a_job("a", team="a", devices="host", **wish), at_s=1000.0)
    kernel.submit(a_job("b", team="b", devices="host", **wish), at_s=1001.0)
    plan = kernel.step(ended("past", at_s=1002.0))
    assert [start.job_id for start in plan.starts] == (["b"] if teams is TEAMS else ["a"])


def test_what_a_team_has_had_most_of_counts_whichever_resource_that_is() -> None:
    """Both have had half of the devices; ``a`` has had nearly all CPUs beside."""
    kernel = Kernel(a_node(devices=2, cpus=8), policy=fair_share(TEAMS))
    kernel.run(a_job("past-a", team="a", cpus_per_device=7.0), a_job("past-b", team="b", cpus_per_device=1.0))
    kernel.submit(a_job("a", team="a", devices="cpu:2"), at_s=1000.0)
    kernel.submit(a_job("b", team="b", devices="cpu:2"), at_s=1001.0)
    plan = kernel.step(ended("past-a", at_s=1002.0), ended("past-b", at_s=1002.0))
    assert [start.job_id for start in plan.starts] == ["b"]


def test_a_weight_is_a_part_of_what_is_had_over_time() -> None:
    teams = Teams((Team(name="a", weight=3.0), Team(name="b")), 1000.0)
    jobs = [a_sim_job(f"{team}{n}", "cpu:4", takes=50.0, team=team) for n in range(60) for team in ("a", "b")]
    result = simulate(a_fleet(4), jobs, fair_share(teams))
    starts = sorted((record.attempts[0].decided_s, record.job.team) for record in result.state.jobs.values())
    had = Counter(team for _, team in starts[:40])
    assert had["a"] == pytest.approx(30, abs=2)
    assert report(result).unstarted == ()


def test_teams_without_history_are_as_they_were_in_one_cycle() -> None:
    """In one cycle on an empty fleet, both go by what is given out: the same."""
    jobs = [a_job(f"{team}-{n}", team=team) for n in range(8) for team in ("b", "a")]
    plans = []
    for half_life_s in (None, HALF_LIFE_S):
        teams = Teams((Team(name="a", weight=3.0), Team(name="b")), half_life_s)
        plans.append(Kernel(a_node(devices=8), policy=fair_share(teams)).submit(*jobs).starts)
    assert plans[0] == plans[1]


def test_the_future_that_why_looks_at_does_not_change_the_past() -> None:
    kernel = Kernel(a_node(devices=1), policy=fair_share(TEAMS))
    kernel.run(a_job("runs", team="a", estimated_duration_s=500.0))
    kernel.submit(a_job("a", team="a"), a_job("b", team="b"), at_s=10.0)
    scheduler = Scheduler(kernel.scheduler.policy, kernel.state)
    before = had_by(kernel.state, 10.0)
    found = scheduler.outlook("b", TEAMS)
    assert found is not None
    assert found.start_s == 500.0
    assert had_by(kernel.state, 10.0) == before


# -- settings -------------------------------------------------------------------------------------------


def test_the_half_life_stands_beside_the_teams() -> None:
    teams = Teams.from_table({"usage_half_life": "7d", "a": {"weight": 2}})
    assert teams == Teams((Team(name="a", weight=2.0),), 7 * 86400.0)
    assert Rules.decode(Rules(teams=teams).encode()).teams == teams


@pytest.mark.parametrize("value", [7, "7", "0s", "soon", {"weight": 1}, True, "-1d"])
def test_a_half_life_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(QuotaError, match="usage_half_life: expected a duration such as 7d"):
        Teams.from_table({"usage_half_life": value})
