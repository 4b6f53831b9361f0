"""Made-up traces: the same seed, the same trace; and the statistics of what they are like."""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.kernel.lifecycle import JobState
from artesian.sim import report
from artesian.sim.traces import Trace, load_of, philly, profiles, synthetic
from simulations import run
from trace_files import real

MAKERS: dict[str, Callable[[int, int], Trace]] = {
    "philly": lambda seed, jobs: synthetic.philly_like(seed, jobs, 0.9, 256),
    "openb": lambda seed, jobs: synthetic.openb_like(seed, jobs, 0.9, 512),
    "gavel": lambda seed, jobs: synthetic.gavel_like(seed, jobs, 4.0),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_seed_gives_one_trace_and_another_seed_another(name: str) -> None:
    assert MAKERS[name](7, 200) == MAKERS[name](7, 200)
    assert MAKERS[name](7, 200).jobs != MAKERS[name](8, 200).jobs


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), jobs=st.integers(1, 300))
def test_every_job_fits_its_fleet_and_comes_after_the_one_before(name: str, seed: int, jobs: int) -> None:
    trace = MAKERS[name](seed, jobs)
    assert trace.fleet is not None
    assert len(trace.jobs) == len({job.job.id for job in trace.jobs}) == jobs
    times = [job.submit_s for job in trace.jobs]
    assert times == sorted(times)
    assert times[0] == 0
    assert trace.on(trace.fleet).skipped == ()


@pytest.mark.parametrize("name", MAKERS)
def test_a_made_up_trace_runs_to_its_end(name: str) -> None:
    trace = MAKERS[name](3, 40)
    assert trace.fleet is not None
    result = report(run(trace.fleet, *trace.jobs))
    assert {job.state for job in result.jobs} == {JobState.SUCCEEDED}


def durations_s(trace: Trace, least: int = 1, most: int = 10**6) -> list[float]:
    return [job.duration_s for job in trace.jobs if least <= job.job.devices[0].min_devices <= most]


def mean_of(parts: profiles.LogNormals) -> float:
    return sum(share * math.exp(mean + sigma**2 / 2) for share, mean, sigma in parts) / sum(
        share for share, _, _ in parts
    )


def test_a_trace_like_philly_has_the_load_that_was_asked_for() -> None:
    trace = synthetic.philly_like(1, 2_000, 0.8, 256)
    assert trace.fleet is not None
    assert trace.fleet.devices == 256
    assert load_of(trace.jobs, trace.fleet) == pytest.approx(0.8, rel=1e-6)


def test_a_trace_like_philly_has_its_gangs_teams_durations_and_rhythm() -> None:
    count = 40_000
    trace = synthetic.philly_like(3, count, 0.9, 416)
    gangs = Counter(job.job.devices[0].min_devices for job in trace.jobs)
    for gang, share in profiles.PHILLY_GANGS.items():
        assert gangs[gang] / count == pytest.approx(share, abs=4 * math.sqrt(share / count)), gang
    teams = Counter(job.job.team for job in trace.jobs)
    assert teams["team-0"] / count == pytest.approx(profiles.PHILLY_TEAMS[0], abs=0.01)
    assert np.median(durations_s(trace, 1, 1)) == pytest.approx(1117, rel=0.1)
    assert np.mean(durations_s(trace, 1, 1)) == pytest.approx(mean_of(profiles.PHILLY_DURATIONS[1]), rel=0.1)
    assert np.median(durations_s(trace, 8)) == pytest.approx(23_650, rel=0.3)
    assert max(durations_s(trace)) <= profiles.PHILLY_LONGEST_S
    times = np.array([job.submit_s for job in trace.jobs])
    gaps = np.diff(times)
    assert gaps.var() / gaps.mean() ** 2 > 3  # bursts: Poisson arrivals have 1


