"""The choice of model and number of devices: what is best in small, and what it makes of whole simulations."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.model.fleet import Fleet
from artesian.model.job import Job
from artesian.policy.configurations import Configurations, _options
from artesian.policy.place import Pack
from artesian.policy.registry import in_rounds
from artesian.policy.rounds import Rounds
from artesian.policy.throughput import Problem, Throughputs, problem
from artesian.sim import SimJob, simulate
from builders import Kernel, a_job, a_node, a_snapshot, ended, ticked

FAST, SLOW = "V100", "K80"
TABLE = Throughputs(
    {("lm", FAST, 1.0): 4.0, ("lm", SLOW, 1.0): 1.0, ("flat", FAST, 1.0): 1.1, ("flat", SLOW, 1.0): 1.0}
)
ROUND_S = 100.0


def a_problem(*waiting: Job, fast: int = 4, slow: int = 4, at_s: float = 0.0) -> Problem:
    fleet = [a_node("f", accelerator=FAST, devices=fast), a_node("s", accelerator=SLOW, devices=slow)]
    found, _ = problem(a_snapshot(fleet, waiting=waiting, at_s=at_s), TABLE)
    return found


def elastic(id: str, most: int = 4, profile: str = "lm", **more: object) -> Job:
    return a_job(
        id, devices=f"{FAST}:1..{most} | {SLOW}:1..{most}", profile=profile, parallel_share=0.9, **more
    )


def chosen(found: Problem, ranking: Configurations | None = None) -> dict[str, tuple[str, float]]:
    sizes = (ranking or Configurations()).sizes(found)
    return {
        found.jobs[job].id: (found.kinds[kind], sizes[job, kind])
        for job, kind in zip(*np.nonzero(sizes), strict=True)
    }


# -- the choice -----------------------------------------------------------------------------------------


def test_a_job_alone_has_all_that_it_can_use_where_it_is_fastest() -> None:
    assert chosen(a_problem(elastic("a"))) == {"a": (FAST, 4.0)}


def test_who_gains_most_from_the_fast_model_has_it() -> None:
    found = chosen(a_problem(elastic("flat", profile="flat"), elastic("lm")))
    assert found == {"flat": (SLOW, 4.0), "lm": (FAST, 4.0)}


def test_many_share_what_few_could_have_alone_and_the_more_the_larger_the_bonus() -> None:
    found = a_problem(*(elastic(f"j{n}") for n in range(8)))
    some = chosen(found)
    assert len(some) > 4
    assert max(devices for _, devices in some.values()) <= 2
    assert len(chosen(found, Configurations(bonus=2.0))) == 8


def test_alternatives_of_different_sizes_are_weighed_by_what_they_do() -> None:
    fleet = [
        a_node(f"{name}{n}", accelerator=name, devices=8) for name in ("H100", "A100", "910B") for n in (1, 2)
    ]
    table = Throughputs({("lm", "H100", 8.0): 8.0, ("lm", "A100", 16.0): 10.0, ("lm", "910B", 16.0): 7.0})
    job = a_job(devices="H100:8 | A100:16 | 910B:16", profile="lm")
    found, _ = problem(a_snapshot(fleet, waiting=[job]), table)
    assert chosen(found) == {"j1": ("A100", 16.0)}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, (FAST, 4.0)),  # it has run for long, and loses little
        ({"age_s": np.array([30.0])}, (FAST, 1.0)),  # it has just begun
        ({"begun": np.array([100.0])}, (FAST, 1.0)),  # it was moved again and again
        ({"lost_s": np.array([1e6])}, (FAST, 1.0)),  # it has not saved for long
    ],
)
def test_a_gang_grows_unless_a_restart_costs_too_much(
    more: dict[str, object], expected: tuple[str, float]
) -> None:
    runs = {
        "on": np.array([0]),
        "has": np.array([1.0]),
        "begun": np.array([1.0]),
        "age_s": np.array([9000.0]),
        "held_s": np.array([[9000.0, 0.0]]),
        "lost_s": np.array([10.0]),
    }
    assert chosen(replace(a_problem(elastic("a")), **{**runs, **more})) == {"a": expected}


def test_a_job_of_unknown_speed_goes_by_its_curve() -> None:
    found = a_problem(elastic("a", profile="nobody knows"))
    assert not found.is_known.any()
    assert chosen(found)["a"][1] == 4.0


@settings(max_examples=60, deadline=None)
@given(
    told=st.lists(
        st.tuples(
            st.sampled_from(["lm", "flat", "unknown"]),
            st.sampled_from([1, 2, 3, 4, 8]),
            st.sampled_from([0, 1, 3]),
        ),
        min_size=1,
        max_size=4,
    ),
    fast=st.integers(1, 4),
    slow=st.integers(1, 4),
)
def test_no_choice_is_much_better_and_none_takes_more_than_there_is(
    told: list[tuple[str, int, int]], fast: int, slow: int
) -> None:
    jobs = [
        elastic(f"j{n}", most, profile, priority=priority) for n, (profile, most, priority) in enumerate(told)
    ]
    found = a_problem(*jobs, fast=fast, slow=slow)
    ranking = Configurations()
    sizes, priorities = ranking.sizes(found), ranking.priorities(found)
    assert (sizes.sum(0) <= found.capacity + 1e-9).all()
    assert ((sizes > 0).sum(1) <= 1).all()
    assert ((priorities > 0) == (sizes > 0)).all()
    assert ((sizes == 0) | ((sizes >= found.least) & (sizes <= found.devices))).all()

    options = _options(found)
    worth = ranking._worth(found, options)
    of_job = [[None, *np.flatnonzero(options.job == number).tolist()] for number in range(len(jobs))]
    best = 0.0
    for choice in itertools.product(*of_job):
        columns = [column for column in choice if column is not None]
        used = np.bincount(options.kind[columns], options.count[columns], minlength=2) if columns else 0
        if (used <= found.capacity).all():
            best = max(best, float(worth[columns].sum()))
    # The program splits no more jobs than there are kinds, and those are made whole one by one.
    assert priorities.sum() >= best - 2 * worth.max() - 1e-9


# -- in rounds ------------------------------------------------------------------------------------------


def kernel(fast: int = 4) -> Kernel:
    policy = Rounds(Configurations(), Pack(), TABLE, ROUND_S)
    return Kernel(a_node("f", accelerator=FAST, devices=fast), policy=policy)


def only_fast(id: str) -> Job:
    return a_job(id, devices=f"{FAST}:1..4", profile="lm", parallel_share=0.9, checkpoint_every_s=1.0)


def test_a_gang_gives_back_what_another_makes_more_of_when_the_round_is_over() -> None:
    k = kernel()
    k.run(only_fast("a"))
    assert k.job("a").attempt.placement.devices == 4
    k.step(ticked(5000.0))
    assert k.submit(only_fast("b"), at_s=5010.0).commands == ()
    plan = k.step(ticked(5100.0))
    assert [stop.job_id for stop in plan.stops] == ["a"]
    assert "it goes on on 2 V100" in plan.stops[0].reason
    plan = k.step(ended("a", at_s=5101.0))
    assert {start.job_id: start.placement.devices for start in plan.starts} == {"a": 2, "b": 2}


def test_a_gang_grows_into_what_is_free_when_the_round_is_over() -> None:
    k = kernel()
    k.run(only_fast("a"), only_fast("b"))
    assert {id: k.job(id).attempt.placement.devices for id in ("a", "b")} == {"a": 2, "b": 2}
    k.step(ticked(5000.0))
    assert k.step(ended("b", at_s=5050.0)).stops == ()
    plan = k.step(ticked(5100.0))
    assert [stop.job_id for stop in plan.stops] == ["a"]
    plan = k.step(ended("a", at_s=5101.0))
    assert [start.placement.devices for start in plan.starts] == [4]


def test_nobody_is_moved_while_nothing_changes() -> None:
    k = kernel()
    k.run(only_fast("a"), only_fast("b"))
    assert all(k.step(ticked(ROUND_S * number)).is_empty for number in range(1, 80))


def test_why_tells_by_what_it_waits() -> None:
    k = kernel(fast=1)
    k.run(only_fast("a"))
    k.submit(only_fast("b"), at_s=1.0)
    assert "by goodput of the fleet others go before it" in k.why("b").text


def a_stream(jobs: int, gap_s: float) -> list[SimJob]:
    speeds = {"lm": {FAST: 4.0, SLOW: 1.0}, "flat": {FAST: 1.1, SLOW: 1.0}}
    made = []
    for number in range(jobs):
        profile = ("lm", "flat")[number % 2]
        job = elastic(f"j{number}", 4, profile, total_steps=2000.0)
        made.append(
            SimJob(
                job=job,
                submit_s=gap_s * number,
                duration_s=2000.0 / speeds[profile][FAST] / job.speedup(4),
                steps_per_s={name: rate * job.speedup(4) for name, rate in speeds[profile].items()},
                checkpoint_every_s=30.0,
                start_up_s=20.0,
            )
        )
    return made


def mean_jct_s(name: str, jobs: list[SimJob]) -> float:
    nodes = tuple(a_node(f"n{n}", accelerator=(FAST, SLOW)[n % 2], devices=4) for n in range(4))
    policy = in_rounds(
        name, Throughputs({(p, a, c): r for (p, a, c), r in TABLE.table.items()}), round_s=ROUND_S
    )
    state = simulate(Fleet(nodes=nodes), jobs, policy).state
    state.validate()
    return float(np.mean([r.ended_s - r.submitted_s for r in state.jobs.values() if r.ended_s is not None]))


def test_it_is_quicker_than_giving_each_gang_all_that_it_may_have() -> None:
    jobs = a_stream(40, gap_s=90.0)
    assert mean_jct_s("max-goodput", jobs) < mean_jct_s("max-min", jobs)


def test_a_gang_that_wants_the_whole_fleet_gets_its_turn_although_others_come_all_the_time() -> None:
    small = [
        SimJob(
            job=a_job(f"s{n}", devices=f"{FAST}:1", profile="lm", total_steps=800.0),
            submit_s=45.0 * n,
            duration_s=200.0,
            steps_per_s={FAST: 4.0},
            checkpoint_every_s=0.0,
        )
        for n in range(300)
    ]
    whole = SimJob(
        job=a_job("whole", devices=f"{FAST}:4", profile="lm", parallel_share=1.0, total_steps=1600.0),
        submit_s=100.0,
        duration_s=100.0,
        steps_per_s={FAST: 16.0},
        checkpoint_every_s=0.0,
    )
    policy = Rounds(Configurations(), Pack(), TABLE, ROUND_S)
    fleet = Fleet(nodes=(a_node("f", accelerator=FAST, devices=4),))
    state = simulate(fleet, [*small, whole], policy).state
    record = state.jobs["whole"]
    assert record.ended_s is not None
    last_s = max(state.jobs[entry.job.id].ended_s or 0.0 for entry in small)
    assert record.ended_s < 0.75 * last_s, "before the stream of the others has run dry"
