"""Rounds and teams: what teams are guaranteed they have, and nobody has more than his teams may."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.model.fleet import Fleet, Node
from artesian.model.job import Job
from artesian.model.plan import HoldCode
from artesian.model.quota import Team, Teams
from artesian.model.resources import MILLI
from artesian.policy.accounts import Accounts
from artesian.policy.base import Policy
from artesian.policy.fairshare import FairShare
from artesian.policy.pools import Pools
from artesian.policy.registry import RANKINGS, TEAM_POLICIES, in_rounds, policy, pooled
from artesian.policy.rounds import Rounds
from artesian.policy.shares import FinishTimeFairness, Makespan, MaxMin, Objective
from artesian.policy.throughput import Problem, Throughputs, problem
from artesian.sim import SimJob, simulate
from builders import Kernel, a_job, a_node, a_snapshot, ended, ticked

FAST, SLOW = "V100", "K80"
TABLE = Throughputs(
    {
        (profile, name, devices): rate * devices
        for profile, rates in {"lm": (4.0, 1.0), "flat": (1.25, 1.0)}.items()
        for name, rate in zip((FAST, SLOW), rates, strict=True)
        for devices in (1.0, 2.0, 3.0, 4.0)
    }
)
ROUND_S = 100.0
EVERY_RANKING = pytest.mark.parametrize("name", RANKINGS)


def teams(*given: Team) -> Teams:
    return Teams(given)


def by(name: str, quotas: Teams) -> Policy:
    return in_rounds(name, TABLE, round_s=ROUND_S, teams=quotas)


def one(id: str, team: str = "a", **more: Any) -> Job:
    given: dict[str, Any] = {"devices": "1", "profile": "lm", "total_steps": 40_000.0, **more}
    return a_job(id, team=team, **given)


def a_fleet(fast: int = 2, slow: int = 2) -> list[Node]:
    return [a_node("f", accelerator=FAST, devices=fast), a_node("s", accelerator=SLOW, devices=slow)]


def held(kernel: Kernel, model: str | None = None) -> Counter[str]:
    """Devices that each team holds, of one model or all."""
    found: Counter[str] = Counter()
    for entry in kernel.state.running.values():
        share = entry.placement.shares[0]
        if model in (None, kernel.state.nodes[share.node_id].node.accelerator):
            found[entry.job.team] += entry.placement.devices
    return found


# -- limits ------------------------------------------------------------------------------------------------


@EVERY_RANKING
def test_a_team_starts_no_more_than_it_may_borrow_and_why_says_so(name: str) -> None:
    kernel = Kernel(*a_fleet(2, 2), policy=by(name, teams(Team(name="a", borrow_limit=1))))
    kernel.run(*(one(f"j{number}") for number in range(3)))
    assert held(kernel) == {"a": 1}
    waiting = sorted(kernel.state.waiting)
    reason = kernel.scheduler.why(waiting[0])
    assert reason is not None
    assert reason.code is HoldCode.OVER_QUOTA
    assert (
        "team a may not have as many devices now: it holds 1 beyond its guarantee, of at most 1"
        in reason.text
    )
    assert kernel.job(waiting[0]).hold is not None
    assert kernel.job(waiting[0]).hold.code is HoldCode.OVER_QUOTA  # type: ignore[union-attr]


@EVERY_RANKING
def test_what_a_limited_team_may_not_have_others_get(name: str) -> None:
    kernel = Kernel(*a_fleet(2, 2), policy=by(name, teams(Team(name="a", borrow_limit=1))))
    short = [one(f"a{number}", "a", total_steps=100.0) for number in range(6)]
    kernel.run(*short, *(one(f"b{number}", "b") for number in range(6)))
    assert held(kernel)["a"] <= 1
    assert sum(held(kernel).values()) == 4, "no device is idle that b could use"


@EVERY_RANKING
def test_nobody_starts_on_what_a_team_keeps_that_does_not_lend(name: str) -> None:
    quotas = teams(Team(name="a", guaranteed=((FAST, 1),), lends=False))
    kernel = Kernel(a_node("f", accelerator=FAST, devices=2), policy=by(name, quotas))
    kernel.run(one("b1", "b"), one("b2", "b"))
    assert held(kernel) == {"b": 1}
    reason = kernel.scheduler.why(next(iter(kernel.state.waiting)))
    assert reason is not None
    assert reason.code is HoldCode.KEPT_FOR_TEAMS
    assert "teams keep that do not lend: a" in reason.text
    kernel.run(one("a1", "a"), at_s=10.0)
    assert held(kernel) == {"a": 1, "b": 1}, "and it finds it free"


@EVERY_RANKING
def test_a_job_that_its_team_could_never_hold_waits_with_the_reason_and_keeps_nothing_from_others(
    name: str,
) -> None:
    kernel = Kernel(*a_fleet(2, 1), policy=by(name, teams(Team(name="a", borrow_limit=1))))
    kernel.run(one("gang", "a", devices="2"), one("b", "b"))
    assert set(kernel.state.running) == {"b"}
    reason = kernel.scheduler.why("gang")
    assert reason is not None
    assert reason.code is HoldCode.OVER_QUOTA


@EVERY_RANKING
def test_an_elastic_gang_gets_no_more_devices_than_its_team_may_have(name: str) -> None:
    quotas = teams(Team(name="a", guaranteed=((FAST, 1),), borrow_limit=2))
    kernel = Kernel(a_node("f", accelerator=FAST, devices=4), policy=by(name, quotas))
    kernel.run(one("wide", "a", devices="1..4", parallel_share=1.0))
    assert held(kernel) == {"a": 3}


def test_a_limit_of_a_parent_bounds_all_its_children_together() -> None:
    quotas = teams(
        Team(name="lab", borrow_limit=2), Team(name="x", parent="lab"), Team(name="y", parent="lab")
    )
    kernel = Kernel(*a_fleet(2, 2), policy=by("max-min", quotas))
    kernel.run(*(one(f"{team}{number}", team) for team in "xy" for number in range(2)))
    assert sum(held(kernel).values()) == 2


def test_within_a_limit_the_next_one_starts_when_the_one_before_has_left_wherever_that_is() -> None:
    quotas = teams(Team(name="a", guaranteed=((FAST, 2),), lends=False), Team(name="b", borrow_limit=2))
    kernel = Kernel(*a_fleet(3, 2), policy=by("max-min", quotas))
    kernel.run(one("slow", "b", devices="2"))
    assert set(kernel.state.running) == {"slow"}
    assert held(kernel, SLOW) == {"b": 2}, "of the fast ones the other team keeps two"
    kernel.submit(one("fast", "b", priority=5), at_s=50.0)
    plan = kernel.step(ticked(ROUND_S))
    assert [stop.job_id for stop in plan.stops] == ["slow"]
    assert plan.starts == (), "a fast one is free, but with those that are being left it is one too many"
    kernel.step(ended("slow", 1, at_s=ROUND_S + 1.0))
    assert held(kernel) == {"b": 1}


# -- guarantees -------------------------------------------------------------------------------------------


@EVERY_RANKING
def test_a_team_has_what_it_is_guaranteed_when_the_round_is_over(name: str) -> None:
    quotas = teams(Team(name="a", guaranteed=((FAST, 1),)))
    kernel = Kernel(a_node("f", accelerator=FAST, devices=2), policy=by(name, quotas))
    kernel.run(one("b1", "b", total_steps=400.0), one("b2", "b", total_steps=400.0))
    long = one("a1", "a", total_steps=1e9)
    kernel.submit(long, *(one(f"b{number}", "b", total_steps=10.0) for number in range(3, 6)), at_s=50.0)
    plan = kernel.step(ticked(ROUND_S))
    stopped = [stop.job_id for stop in plan.stops]
    assert stopped, "borrowed devices are given back"
    for number, job_id in enumerate(stopped, start=1):
        kernel.step(ended(job_id, 1, at_s=ROUND_S + number))
    assert held(kernel)["a"] == 1, "though others would be done earlier, or have had less"


def test_a_team_within_its_guarantee_goes_first_and_beyond_it_by_turns() -> None:
    quotas = teams(Team(name="a", guaranteed=((FAST, 2),)))
    kernel = Kernel(a_node("f", accelerator=FAST, devices=4), policy=by("max-min", quotas))
    kernel.run(
        *(one(f"b{number}", "b", priority=5) for number in range(4)),
        *(one(f"a{number}", "a") for number in range(4)),
    )
    assert held(kernel) == {"a": 2, "b": 2}


def test_siblings_within_their_guarantees_go_before_one_that_is_not() -> None:
    quotas = teams(
        Team(name="lab", guaranteed=((FAST, 2),)),
        Team(name="x", parent="lab", guaranteed=((FAST, 1),)),
        Team(name="y", parent="lab"),
    )
    kernel = Kernel(a_node("f", accelerator=FAST, devices=2), policy=by("max-min", quotas))
    kernel.run(
        *(one(f"o{number}", "other", priority=5) for number in range(2)),
        *(one(f"y{number}", "y", priority=3) for number in range(2)),
        *(one(f"x{number}", "x") for number in range(2)),
    )
    assert held(kernel) == {"x": 1, "y": 1}


# -- always ------------------------------------------------------------------------------------------------


SOME_TEAMS = st.sampled_from(
    [
        teams(Team(name="a", borrow_limit=1), Team(name="b", guaranteed=((FAST, 1),), borrow_limit=1)),
        teams(Team(name="a", guaranteed=((FAST, 2),), lends=False), Team(name="b", borrow_limit=2)),
        teams(
            Team(name="lab", guaranteed=((FAST, 2), (SLOW, 1)), borrow_limit=1),
            Team(name="a", parent="lab", guaranteed=((SLOW, 1),), lends=False),
            Team(name="b", parent="lab", borrow_limit=0),
        ),
    ]
)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), name=st.sampled_from(sorted(RANKINGS)), quotas=SOME_TEAMS)
def test_no_team_ever_holds_more_than_it_may_and_all_that_can_run_do(
    data: st.DataObject, name: str, quotas: Teams
) -> None:
    wishes = ["1", "1", "2", "1..3", f"{FAST}:1", f"{SLOW}:2 | {FAST}:1"]
    if all(team.lends for team in quotas.teams):
        # `may_hold` takes a device of which a share is taken for gone, though who keeps it may have the rest.
        wishes.append("0.5")
    kinds = st.sampled_from(wishes)
    profile = st.sampled_from(["lm", "flat", None])
    jobs = [
        SimJob(
            job=one(
                f"j{number}",
                data.draw(st.sampled_from("abc")),
                devices=data.draw(kinds),
                profile=data.draw(profile),
                priority=data.draw(st.integers(0, 2)),
            ),
            submit_s=float(data.draw(st.sampled_from([0, 30, 150]))),
            duration_s=float(data.draw(st.sampled_from([20, 130, 400]))),
            checkpoint_every_s=0.0,
        )
        for number in range(data.draw(st.integers(1, 8)))
    ]
    watched = _Watched(by(name, quotas), quotas)
    result = simulate(Fleet(nodes=tuple(a_fleet(3, 2))), jobs, watched)
    result.state.validate()
    for job_id in result.reasons:
        job = result.state.jobs[job_id].job
        capacity = result.state.capacity
        accounts = Accounts(quotas, capacity)
        may = [
            accounts.ceiling(job.team, kind) >= request.min_milli
            for request in job.devices
            for kind in accounts.kinds_of(request)
        ]
        assert not any(may), "the fleet is empty: it waits for what it can never have"


class _Watched(Rounds):
    """Rounds that are looked at: after each plan, no team holds more than it may."""

    __slots__ = ("quotas",)

    def __init__(self, inner: Policy, quotas: Teams) -> None:
        assert isinstance(inner, Rounds)
        super().__init__(inner.ranking, inner.place, inner.throughputs, inner.round_s, inner.teams)
        object.__setattr__(self, "quotas", quotas)

    def plan(self, snapshot: Any) -> Any:
        plan = super().plan(snapshot)
        with snapshot.capacity.trial() as trial:
            for start in plan.starts:
                job = snapshot.waiting[start.job_id].job
                trial.take(job, start.placement)
                accounts = Accounts(self.quotas, snapshot.capacity)  # type: ignore[attr-defined]
                kind = int(snapshot.capacity.kind[snapshot.capacity.row[start.placement.shares[0].node_id]])
                assert accounts.may_hold(job.team, kind), start
        waiting = {hold.job_id for hold in plan.holds}
        assert waiting == snapshot.waiting.keys() - {start.job_id for start in plan.starts}
        for job_id in waiting:
            assert self.explain(snapshot, job_id) is not None
        return plan


@EVERY_RANKING
def test_teams_without_guarantees_and_limits_change_nothing(name: str) -> None:
    jobs = [
        SimJob(
            job=one(f"j{number}", "ab"[number % 2], profile=("lm", "flat", None)[number % 3]),
            submit_s=40.0 * number,
            duration_s=150.0,
            checkpoint_every_s=0.0,
        )
        for number in range(12)
    ]
    fleet = Fleet(nodes=tuple(a_fleet()))
    plain = simulate(fleet, jobs, in_rounds(name, TABLE, round_s=ROUND_S))
    weighed = simulate(fleet, jobs, by(name, teams(Team(name="a", weight=3.0))))
    assert weighed.records == plain.records


# -- the programs -----------------------------------------------------------------------------------------


def a_limited_problem(quotas: Teams, *jobs: Job) -> Problem:
    snapshot = a_snapshot(a_fleet(2, 2), waiting=jobs)
    return problem(snapshot, TABLE, Accounts(quotas, snapshot.capacity))[0]


@pytest.mark.parametrize(
    "objective",
    [MaxMin(), MaxMin(is_aware=False), Makespan(), FinishTimeFairness()],
    ids=lambda one: one.name,
)
def test_shares_go_no_further_than_what_teams_may_have(objective: Objective) -> None:
    quotas = teams(
        Team(name="a", borrow_limit=1), Team(name="n", guaranteed=((FAST, 1),), lends=False), Team(name="b")
    )
    found = a_limited_problem(
        quotas,
        *(one(f"a{number}", "a") for number in range(3)),
        *(one(f"b{number}", "b") for number in range(3)),
    )
    time = objective.shares(found) * found.devices
    is_a = np.array([job.team == "a" for job in found.jobs])
    assert time[is_a].sum() <= 1 + 1e-6
    assert time[:, found.kinds.index(FAST)].sum() <= 1 + 1e-6, "the other one is kept"
    assert time[~is_a].sum() > 1.5, "what they may not have, others have"


def test_max_min_shares_are_even_among_those_that_no_limit_holds_back() -> None:
    quotas = teams(Team(name="a", borrow_limit=1))
    jobs = [one(f"a{number}", "a") for number in range(10)] + [one(f"b{number}", "b") for number in range(6)]
    found = a_limited_problem(quotas, *jobs)
    got = (MaxMin().shares(found) * found.rate).sum(1)
    others = got[[job.team == "b" for job in found.jobs]]
    np.testing.assert_allclose(others, others.mean(), rtol=1e-3)


def test_min_jct_does_not_choose_only_those_who_may_not_all_run() -> None:
    """Without the limit in its program, all that it chose would be of one team, and the rest came as they came."""
    quotas = teams(Team(name="a", borrow_limit=1))
    kernel = Kernel(a_node("f", accelerator=FAST, devices=3), policy=by("min-jct", quotas))
    kernel.run(
        *(one(f"a{number}", "a", total_steps=100.0) for number in range(4)),
        one("b-long", "b", total_steps=1e6),
        one("b-short", "b", total_steps=1e3),
        one("b-middle", "b", total_steps=1e4),
    )
    assert {"b-short", "b-middle"} < set(kernel.state.running)


# -- by name ----------------------------------------------------------------------------------------------


@EVERY_RANKING
def test_policies_in_rounds_go_by_the_teams_of_the_settings(name: str) -> None:
    quotas = teams(Team(name="a", borrow_limit=1))
    assert name in TEAM_POLICIES
    made = policy(name, quotas)
    assert isinstance(made, Rounds)
    assert made.teams is quotas
    mixed = pooled("fair-share", {"old": name}, quotas)
    assert isinstance(mixed, Pools)
    inner = mixed.by_pool["old"]
    assert isinstance(inner, Rounds)
    assert inner.teams is quotas


def test_a_team_may_hold_at_most_its_ceiling() -> None:
    quotas = teams(
        Team(name="a", guaranteed=((FAST, 1),), borrow_limit=2),
        Team(name="n", guaranteed=((FAST, 3),), lends=False),
    )
    snapshot = a_snapshot(a_fleet(5, 2))
    accounts = Accounts(quotas, snapshot.capacity)
    assert accounts.ceiling("a", 0) == 2 * MILLI, "of five, three are kept"
    assert accounts.ceiling("a", 1) == 2 * MILLI
    assert accounts.ceiling("n", 0) == float("inf")


def test_the_order_of_fair_share_refuses_by_the_same_words() -> None:
    quotas = teams(Team(name="a", borrow_limit=0))
    snapshot = a_snapshot(a_fleet(), waiting=[one("j")])
    line = FairShare(quotas).line(snapshot)
    said = in_rounds("max-min", TABLE, teams=quotas).explain(snapshot, "j")
    refused = line.refusal(one("j"))
    assert said is not None
    assert refused is not None
    assert said.text.startswith(refused.text)
    assert replace(said, text="", unblock="") == replace(refused, text="", unblock="")
