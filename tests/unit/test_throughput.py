"""Shares of time and matchings over models of device: against closed forms and brute force."""

import itertools
import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.snapshot import Snapshot
from artesian.policy import solver
from artesian.policy.matching import AlloX, ShortestRemaining
from artesian.policy.ranking import Turns, targets
from artesian.policy.shares import FinishTimeFairness, Makespan, MaxMin, Objective
from artesian.policy.solver import FloatArray, SolverFailed, SolverMissing
from artesian.policy.throughput import LEAST_S, Problem, Throughputs, problem
from builders import a_job, a_node, a_placement, a_snapshot
from problems import a_problem, problems

OBJECTIVES: tuple[Objective, ...] = (
    MaxMin(),
    MaxMin(levels=5),
    MaxMin(is_aware=False),
    Makespan(),
    FinishTimeFairness(),
)


def gains(found: Problem, shares: FloatArray) -> FloatArray:
    """What max-min fairness compares: the throughput over that of an even spread, times devices, over weight."""
    total: FloatArray = (found.rate * shares).sum(1) / found.alone_rate()
    gain: FloatArray = total * np.maximum(found.devices.max(1), 1.0) / found.weight
    return gain


# -- what holds for all ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(found=problems(weights=(2.0**-20, 1.0, 2.0**20)))
def test_no_priority_keeps_the_solver_from_an_optimum(found: Problem) -> None:
    for objective in OBJECTIVES:
        if objective != MaxMin(
            levels=5
        ):  # beyond a millionfold, its later levels are below what the solver sees
            assert (objective.shares(found).sum(1) <= 1 + 1e-6).all()


@settings(deadline=None, max_examples=60)
@given(found=problems())
def test_shares_are_at_most_the_whole_time_and_all_the_devices(found: Problem) -> None:
    for objective in OBJECTIVES:
        shares = objective.shares(found)
        assert (shares >= 0).all()
        assert (shares[~found.can_run] == 0).all(), "no time where a job cannot run"
        assert (shares.sum(1) <= 1 + 1e-6).all()
        assert ((shares * found.devices).sum(0) <= found.capacity + 1e-6).all()
        np.testing.assert_array_equal(shares, objective.shares(found))


@settings(deadline=None, max_examples=60)
@given(found=problems())
def test_nobodys_share_is_nothing_under_max_min_fairness(found: Problem) -> None:
    for objective in (MaxMin(), MaxMin(is_aware=False), MaxMin(levels=5)):
        assert (objective.shares(found).sum(1) > 1e-6).all()


def test_jobs_with_a_million_times_as_much_to_do_have_their_shares_too() -> None:
    """What they gain in a second is a millionth of what the others do, and the solver is exact to 1e-7 only."""
    found = a_problem(
        [[3.0, 0.5], [0.0, 1.0], [10.0, 3.0], [1.0, 1.0]],
        devices=[[2.0, 2.0], [2.0, 2.0], [2.0, 2.0], [0.5, 0.5]],
        capacity=[2.0, 2.0],
        left=[1e6, 100.0, 1e6, 1.0],
    )
    shares = Makespan().shares(found)
    ends_s = found.left / (found.rate * shares).sum(1)
    # On the first kind alone the two long ones need 1e6 / 3 + 1e6 / 10 seconds; the second kind helps, and is shared.
    assert 1e6 / (3.0 + 0.5) < ends_s.max() < 1e6 / 3 + 1e6 / 10
    np.testing.assert_allclose(ends_s[[0, 2]], ends_s.max(), rtol=1e-5)


# -- closed forms ---------------------------------------------------------------------------------------


def test_two_jobs_each_have_the_kind_that_they_gain_most_from() -> None:
    found = a_problem([[4.0, 1.0], [1.0, 2.0]], capacity=[1, 1])
    np.testing.assert_allclose(MaxMin().shares(found), [[1, 0], [0, 1]], atol=1e-6)


def test_two_like_jobs_share_a_fast_and_a_slow_device_half_and_half() -> None:
    found = a_problem([[3.0, 1.0], [3.0, 1.0]], capacity=[1, 1])
    shares = MaxMin().shares(found)
    np.testing.assert_allclose((found.rate * shares).sum(1), [2, 2], rtol=1e-6)


def test_the_agnostic_form_spreads_everybody_evenly_over_all_kinds() -> None:
    found = a_problem([[9.0, 1.0, 1.0]] * 2, capacity=[4, 2, 2])
    np.testing.assert_allclose(MaxMin(is_aware=False).shares(found), [[0.5, 0.25, 0.25]] * 2, atol=1e-6)
    crowded = a_problem([[9.0, 1.0]] * 8, capacity=[2, 2])
    np.testing.assert_allclose(MaxMin(is_aware=False).shares(crowded), [[0.25, 0.25]] * 8, atol=1e-6)


