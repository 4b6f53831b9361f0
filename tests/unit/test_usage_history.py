"""Usage that decays: closed forms, the same however it came about, and what fair shares make of it."""

import math
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.kernel.image import StateImage
from artesian.kernel.replay import replay
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import State
from artesian.model.history import History, Usage
from artesian.model.job import Cause
from artesian.model.quota import QuotaError, Team, Teams
from artesian.policy.registry import fair_share
from artesian.server.rules import Rules
from artesian.sim import report, simulate
from builders import Kernel, a_job, a_node, ended
from simulations import a_fleet, a_sim_job

HALF_LIFE_S = 100.0
TEAMS = Teams((Team(name="a"), Team(name="b")), HALF_LIFE_S)


# -- the sums -----------------------------------------------------------------------------------------


def test_what_is_held_for_ever_is_what_was_had() -> None:
    usage = Usage(HALF_LIFE_S)
    usage.note((0.0, "a", "H100", 8.0))
    assert usage.devices(100 * HALF_LIFE_S)["a", "H100"] == pytest.approx(8.0)


def test_it_counts_by_half_with_every_half_life() -> None:
    usage = Usage(HALF_LIFE_S)
    usage.note((0.0, "a", "H100", 8.0))
    usage.note((HALF_LIFE_S, "a", "H100", -8.0))
    assert usage.devices(HALF_LIFE_S)["a", "H100"] == pytest.approx(4.0)
    assert usage.devices(2 * HALF_LIFE_S)["a", "H100"] == pytest.approx(2.0)
    assert usage.devices(5 * HALF_LIFE_S)["a", "H100"] == pytest.approx(0.25)


@given(
    holdings=st.lists(
        st.tuples(st.floats(0, 1000), st.floats(0, 1000), st.sampled_from([0.5, 1.0, 8.0])), max_size=6
    ),
    half_life_s=st.sampled_from([1.0, 100.0, 1e6]),
)
def test_it_is_the_integral_of_what_was_held(
    holdings: list[tuple[float, float, float]], half_life_s: float
) -> None:
    changes = []
    expected, now_s = 0.0, 3000.0
    rate = math.log(2) / half_life_s
    for start_s, lasts_s, devices in holdings:
        changes += [(start_s, "a", "X", devices), (start_s + lasts_s, "a", "X", -devices)]
        expected += devices * (
            math.exp(-rate * (now_s - start_s - lasts_s)) - math.exp(-rate * (now_s - start_s))
        )
    found = History(lambda: changes).usage(half_life_s).devices(now_s).get(("a", "X"), 0.0)
    assert found == pytest.approx(expected, abs=1e-6)


# -- in the kernel --------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["a", "b"]), st.booleans(), st.integers(0, 50)), max_size=12),
    asked_at=st.integers(0, 12),
)
def test_it_is_the_same_kept_up_to_date_or_worked_out_at_the_end_or_after_a_restart(
    steps: list[tuple[str, bool, int]], asked_at: int
) -> None:
    kernel = Kernel(a_node(devices=4))
    at_s = 0.0
    for number, (team, is_end, more_s) in enumerate(steps):
        at_s += more_s
        if number == asked_at:
            kernel.state.history.usage(HALF_LIFE_S)
        if is_end and kernel.state.running:
            id = min(kernel.state.running)
            kernel.step(ended(id, kernel.job(id).epoch, Cause.NODE_LOST, at_s))
        else:
            kernel.submit(a_job(f"j{number}", devices="cpu:2", team=team), at_s=at_s)
    image = msgspec.json.decode(msgspec.json.encode(kernel.state.image()), type=StateImage)
    for state in (State.from_image(image), replay(kernel.journal)):
        found = state.history.usage(HALF_LIFE_S).devices(at_s + 10.0)
        assert found == pytest.approx(dict(kernel.state.history.usage(HALF_LIFE_S).devices(at_s + 10.0)))


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
    before = dict(kernel.state.history.usage(HALF_LIFE_S).devices(10.0))
    found = scheduler.outlook("b", TEAMS)
    assert found is not None
    assert found.start_s == 500.0
    assert dict(kernel.state.history.usage(HALF_LIFE_S).devices(10.0)) == before


# -- settings -------------------------------------------------------------------------------------------


def test_the_half_life_stands_beside_the_teams() -> None:
    teams = Teams.from_table({"usage_half_life": "7d", "a": {"weight": 2}})
    assert teams == Teams((Team(name="a", weight=2.0),), 7 * 86400.0)
    assert Rules.decode(Rules(teams=teams).encode()).teams == teams


@pytest.mark.parametrize("value", [7, "7", "0s", "soon", {"weight": 1}, True, "-1d"])
def test_a_half_life_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(QuotaError, match="usage_half_life: expected a duration such as 7d"):
        Teams.from_table({"usage_half_life": value})