def test_more_jobs_come_at_the_busy_hours_and_days() -> None:
    random = np.random.default_rng(5)
    even = synthetic.Rhythm(
        hours=profiles.PHILLY_HOURS, weekdays=profiles.PHILLY_WEEKDAYS, gaps=((1.0, 1.0),)
    )
    times = even.arrivals_s(random, 100_000, 70 * 86400.0)
    hours = np.bincount((times // 3600 % 24).astype(int), minlength=24) / (len(times) / 24)
    days = np.bincount((times // 86400 % 7).astype(int), minlength=7) / (len(times) / 7)
    np.testing.assert_allclose(hours, profiles.PHILLY_HOURS, atol=0.08)
    np.testing.assert_allclose(days, profiles.PHILLY_WEEKDAYS, atol=0.05)


def test_a_trace_like_openb_has_its_shares_hosts_and_nodes() -> None:
    count = 20_000
    trace = synthetic.openb_like(2, count, 1.0, 6_212)
    assert trace.fleet is not None
    assert trace.fleet.devices == pytest.approx(6_212, rel=0.01)
    assert load_of(trace.jobs, trace.fleet) == pytest.approx(1.0, rel=1e-6)
    total = sum(profiles.OPENB_MILLI.values())
    milli = Counter(job.job.devices[0].min_milli for job in trace.jobs)
    for asked, share in profiles.OPENB_MILLI.items():
        assert milli[asked] / count == pytest.approx(share / total, abs=4 * math.sqrt(share / count)), asked
    assert {job.job.cpus_per_device for job in trace.jobs if job.job.devices[0].is_fraction} == {4}
    models = Counter(node.accelerator for node in trace.fleet.nodes)
    assert models["G2"] / len(trace.fleet.nodes) == pytest.approx(0.4526, abs=0.01)


def test_a_trace_like_gavels_has_its_durations_and_speeds() -> None:
    trace = synthetic.gavel_like(4, 20_000, 4.0, types=2_000)
    durations = np.array(durations_s(trace))
    assert (durations < 60 * 1000).mean() == pytest.approx(0.8, abs=0.02)
    assert durations.min() >= 60 * 10**1.5
    assert durations.max() <= 60 * 10**4
    assert trace.jobs[-1].submit_s / 20_000 == pytest.approx(900, rel=0.03)
    speeds = {job.job.profile: job.steps_per_s for job in trace.jobs}
    ratios = np.log([rates["V100"] / rates["K80"] for rates in speeds.values()])
    assert ratios.mean() == pytest.approx(profiles.GAVEL_SPEEDUP_OVER_K80[0], abs=0.1)
    assert ratios.std() == pytest.approx(profiles.GAVEL_SPEEDUP_OVER_K80[1], rel=0.1)
    first = trace.jobs[0]
    assert first.job.total_steps == pytest.approx(first.duration_s * first.steps_per_s["V100"])


@pytest.mark.parametrize(
    ("jobs", "load", "devices"),
    [(0, 0.9, 64), (10, 0.0, 64), (10, float("nan"), 64), (10, 1e-12, 64), (10, 0.9, 0)],
)
def test_numbers_that_make_no_trace_are_refused(jobs: int, load: float, devices: int) -> None:
    for make in (synthetic.philly_like, synthetic.openb_like):
        with pytest.raises(ValueError, match=r"^trace: expected"):
            make(1, jobs, load, devices)


def test_nodes_are_whole() -> None:
    with pytest.raises(ValueError, match="whole nodes of 8 devices, got 60"):
        synthetic.philly_like(1, 10, 0.9, 60)
    with pytest.raises(ValueError, match="at least 64 devices"):
        synthetic.openb_like(1, 10, 0.9, 60)


def test_the_parameters_are_those_of_the_real_philly() -> None:
    trace = philly.read(real("philly/philly.csv"))
    made = synthetic.philly_like(1, len(trace.jobs), 0.9, 416)
    for least, most in ((1, 1), (2, 7), (8, 10**6)):
        logs, like = (np.log(durations_s(entry, least, most)) for entry in (trace, made))
        assert like.mean() == pytest.approx(logs.mean(), abs=0.15)
        assert like.std() == pytest.approx(logs.std(), rel=0.05)
        assert np.quantile(like, 0.9) == pytest.approx(np.quantile(logs, 0.9), abs=0.15)