def test_the_agnostic_form_gives_way_to_a_job_that_has_no_other_kind() -> None:
    found = a_problem([[1.0, 0.0], [1.0, 1.0]], capacity=[1, 1])
    np.testing.assert_allclose(MaxMin(is_aware=False).shares(found).sum(1), [1, 1], atol=1e-6)


def test_finish_time_fairness_comes_to_an_end_where_one_is_a_million_times_as_important(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    solve, solved = solver.LinearProgram.solve, []

    def counted(program: solver.LinearProgram) -> FloatArray:
        solved.append(program)
        assert len(solved) < 100, "the greatest rho is about 2**20: it is doubled, not counted up to"
        return solve(program)

    monkeypatch.setattr(solver.LinearProgram, "solve", counted)
    found = a_problem([[1.0]] * 3, capacity=[1], age_s=[10_000.0, 10.0, 0.0], weight=[2.0**-10, 1.0, 2.0**20])
    shares = FinishTimeFairness().shares(found)
    assert shares[2] > 0.99


def test_a_job_with_twice_the_weight_has_twice_the_share() -> None:
    found = a_problem([[1.0], [1.0]], capacity=[1], weight=[2.0, 1.0])
    np.testing.assert_allclose(MaxMin().shares(found), [[2 / 3], [1 / 3]], atol=1e-6)


def test_a_gang_of_two_has_half_the_time_of_a_single_device() -> None:
    found = a_problem([[1.0], [1.0]], capacity=[2], devices=[[2.0], [1.0]])
    # x of the gang takes 2x devices, the other one has all it can use.
    np.testing.assert_allclose(MaxMin().shares(found), [[0.5], [1.0]], atol=1e-6)


def test_the_least_share_of_three_is_a_third_though_the_sum_would_be_greater_otherwise() -> None:
    found = a_problem([[1.0]] * 3, capacity=[1])
    np.testing.assert_allclose(MaxMin().shares(found), [[1 / 3]] * 3, atol=1e-6)


def test_levels_divide_evenly_what_those_who_are_kept_down_elsewhere_cannot_use() -> None:
    # Four jobs crowd the first kind; of the three on the second, one level leaves the rest to the sum.
    found = a_problem([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 3, capacity=[1, 2])
    np.testing.assert_allclose(MaxMin(levels=2).shares(found).sum(1), [1 / 4] * 4 + [2 / 3] * 3, atol=1e-5)
    one = MaxMin().shares(found).sum(1)
    assert one.min() == pytest.approx(1 / 4, rel=1e-5)
    assert one[4:].sum() == pytest.approx(2)


def test_the_shortest_makespan_gives_time_in_proportion_to_the_work() -> None:
    found = a_problem([[1.0], [1.0]], capacity=[1], left=[300.0, 100.0])
    np.testing.assert_allclose(Makespan().shares(found), [[0.75], [0.25]], atol=1e-6)


def test_finish_time_fairness_makes_up_for_what_a_job_has_waited() -> None:
    found = a_problem([[1.0], [1.0]], capacity=[1], age_s=[100.0, 0.0])
    late, fresh = FinishTimeFairness().shares(found)[:, 0]
    # rho of both: (100 + 100 / x) / 200 = (100 / (1 - x)) / 200
    assert late + fresh == pytest.approx(1, abs=1e-3)
    assert 100 + 100 / late == pytest.approx(100 / fresh, rel=1e-2)


def test_like_jobs_have_like_shares_under_finish_time_fairness() -> None:
    found = a_problem([[2.0], [2.0]], capacity=[1])
    np.testing.assert_allclose(FinishTimeFairness().shares(found), [[0.5], [0.5]], atol=1e-2)


# -- brute force ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    rate=st.lists(
        st.tuples(st.sampled_from([1.0, 2.0, 5.0]), st.sampled_from([0.0, 1.0, 4.0])), min_size=2, max_size=3
    )
)
def test_no_division_of_time_on_a_grid_has_a_greater_least_share(rate: list[tuple[float, float]]) -> None:
    found = a_problem(rate, capacity=[1, 1])
    best = gains(found, MaxMin().shares(found)).min()
    steps = 5
    rows = [
        (a / steps, b / steps) for a in range(steps + 1) for b in range(steps + 1 - a)
    ]  # what one job may have
    for choice in itertools.product(rows, repeat=len(rate)):
        shares = np.array(choice) * found.can_run
        if (shares.sum(0) <= found.capacity + 1e-9).all():
            assert gains(found, shares).min() <= best + 1e-6


