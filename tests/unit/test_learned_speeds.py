"""Speeds that were measured: which jobs they are taken for, what stays unknown, and that policies gain by them."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.model.fleet import Fleet
from artesian.model.job import Job
from artesian.model.snapshot import Snapshot
from artesian.model.speeds import Speed, Speeds, family_of
from artesian.policy.registry import in_rounds
from artesian.policy.throughput import Known, Throughputs, problem
from artesian.sim import SimJob, simulate
from builders import Kernel, a_job, a_node, a_snapshot, progressed

FAST, SLOW = "V100", "K80"


def measured(*known: tuple[str, str, float, float]) -> Speeds:
    """``measured(("lm", "V100", 1.0, 4.0))``: on one V100, 4 steps per second."""
    return Speeds(
        Speed(family=family, accelerator=name, devices=devices, steps=100.0 * rate, seconds=100.0)
        for family, name, devices, rate in known
    )


def a_mixed_snapshot(*waiting: Job, speeds: Speeds) -> Snapshot:
    fleet = [a_node("f", accelerator=FAST, devices=4), a_node("s", accelerator=SLOW, devices=4)]
    return replace(a_snapshot(fleet, waiting=waiting), speeds=speeds)


def test_what_was_stated_counts_more_than_what_was_measured() -> None:
    known = Known(
        Throughputs({("lm", FAST, 1.0): 4.0}), measured(("lm", FAST, 1.0, 9.0), ("lm", SLOW, 1.0, 1.0))
    )
    job = a_job(devices="1", profile="lm")
    assert known.steps_per_s(job, FAST, 1.0) == 4.0
    assert known.steps_per_s(job, SLOW, 1.0) == 1.0


def test_a_job_is_known_when_each_model_that_it_may_run_on_was_measured() -> None:
    job = a_job(devices="1", profile="lm")
    some, _ = problem(a_mixed_snapshot(job, speeds=measured(("lm", FAST, 1.0, 4.0))), Throughputs())
    assert not some.is_known.any()
    both = measured(("lm", FAST, 1.0, 4.0), ("lm", SLOW, 1.0, 1.0))
    found, _ = problem(a_mixed_snapshot(job, a_job("other", devices="1"), speeds=both), Throughputs())
    assert found.is_known.tolist() == [True, False]
    assert found.rate[0].tolist() == [4.0, 1.0]


def test_a_job_without_a_profile_has_the_speeds_of_its_like() -> None:
    job, like = a_job("a", devices="1", user="ann", name="n"), a_job("b", devices="1", user="ann", name="n")
    speeds = measured((family_of(like), FAST, 1.0, 4.0), (family_of(like), SLOW, 1.0, 2.0))
    found, _ = problem(a_mixed_snapshot(job, speeds=speeds), Throughputs())
    assert found.rate.tolist() == [[4.0, 2.0]]


@given(share=st.sampled_from([0.0, 0.5, 0.9, 1.0]), at=st.sampled_from([1, 2, 4]), devices=st.integers(1, 8))
def test_other_numbers_of_devices_follow_the_curve_from_the_nearest(
    share: float, at: int, devices: int
) -> None:
    known = Known(Throughputs(), measured(("lm", FAST, float(at), 3.0)))
    job = a_job(devices="1..8", profile="lm", parallel_share=share)
    expected = 3.0 * job.speedup(devices) / job.speedup(at)
    assert known.steps_per_s(job, FAST, float(devices)) == pytest.approx(expected)


def test_a_gang_of_one_size_whose_curve_nobody_told_is_not_guessed() -> None:
    known = Known(Throughputs(), measured(("lm", FAST, 1.0, 3.0)))
    assert known.steps_per_s(a_job(devices="8", profile="lm"), FAST, 8.0) is None


def test_why_says_which_speeds_are_missing() -> None:
    policy = in_rounds("max-min", round_s=100.0)
    kernel = Kernel(
        a_node("f", accelerator=FAST, devices=1), a_node("s", accelerator=SLOW, devices=1), policy=policy
    )
    kernel.run(a_job("a", devices="1", profile="lm"), a_job("b", devices="1"))
    kernel.step(progressed("a", at_s=60.0, steps=240.0, steps_s=60.0))
    kernel.submit(a_job("c", devices="1", profile="lm"), at_s=61.0)
    assert "its steps/s are not known yet on K80 (4 on V100)" in kernel.why("c").text


def a_stream(jobs: int) -> list[SimJob]:
    """Jobs of two profiles in turn: ``lm`` is four times as fast on a V100, ``flat`` hardly faster."""
    speeds = {"lm": {FAST: 4.0, SLOW: 1.0}, "flat": {FAST: 1.1, SLOW: 1.0}}
    profiles = ("lm", "flat")
    return [
        SimJob(
            job=a_job(
                f"j{number}",
                devices=f"{FAST}:1 | {SLOW}:1",
                profile=(profile := profiles[number % 2]),
                total_steps=1000.0 * speeds[profile][FAST],
            ),
            submit_s=160.0 * number,
            duration_s=1000.0,
            steps_per_s=speeds[profile],
            checkpoint_every_s=0.0,
        )
        for number in range(jobs)
    ]


def mean_jct_s(jobs: list[SimJob], throughputs: Throughputs, reports_every_s: float | None) -> float:
    fleet = Fleet(nodes=tuple(a_node(f"n{n}", accelerator=(FAST, SLOW)[n % 2], devices=1) for n in range(8)))
    policy = in_rounds("max-min", throughputs, round_s=100.0)
    state = simulate(fleet, jobs, policy, reports_every_s=reports_every_s).state
    state.validate()
    times_s = [record.ended_s - record.submitted_s for record in state.jobs.values() if record.ended_s]
    assert len(times_s) == len(jobs)
    return statistics.fmean(times_s)


def test_who_learns_speeds_comes_close_to_who_was_told_them() -> None:
    jobs = a_stream(60)
    told = {
        (p, name, 1.0): rate
        for p, rates in (("lm", jobs[0].steps_per_s), ("flat", jobs[1].steps_per_s))
        for name, rate in rates.items()
    }
    knows = mean_jct_s(jobs, Throughputs(told), None)
    learns = mean_jct_s(jobs, Throughputs(), 60.0)
    is_blind = mean_jct_s(jobs, Throughputs(), None)
    assert knows < is_blind
    assert learns < knows + 0.5 * (is_blind - knows)
