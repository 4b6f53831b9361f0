"""Whatever becomes of the solver, a cycle has a plan that can be carried out, and says what it went by."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.kernel.lifecycle import JobState
from artesian.kernel.replay import replay
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.verification import verify
from artesian.model.fleet import Fleet
from artesian.model.plan import Plan, Reason
from artesian.model.quota import Team, Teams
from artesian.model.snapshot import Snapshot
from artesian.policy import solver
from artesian.policy.base import Policy, Timed
from artesian.policy.fallback import EqualParts, ranked
from artesian.policy.pools import Pools
from artesian.policy.ranking import Turns
from artesian.policy.registry import RANKINGS, fair_share, in_rounds
from artesian.policy.shares import FinishTimeFairness, MaxMin
from artesian.policy.solver import FloatArray, LinearProgram, SolverFailed, most_iterations
from artesian.policy.throughput import Problem, Throughputs
from artesian.sim import SimJob, SimResult, simulate
from builders import a_job, a_node, a_snapshot, ended, joined, submitted, ticked
from problems import a_problem, problems
from strategies import snapshots

FAST, SLOW = "V100", "K80"
TABLE = Throughputs(
    {("lm", FAST, float(n)): 4.0 * n for n in (1, 2)} | {("lm", SLOW, float(n)): n for n in (1, 2)}
)
ROUND_S = 100.0


@dataclass
class Solver:
    """Fails at each call for which ``fails_at`` holds, counted from 0, and counts them."""

    fails_at: Callable[[int], bool]
    calls: int = 0
    failed: int = 0

    @contextmanager
    def in_place(self) -> Iterator["Solver"]:
        sound = LinearProgram.solve

        def solve(program: LinearProgram) -> FloatArray:
            self.calls += 1
            if self.fails_at(self.calls - 1):
                self.failed += 1
                raise SolverFailed("the solver found no optimum: told so by a test")
            return sound(program)

        with mock.patch.object(LinearProgram, "solve", solve):
            yield self


@dataclass
class Noting:
    """A policy in rounds; notes of each plan whether a solver failed for it, and what notice it has."""

    policy: Policy
    solver: Solver
    seen: list[tuple[bool, str | None]] = field(default_factory=list)

    def plan(self, snapshot: Snapshot) -> Plan:
        before = self.solver.failed
        plan = self.policy.plan(snapshot)
        self.seen.append((self.solver.failed > before, plan.notice))
        return plan

    def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
        return self.policy.explain(snapshot, job_id)

    def next_wake_s(self, snapshot: Snapshot) -> float | None:
        assert isinstance(self.policy, Timed)
        return self.policy.next_wake_s(snapshot)


FAILURES: st.SearchStrategy[Callable[[int], bool]] = st.one_of(
    st.just(lambda _: True),
    st.integers(0, 6).map(lambda n: lambda call: call == n),
    st.sets(st.integers(0, 40)).map(lambda chosen: lambda call: call in chosen),
)


def some_jobs(count: int) -> list[SimJob]:
    profiles = ("lm", "new", "lm")
    return [
        SimJob(
            job=a_job(
                f"j{number}",
                devices=("1", "2", "1..2")[number % 3],
                profile=profiles[number % 3],
                total_steps=300.0 + 137.0 * number,
                priority=number % 3 - 1,
            ),
            submit_s=17.0 * number,
            duration_s=(300.0 + 137.0 * number) / 4.0,
            steps_per_s={FAST: 4.0, SLOW: 1.0},
            checkpoint_every_s=0.0,
        )
        for number in range(count)
    ]


def run(name: str, solver: Solver, *, jobs: int = 6) -> tuple[SimResult, Noting]:
    """The kernel refuses a plan that gives a device twice, or half a gang."""
    fleet = Fleet(nodes=(a_node("f", accelerator=FAST, devices=2), a_node("s", accelerator=SLOW, devices=2)))
    policy = Noting(in_rounds(name, TABLE, round_s=ROUND_S), solver)
    with solver.in_place():
        result = simulate(fleet, some_jobs(jobs), policy)
    result.state.validate()
    return result, policy


@pytest.mark.parametrize("name", sorted(RANKINGS))
@settings(deadline=None, max_examples=5)
@given(fails_at=FAILURES)
def test_whatever_the_solver_does_every_job_comes_to_its_end_and_each_plan_says_what_it_went_by(
    name: str, fails_at: Callable[[int], bool]
) -> None:
    result, policy = run(name, solver := Solver(fails_at))
    assert {record.state for record in result.state.jobs.values()} == {JobState.SUCCEEDED}
    assert solver.calls, "it was asked at all"
    for has_failed, notice in policy.seen:
        if has_failed:
            assert notice is not None
            assert "told so by a test" in notice
    if not solver.failed:
        assert [notice for _, notice in policy.seen if notice is not None] == []
    again, _ = run(name, Solver(fails_at))
    assert again.records == result.records, "what comes of a failure is the same each time"
    assert replay(result.records).image() == result.state.image()


@pytest.mark.parametrize("name", sorted(RANKINGS))
def test_a_solver_that_always_fails_leaves_its_word_in_plan_reasons_and_why(name: str) -> None:
    result, policy = run(name, Solver(lambda _: True))
    assert all(notice is not None for has_failed, notice in policy.seen if has_failed)
    reasons = {attempt.reason for record in result.state.jobs.values() for attempt in record.attempts}
    assert reasons
    assert all("equal parts of the fleet" in reason and "came to nothing" in reason for reason in reasons)
    snapshot = a_snapshot([a_node(devices=1)], waiting=[a_job("a"), a_job("b")])
    with Solver(lambda _: True).in_place():
        rounds = in_rounds(name)
        waits = {id: rounds.explain(snapshot, id) for id in snapshot.waiting}
    (reason,) = [reason for reason in waits.values() if reason is not None]
    assert "told so by a test" in reason.text


@settings(deadline=None, max_examples=40)
@given(snapshot=snapshots(), name=st.sampled_from(sorted(RANKINGS)), most=st.sampled_from([0, 1, 2, 5]))
def test_a_solver_that_is_given_up_after_an_iteration_leaves_a_plan_that_can_be_carried_out(
    snapshot: Snapshot, name: str, most: int
) -> None:
    ends = replace(snapshot, at_s=720.0, before_s=719.0)
    with mock.patch.object(solver, "most_iterations", return_value=most):
        plan = in_rounds(name).plan(ends)
        assert in_rounds(name).plan(ends) == plan, "another process decides the same"
    with ends.capacity.trial() as trial:
        verify(plan, ends, trial)
    started = {start.job_id for start in plan.starts}
    assert started | {hold.job_id for hold in plan.holds} == set(ends.waiting)


def test_a_program_has_an_end_and_says_after_how_many_iterations() -> None:
    found = a_problem([[4.0, 1.0], [1.0, 2.0], [3.0, 3.0]] * 3, capacity=[2, 1], weight=[1.0, 2.0, 0.5] * 3)
    with mock.patch.object(solver, "most_iterations", return_value=1):
        with pytest.raises(SolverFailed, match="after 1 iterations: Iteration limit reached"):
            MaxMin().shares(found)
        notice = ranked(Turns(MaxMin()), found).notice
    assert notice is not None
    assert "after 1 iterations" in notice


def test_the_end_of_a_program_follows_from_its_size_alone() -> None:
    assert most_iterations(10, 30) == 1000 + 4 * 40
    assert most_iterations(20_000, 60_000) > most_iterations(2_000, 6_000)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_numbers_that_the_solver_does_not_take_are_no_silent_ones_of_before(value: float) -> None:
    one = np.ones(1)
    program = LinearProgram(
        gain=one,
        upper=one,
        row_lower=-one,
        row_upper=one,
        row=np.zeros(1, dtype=np.int64),
        column=np.zeros(1, dtype=np.int64),
        value=one,
    )
    assert program.solve().tolist() == [1.0]
    with pytest.raises(SolverFailed, match="does not take"):
        program.set_value(0, 0, value)


def test_a_failure_is_remembered_for_the_problem_that_it_came_of() -> None:
    found = a_problem([[1.0], [1.0]], capacity=[1])
    turns = Turns(MaxMin())
    with Solver(lambda _: True).in_place() as broken:
        for _ in range(3):
            with pytest.raises(SolverFailed):
                turns.priorities(found)
        assert broken.calls == 1
    other = replace(found, weight=np.array([2.0, 1.0]))
    assert ranked(turns, other).notice is None, "of another problem nothing is known yet"


# -- equal parts ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(found=problems(weights=(2.0**-20, 0.5, 1.0, 2.0**20)))
def test_equal_parts_are_shares_for_everybody(found: Problem) -> None:
    shares = EqualParts().shares(found)
    assert (shares.sum(1) > 0).all()
    assert (shares[~found.can_run] == 0).all()
    assert (shares.sum(1) <= 1 + 1e-9).all()
    assert ((shares * found.devices).sum(0) <= found.capacity + 1e-9).all()


def test_equal_parts_go_by_weight_and_look_at_no_speed() -> None:
    found = a_problem([[9.0], [1.0], [1.0]], capacity=[2], weight=[1.0, 1.0, 2.0])
    np.testing.assert_allclose(EqualParts().shares(found), [[0.5], [0.5], [1.0]])


def test_a_job_without_devices_has_all_of_its_time() -> None:
    found = a_problem([[1.0], [1.0]], capacity=[2], devices=[[0.0], [4.0]])
    np.testing.assert_allclose(EqualParts().shares(found), [[1.0], [0.25]])


# -- finish-time fairness -------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    rate=st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=4),
    left=st.floats(1e-9, 1e300),
    age_s=st.floats(0.0, 1e12),
    held_s=st.floats(0.0, 1e12),
)
def test_finish_time_fairness_comes_to_an_end_whatever_the_numbers_are(
    rate: list[float], left: float, age_s: float, held_s: float
) -> None:
    jobs = len(rate)
    found = a_problem(
        [[one] for one in rate],
        capacity=[1],
        left=[left] * jobs,
        age_s=[age_s] * jobs,
        held_s=[[held_s]] * jobs,
    )
    decided = ranked(Turns(FinishTimeFairness()), found)
    assert np.isfinite(decided.priorities).all()
    assert (decided.priorities >= 0).all()


def test_a_rho_so_large_that_one_more_is_none_is_found_all_the_same() -> None:
    # A job that is done in a nanosecond and waits for a year: its rho is 3e16, and a float has no 3e16 + 1.
    found = a_problem([[1.0], [1.0]], capacity=[1], left=[1e-9, 1e-9], age_s=[3e7, 3e7])
    shares = FinishTimeFairness().shares(found)
    assert shares.sum() > 0


def test_a_rho_that_is_no_number_is_a_failure_that_is_told() -> None:
    fast = float("inf")
    found = a_problem([[fast, fast], [1.0, 1.0]], capacity=[1, 1], held_s=[[1e3, 1e3]] * 2, age_s=[1e4] * 2)
    decided = ranked(Turns(FinishTimeFairness()), found)
    assert decided.notice is not None
    assert np.isfinite(decided.priorities).all()


# -- beside other pools ---------------------------------------------------------------------------------


def test_a_solver_that_fails_in_one_pool_takes_no_quota_from_the_teams_of_another() -> None:
    teams = Teams(
        (Team(name="a", guaranteed=(("cpu", 1),), borrow_limit=0), Team(name="b", guaranteed=(("cpu", 3),)))
    )
    policy = Pools({"mixed": in_rounds("max-min")}, fair_share(teams))
    scheduler = Scheduler(policy)
    fleet = [a_node("f", accelerator=FAST, devices=1, pool="mixed"), a_node("c", devices=4)]
    jobs = [a_job(f"a{n}", devices="cpu:1", team="a") for n in range(4)]
    jobs += [a_job(f"m{n}", devices="V100:1", team="b") for n in range(2)]
    with Solver(lambda _: True).in_place():
        plan = scheduler.step([*map(joined, fleet), *map(submitted, jobs)])
        assert sorted(start.job_id for start in plan.starts) == ["a0", "m0"]
        assert plan.notice is not None
        assert "told so by a test" in plan.notice
        later = scheduler.step([ended("m0", at_s=50.0)])
        assert [start.job_id for start in later.starts] == ["m1"]
    assert scheduler.step([ended("m1", at_s=60.0), ticked(60.0)]).notice is None