@settings(deadline=None, max_examples=60)
@given(data=st.data(), jobs=st.integers(1, 4), kinds=st.integers(1, 2))
def test_the_matching_has_the_least_sum_of_completion_times(
    data: st.DataObject, jobs: int, kinds: int
) -> None:
    rate = [[data.draw(st.sampled_from([0.5, 1.0, 2.0, 7.0])) for _ in range(kinds)] for _ in range(jobs)]
    left = [data.draw(st.sampled_from([1.0, 10.0, 35.0])) for _ in range(jobs)]
    found = a_problem(rate, capacity=[1.0] * kinds, left=left)
    chosen = AlloX().priorities(found)
    assert ((chosen > 0).sum(1) == 1).all(), "every job has one kind"
    least = min(total_s(found, choice) for choice in itertools.product(range(kinds), repeat=jobs))
    assert total_s(found, tuple(chosen.argmax(1).tolist())) == pytest.approx(least)


def total_s(found: Problem, choice: tuple[int, ...]) -> float:
    """The sum of completion times when every kind is one device that serves its jobs shortest first."""
    total = 0.0
    for kind in range(len(found.kinds)):
        times = sorted(found.left_s()[job, kind] for job in range(len(choice)) if choice[job] == kind)
        total += sum(itertools.accumulate(times))
    return total


@settings(deadline=None, max_examples=60)
@given(data=st.data(), jobs=st.integers(1, 4))
def test_the_shortest_remaining_end_at_the_greatest_rate(data: st.DataObject, jobs: int) -> None:
    rate = [[data.draw(st.sampled_from([0.5, 1.0, 2.0, 7.0])) for _ in range(2)] for _ in range(jobs)]
    left = [data.draw(st.sampled_from([1.0, 10.0, 35.0])) for _ in range(jobs)]
    found = a_problem(rate, capacity=[1.0, 1.0], left=left)
    priorities = ShortestRemaining(emphasis=1.0).priorities(found)
    assert ((priorities > 0).sum(1) <= 1).all()
    assert ((priorities > 0).sum(0) <= 1).all()
    ends = 1 / found.left_s()
    most = max(
        sum(ends[job, kind] for job, kind in enumerate(choice) if kind >= 0)
        for choice in itertools.product((-1, 0, 1), repeat=jobs)
        if choice.count(0) <= 1 and choice.count(1) <= 1
    )
    assert (ends * (priorities > 0)).sum() == pytest.approx(most)


def test_a_move_that_costs_more_than_it_gains_is_not_made() -> None:
    found = a_problem([[1.0, 1.2]], capacity=[1, 1], left=[100.0], on=[0])
    assert ShortestRemaining().priorities(found).argmax() == 1
    assert ShortestRemaining(move_s=60.0).priorities(found).argmax() == 0
    assert AlloX().priorities(found).argmax() == 1
    assert AlloX(move_s=60.0).priorities(found).argmax() == 0


# -- turns ----------------------------------------------------------------------------------------------


def test_who_had_less_than_its_share_goes_first() -> None:
    found = a_problem([[1.0], [1.0]], capacity=[1], held_s=[[900.0], [100.0]], age_s=[1000.0, 1000.0])
    priorities = Turns(MaxMin()).priorities(found)
    assert priorities[1, 0] > priorities[0, 0]
    assert targets(found, priorities, jobs=[0, 1], free=found.capacity).tolist() == [-1, 0]


def test_of_equals_the_one_that_runs_there_stays() -> None:
    found = a_problem([[1.0], [1.0]], capacity=[1], on=[-1, 0])
    assert targets(found, np.ones((2, 1)), jobs=[0, 1], free=found.capacity).tolist() == [-1, 0]


@settings(deadline=None, max_examples=60)
@given(found=problems())
def test_targets_take_no_more_than_there_is_and_leave_no_room_that_somebody_wants(found: Problem) -> None:
    priorities = Turns(MaxMin()).priorities(found)
    target = targets(found, priorities, jobs=range(len(found.jobs)), free=found.capacity)
    used = np.zeros_like(found.capacity)
    for job, kind in enumerate(target.tolist()):
        if kind >= 0:
            used[kind] += found.devices[job, kind]
    assert (used <= found.capacity + 1e-9).all()
    for job in np.flatnonzero(target < 0).tolist():
        for kind in np.flatnonzero(priorities[job] > 0).tolist():
            assert used[kind] + found.devices[job, kind] > found.capacity[kind]


def test_a_turn_asked_for_again_solves_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = a_problem([[1.0], [1.0]], capacity=[1])
    turns = Turns(MaxMin())
    first = turns.priorities(found)
    monkeypatch.setattr("artesian.policy.shares.LinearProgram", None)
    np.testing.assert_array_equal(turns.priorities(found), first)


