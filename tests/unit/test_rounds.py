"""Rounds: when who is stopped, what is kept for whom, and that a simulation of it gives what it should."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.kernel.lifecycle import JobState
from artesian.kernel.replay import replay
from artesian.kernel.state import State
from artesian.model.fleet import Fleet, Node
from artesian.model.job import Cause, Job
from artesian.model.plan import HoldCode, Plan
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.policy.base import Policy, Timed
from artesian.policy.place import Pack
from artesian.policy.registry import RANKINGS, in_rounds
from artesian.policy.rounds import Rounds
from artesian.policy.solver import FloatArray
from artesian.policy.throughput import Problem, Throughputs
from artesian.sim import SimJob, SimResult, simulate
from builders import Kernel, a_job, a_node, a_placement, a_snapshot, ended, fifo, retry, ticked
from strategies import snapshots

FAST, SLOW = "V100", "K80"
TABLE = Throughputs(
    {("lm", FAST, 1.0): 4.0, ("lm", SLOW, 1.0): 1.0, ("flat", FAST, 1.0): 1.25, ("flat", SLOW, 1.0): 1.0}
)
ROUND_S = 100.0


@dataclass(frozen=True)
class Fixed:
    """Priorities by job id and kind, so that a test says who goes first where."""

    wanted: Mapping[str, Mapping[str, float]]
    name: str = "decree"

    def priorities(self, problem: Problem) -> FloatArray:
        return np.array(
            [[self.wanted.get(job.id, {}).get(kind, 0.0) for kind in problem.kinds] for job in problem.jobs]
        ).reshape(len(problem.jobs), len(problem.kinds))


def rounds(**wanted: Mapping[str, float]) -> Rounds:
    return Rounds(Fixed(wanted), Pack(), TABLE, ROUND_S)


def a_fleet(fast: int = 1, slow: int = 1) -> list[Node]:
    return [a_node("f", accelerator=FAST, devices=fast), a_node("s", accelerator=SLOW, devices=slow)]


def running(*jobs: tuple[Job, str, list[int]], waiting: list[Job], before_s: float, at_s: float) -> Snapshot:
    fleet = a_fleet(2, 2)
    snapshot = a_snapshot(
        fleet,
        running=[(job, a_placement((node, devices))) for job, node, devices in jobs],
        waiting=waiting,
        at_s=at_s,
    )
    return replace(snapshot, before_s=before_s)


def stopped(plan: Plan) -> list[str]:
    return [stop.job_id for stop in plan.stops]


def started(plan: Plan) -> dict[str, str]:
    return {start.job_id: str(start.placement) for start in plan.starts}


def one(id: str, *, devices: str = "1", **more: object) -> Job:
    return a_job(id, devices=devices, **more)


# -- the end of a round -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before_s", "at_s", "is_over"),
    [
        (99.0, 100.0, True),
        (0.0, 99.9, False),
        (100.0, 100.0, False),
        (100.0, 199.0, False),
        (150.0, 512.0, True),
    ],
)
def test_jobs_are_stopped_only_when_a_round_has_ended_since_the_cycle_before(
    before_s: float, at_s: float, is_over: bool
) -> None:
    policy = rounds(old={SLOW: 1.0, FAST: 1.0}, new={FAST: 9.0})
    busy = [one("x"), one("y"), one("z")]
    snapshot = running(
        (one("old"), "f", [0]),
        (busy[0], "f", [1]),
        (busy[1], "s", [0]),
        (busy[2], "s", [1]),
        waiting=[one("new")],
        before_s=before_s,
        at_s=at_s,
    )
    assert bool(policy.plan(snapshot).stops) == is_over


def test_the_first_cycle_of_all_is_no_end_of_a_round() -> None:
    snapshot = running((one("a"), "f", [0]), waiting=[], before_s=0.0, at_s=500.0)
    assert rounds(a={SLOW: 1.0}).plan(replace(snapshot, before_s=None)).is_empty


@settings(deadline=None)
@given(number=st.integers(0, 10**9), round_s=st.sampled_from([0.1, 0.3, 7.0, 360.0, 1e-3]))
def test_a_wake_is_always_later_and_always_ends_a_round(number: int, round_s: float) -> None:
    policy = Rounds(Fixed({}), Pack(), round_s=round_s)
    snapshot = running((one("a"), "f", [0]), waiting=[], before_s=0.0, at_s=number * round_s)
    wake_s = policy.next_wake_s(snapshot)
    assert wake_s is not None
    assert wake_s > snapshot.at_s
    assert policy._is_round_over(replace(snapshot, before_s=snapshot.at_s, at_s=wake_s))


def test_nobody_is_woken_where_nothing_runs() -> None:
    snapshot = a_snapshot(a_fleet(), waiting=[a_job("big", devices="9")])
    assert rounds().next_wake_s(snapshot) is None


def test_a_policy_without_rounds_is_never_asked() -> None:
    assert isinstance(rounds(), Timed)
    assert not isinstance(fifo(), Timed)


# -- who stays, who goes --------------------------------------------------------------------------------


def test_who_keeps_its_kind_keeps_its_devices() -> None:
    policy = rounds(a={FAST: 2.0}, b={FAST: 1.0}, c={SLOW: 1.0})
    snapshot = running(
        (one("a"), "f", [1]), (one("b"), "f", [0]), (one("c"), "s", [1]), waiting=[], before_s=99, at_s=100
    )
    assert policy.plan(snapshot).is_empty


def test_two_jobs_change_places_when_the_round_is_over() -> None:
    policy = rounds(a={FAST: 2.0}, b={SLOW: 2.0})
    kernel = Kernel(*a_fleet(), policy=rounds(a={SLOW: 2.0}, b={FAST: 2.0}))
    kernel.run(one("a"), one("b"))
    assert str(kernel.job("a").attempt.placement) == "s[0]"
    kernel = Kernel(policy=policy, state=kernel.state)
    assert kernel.scheduler.next_due_s == ROUND_S
    plan = kernel.step(ticked(ROUND_S))
    assert sorted(stopped(plan)) == ["a", "b"]
    assert "it goes on on V100" in next(stop.reason for stop in plan.stops if stop.job_id == "a")
    assert started(kernel.step(ended("a", 1, at_s=101.0))) == {}, "its place is not free yet"
    assert started(kernel.step(ended("b", 1, at_s=102.0))) == {"a": "f[0]", "b": "s[0]"}
    assert kernel.scheduler.next_due_s == 2 * ROUND_S


def test_what_a_stopped_job_gives_back_is_kept_for_whom_it_was_stopped_for() -> None:
    kernel = Kernel(a_node("f", accelerator=FAST, devices=2), policy=rounds(a={FAST: 1.0}, b={FAST: 1.0}))
    kernel.run(one("a"), one("b"))
    kernel = Kernel(
        policy=rounds(a={FAST: 1.0}, b={FAST: 1.0}, gang={FAST: 9.0}, small={FAST: 2.0}), state=kernel.state
    )
    kernel.submit(one("gang", devices="2"), one("small"), at_s=50.0)
    assert sorted(stopped(kernel.step(ticked(100.0)))) == ["a", "b"]
    assert started(kernel.step(ended("a", 1, Cause.SIGNAL, 101.0))) == {}, (
        "one is free, and kept for the gang"
    )
    reason = kernel.scheduler.why("small")
    assert reason is not None
    assert "kept for jobs that go before it" in reason.text
    assert started(kernel.step(ended("b", 1, Cause.SIGNAL, 102.0))) == {"gang": "f[0,1]"}


def test_nobody_is_stopped_for_a_gang_that_finds_no_place_after_all() -> None:
    # Each node has one CPU left: the devices are there, the gang's CPUs are not.
    node = a_node("f", accelerator=FAST, devices=2, cpus=2)
    kernel = Kernel(node, policy=rounds(a={FAST: 1.0}))
    kernel.run(one("a", cpus_per_device=2.0, retry=retry(0, Cause.SIGNAL)))
    kernel = Kernel(policy=rounds(a={FAST: 1.0}, b={FAST: 9.0}), state=kernel.state)
    kernel.submit(one("b", cpus_per_device=1.0), at_s=50.0)
    plan = kernel.step(ticked(100.0))
    assert plan.stops == (), "a does not allow preemption, and there is no CPU beside it"
    assert kernel.is_in("a") is JobState.RUNNING


def test_a_job_that_does_not_allow_preemption_is_never_stopped() -> None:
    kernel = Kernel(a_node("f", accelerator=FAST, devices=1), policy=rounds(a={FAST: 1.0}))
    kernel.run(one("a", retry=retry(0, Cause.SIGNAL)))
    kernel = Kernel(policy=rounds(b={FAST: 9.0}), state=kernel.state)
    kernel.submit(one("b"), at_s=50.0)
    assert stopped(kernel.step(ticked(100.0))) == []


def test_no_device_is_left_idle_that_somebody_can_use() -> None:
    snapshot = a_snapshot(a_fleet(2, 2), waiting=[one(id) for id in "abcd"])
    plan = rounds(a={FAST: 1.0}).plan(snapshot)
    assert len(plan.starts) == 4, "three of them have no priority anywhere"


def test_a_job_of_unknown_speed_says_so_where_it_starts_and_where_it_waits() -> None:
    policy = Rounds(Fixed({"a": {FAST: 1.0}}), Pack(), TABLE)
    snapshot = a_snapshot(
        [a_node("f", accelerator=FAST, devices=1)], waiting=[one("a", profile="lm"), one("b", profile="new")]
    )
    assert "not known" not in policy.plan(snapshot).starts[0].reason
    reason = policy.explain(snapshot, "b")
    assert reason is not None
    assert reason.code is HoldCode.DEVICES_BUSY
    assert "its steps/s are not known" in reason.text
    assert "when the round is over, in 6m" in reason.unblock
    unknown = policy.plan(a_snapshot(a_fleet(), waiting=[one("b", profile="new")]))
    assert "its steps/s are not known" in unknown.starts[0].reason


@pytest.mark.parametrize("round_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_round_takes_some_time(round_s: float) -> None:
    with pytest.raises(ValueError, match="expected a length above 0"):
        Rounds(Fixed({}), Pack(), round_s=round_s)


@settings(deadline=None, max_examples=50)
@given(snapshot=snapshots(), name=st.sampled_from(["max-min", "min-jct"]))
def test_a_plan_at_the_end_of_a_round_is_whole(snapshot: Snapshot, name: str) -> None:
    policy = in_rounds(name)
    ends = replace(snapshot, at_s=720.0, before_s=719.0)
    plan = policy.plan(ends)
    assert plan == policy.plan(ends)
    stopping = {stop.job_id for stop in plan.stops}
    assert all(not ends.running[id].is_stopping for id in stopping)
    capacity = ends.capacity.copy()
    for start in plan.starts:  # on what is free now, whatever will be
        job = ends.waiting[start.job_id].job
        capacity.take(job, start.placement)
        rows = [capacity.row[share.node_id] for share in start.placement.shares]
        assert len(set(capacity.kind[rows].tolist())) == 1, "a gang runs on one model of device"
    assert (capacity.free_cpu_milli >= 0).all()


# -- the state ------------------------------------------------------------------------------------------


def test_the_state_knows_what_a_job_has_had_of_each_model_of_device() -> None:
    kernel = Kernel(*a_fleet(), policy=fifo())
    kernel.run(a_job("a", devices="V100:1 | K80:1", retry=retry(3, Cause.SIGNAL, backoff_s=0.0)))
    kernel.step(ended("a", 1, Cause.SIGNAL, 30.0))
    entry = kernel.state.running["a"]
    assert isinstance(entry, RunningJob)
    assert (entry.served_by_accelerator, entry.served_device_s) == ({FAST: 30.0}, 30.0)
    again = State.from_image(replay(kernel.journal).image())
    again.validate()
    assert again.running["a"].served_by_accelerator == {FAST: 30.0}


# -- simulated ------------------------------------------------------------------------------------------


def a_sim_job(id: str, *, at: float = 0.0, steps: float, profile: str = "lm", **more: object) -> SimJob:
    speeds = {FAST: 4.0, SLOW: 1.0} if profile == "lm" else {FAST: 1.25, SLOW: 1.0}
    return SimJob(
        job=one(id, profile=profile, total_steps=steps),
        submit_s=at,
        duration_s=steps / speeds[FAST],
        steps_per_s=speeds,
        **{"checkpoint_every_s": 0.0, **more},  # type: ignore[arg-type]
    )


def run(policy: Policy, *jobs: SimJob, fast: int = 1, slow: int = 1) -> SimResult:
    result = simulate(Fleet(nodes=tuple(a_fleet(fast, slow))), jobs, policy)
    result.state.validate()
    assert replay(result.records).image() == result.state.image()
    return result


def ends(result: SimResult) -> dict[str, float | None]:
    return {id: record.ended_s for id, record in result.state.jobs.items()}


def test_a_job_takes_as_long_as_its_device_is_fast() -> None:
    assert ends(run(fifo(), a_sim_job("a", steps=400.0), slow=0)) == {"a": 100.0}
    assert ends(run(fifo(), a_sim_job("a", steps=400.0), fast=0)) == {"a": 400.0}


def test_the_job_that_gains_more_gets_the_fast_device_when_it_comes() -> None:
    policy = in_rounds("min-jct", TABLE, round_s=ROUND_S)
    result = run(
        policy, a_sim_job("flat", steps=400.0, profile="flat"), a_sim_job("lm", steps=400.0, at=50.0)
    )
    # At 50 the second one starts on the slow device; at 100 they change places, with 275 and 350 steps to go.
    # The first one is back on the fast device at 200, the end of the round in which the other one ends.
    assert ends(result) == {"flat": 200.0 + 175.0 / 1.25, "lm": 100.0 + 350.0 / 4.0}


def test_fair_shares_of_time_rotate_two_jobs_over_both_devices() -> None:
    policy = in_rounds("max-min-agnostic", TABLE, round_s=ROUND_S)
    result = run(policy, a_sim_job("a", steps=1000.0), a_sim_job("b", steps=1000.0))
    placed = [[attempt.accelerator for attempt in result.state.jobs[id].attempts] for id in ("a", "b")]
    # After 200 s both are quits, and stay for a round.
    assert placed == [[FAST, SLOW, FAST], [SLOW, FAST, SLOW]]
    assert [[attempt.decided_s for attempt in result.state.jobs[id].attempts] for id in ("a", "b")] == [
        [0.0, 100.0, 300.0],
        [0.0, 100.0, 300.0],
    ]
    assert ends(result) == {"a": 400.0, "b": 400.0}


def test_what_is_done_since_the_last_checkpoint_is_done_again() -> None:
    policy = Rounds(Fixed({"short": {FAST: 9.0}, "long": {FAST: 1.0}}), Pack(), TABLE, ROUND_S)
    result = run(
        policy,
        a_sim_job("long", steps=800.0, checkpoint_every_s=30.0, start_up_s=5.0),
        a_sim_job("short", steps=40.0, at=60.0),
        slow=0,
    )
    # 5 to 100 it runs 95 s, of which 90 are kept; the short one takes 10 s; then 5 s and (800 - 360) / 4.
    assert ends(result) == {"long": 110.0 + 5.0 + 110.0, "short": 110.0}


@pytest.mark.parametrize("name", sorted(RANKINGS))
def test_every_ranking_brings_every_job_to_its_end_and_is_simulated_alike_twice(name: str) -> None:
    jobs = [
        a_sim_job(
            f"j{number}",
            steps=300.0 + 137.0 * number,
            at=17.0 * number,
            profile=("lm", "flat", "new")[number % 3],
        )
        for number in range(9)
    ]
    first = run(in_rounds(name, TABLE, round_s=ROUND_S), *jobs, fast=2)
    assert {record.state for record in first.state.jobs.values()} == {JobState.SUCCEEDED}
    assert run(in_rounds(name, TABLE, round_s=ROUND_S), *jobs, fast=2).records == first.records


def test_a_simulation_ends_though_a_job_waits_that_can_never_start() -> None:
    big = SimJob(job=a_job("big", devices="9"), submit_s=0.0, duration_s=1.0)
    result = run(in_rounds("max-min", TABLE), a_sim_job("a", steps=4000.0), big)
    assert result.state.jobs["big"].state is JobState.QUEUED
    assert result.reasons["big"].code is HoldCode.LARGER_THAN_FLEET


def test_a_simulation_until_some_jobs_are_over_leaves_the_others_where_they_are() -> None:
    jobs = [a_sim_job("a", steps=40.0), a_sim_job("b", steps=4000.0), a_sim_job("c", steps=1.0, at=900.0)]
    result = simulate(Fleet(nodes=tuple(a_fleet())), jobs, fifo(), until=["a"])
    assert result.state.at_s == 10.0
    assert {id: record.state for id, record in result.state.jobs.items()} == {
        "a": JobState.SUCCEEDED,
        "b": JobState.RUNNING,
    }


def test_a_job_on_devices_of_which_no_speed_is_told_is_refused() -> None:
    job = replace(a_sim_job("a", steps=1.0), steps_per_s={SLOW: 1.0})
    with pytest.raises(ValueError, match="expected steps per second on V100"):
        run(fifo(), job, slow=0)