# -- from a snapshot ------------------------------------------------------------------------------------

V100, K80 = "V100", "K80"
TABLE = Throughputs({("lm", V100, 1.0): 10.0, ("lm", K80, 1.0): 2.0, ("lm", V100, 2.0): 18.0})


def the_problem(snapshot: Snapshot) -> Problem:
    return problem(snapshot, TABLE)[0]


def a_fleet() -> list[Node]:
    return [a_node("v", accelerator=V100, devices=2), a_node("k", accelerator=K80, devices=4)]


def a_known_job(id: str = "j1", **more: object) -> Job:
    given: dict[str, Any] = {"devices": "1", "profile": "lm", "total_steps": 1000.0, **more}
    return a_job(id, **given)


def test_what_is_known_of_a_job_comes_from_the_table() -> None:
    found = the_problem(a_snapshot(a_fleet(), waiting=[a_known_job()]))
    assert (found.kinds, found.capacity.tolist()) == ((V100, K80), [2, 4])
    assert (found.rate.tolist(), found.left.tolist(), found.is_known.tolist()) == ([[10, 2]], [1000], [True])


def test_a_job_that_is_not_known_everywhere_is_as_fast_anywhere() -> None:
    jobs = [
        a_known_job("other", profile="other"),
        a_job("none", devices="1"),
        a_known_job("two", devices="2"),
    ]
    found = the_problem(a_snapshot(a_fleet(), waiting=jobs))
    assert found.is_known.tolist() == [False] * 3, "of two devices the table knows the V100 only"
    assert found.rate.tolist() == [[1, 1]] * 3


def test_a_job_that_names_the_one_kind_that_is_known_is_known() -> None:
    found = the_problem(a_snapshot(a_fleet(), waiting=[a_known_job(devices="V100:2")]))
    assert (found.is_known.tolist(), found.rate.tolist()) == ([True], [[18, 0]])
    assert found.devices.tolist() == [[2, 0]]


def test_time_had_and_steps_done_count_from_all_attempts() -> None:
    snapshot = a_snapshot(a_fleet(), running=[(a_known_job(), a_placement(("k", [0])))], at_s=100.0)
    found = the_problem(snapshot)
    assert found.held_s.tolist() == [[0, 100]]
    assert found.left.tolist() == [800]
    assert found.on.tolist() == [1]


def test_a_job_that_tells_no_length_is_expected_to_last_as_long_again() -> None:
    job = a_known_job(total_steps=None)
    waiting = the_problem(a_snapshot(a_fleet(), waiting=[job]))
    assert waiting.left.tolist() == [LEAST_S * 10]
    running = the_problem(a_snapshot(a_fleet(), running=[(job, a_placement(("v", [0])))], at_s=500.0))
    assert running.left.tolist() == [5000]


def test_a_job_that_no_kind_can_hold_is_not_part_of_the_problem() -> None:
    found, impossible = problem(a_snapshot(a_fleet(), waiting=[a_job("big", devices="5")]), TABLE)
    assert (found.jobs, [job.id for job in impossible]) == ((), ["big"])


def test_priority_doubles_the_weight() -> None:
    jobs = [a_known_job("a"), a_known_job("b", priority=1), a_known_job("c", priority=-1)]
    assert the_problem(a_snapshot(a_fleet(), waiting=jobs)).weight.tolist() == [1, 2, 0.5]


@pytest.mark.parametrize("steps_per_s", [-1.0, math.nan, math.inf])
def test_a_throughput_that_is_none_is_refused(steps_per_s: float) -> None:
    with pytest.raises(ValueError, match="expected at least 0 steps/s"):
        Throughputs({("lm", V100, 1.0): steps_per_s})


# -- the solver -----------------------------------------------------------------------------------------


def test_without_the_solver_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(SolverMissing, match="highspy") as caught:
        MaxMin().shares(a_problem([[1.0]], capacity=[1]))
    assert caught.value.hint is not None
    assert "artesian[solver]" in caught.value.hint


def test_the_solver_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    MaxMin().shares(a_problem([[1.0]], capacity=[1]))
    assert capfd.readouterr() == ("", "")


def test_a_program_without_a_solution_is_an_error() -> None:
    program = solver.LinearProgram(
        gain=np.array([1.0]),
        upper=np.array([1.0]),
        row_lower=np.array([2.0]),
        row_upper=np.array([3.0]),
        row=np.array([0]),
        column=np.array([0]),
        value=np.array([1.0]),
    )
    with pytest.raises(SolverFailed, match="no optimum"):
        program.solve()
