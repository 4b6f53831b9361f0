"""Goodput formulas: published figures, limits, monotonicity, and a simulation that agrees."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.formulas.goodput import (
    best_goodput,
    exact_interval_s,
    expected_ettr,
    goodput,
    mttf_s,
    optimal_interval_s,
    young_interval_s,
)

LLAMA3_PER_NODE_DAY = 419 / 54 / (16_384 / 8)
"""Unexpected interruptions of Llama 3's run per 8-GPU node and day."""

seconds = st.floats(min_value=1e-2, max_value=1e5)
mttfs = st.floats(min_value=1.0, max_value=1e8)


def shares(below: float) -> st.SearchStrategy[float]:
    """Stalls and restarts as a share of the mean time to failure."""
    return st.floats(min_value=1e-9, max_value=below, exclude_max=True)


@pytest.mark.parametrize(
    ("gpus", "restart_s", "stall_s", "percent"),
    [
        (16_384, 60, 1, 98.1),
        (16_384, 10, 0.05, 99.6),
        (100_000, 30, 0.25, 96.8),
        (100_000, 10, 0.05, 98.7),
        (100_000, 2, 0.02, 99.4),
    ],
)
def test_goodput_at_llama_3s_failure_rate(
    gpus: int, restart_s: float, stall_s: float, percent: float
) -> None:
    share = best_goodput(stall_s, restart_s, mttf_s(gpus // 8, LLAMA3_PER_NODE_DAY))
    assert round(100 * share, 1) == percent


def test_100_000_gpus_at_llama_3s_rate_fail_every_half_hour() -> None:
    assert mttf_s(12_500, LLAMA3_PER_NODE_DAY) == pytest.approx(1800, rel=0.02)


def test_goodput_agrees_with_a_simulation() -> None:
    interval, stall, restart, mttf = 120.0, 4.0, 60.0, 1500.0
    rng = random.Random(1)
    clock = progress = 0.0
    failure_in = rng.expovariate(1 / mttf)
    while progress < 20_000 * interval:
        if failure_in >= interval + stall:
            failure_in -= interval + stall
            clock += interval + stall
            progress += interval
        else:
            clock += failure_in + restart
            failure_in = rng.expovariate(1 / mttf)
    assert goodput(interval, stall, restart, mttf) == pytest.approx(progress / clock, rel=0.005)


@given(stall_share=shares(0.49), restart=seconds, mttf=mttfs)
def test_no_interval_beats_the_exact_one(stall_share: float, restart: float, mttf: float) -> None:
    stall = stall_share * mttf
    best = best_goodput(stall, restart, mttf)
    interval = exact_interval_s(stall, mttf)
    for factor in (0.25, 0.8, 0.99, 1.01, 1.25, 4.0):
        assert goodput(interval * factor, stall, restart, mttf) <= best * (1 + 1e-9)


@given(stall_share=shares(1e-3), restart=seconds, mttf=mttfs)
def test_dalys_interval_comes_close_where_stalls_are_short(
    stall_share: float, restart: float, mttf: float
) -> None:
    stall = stall_share * mttf
    daly = goodput(optimal_interval_s(stall, mttf), stall, restart, mttf)
    assert daly == pytest.approx(best_goodput(stall, restart, mttf), rel=1e-3)
    assert optimal_interval_s(stall, mttf) == pytest.approx(exact_interval_s(stall, mttf), rel=0.02)


@given(interval=seconds, stall=seconds, restart=seconds, mttf=mttfs)
def test_goodput_is_a_share_and_only_falls_with_stalls_restarts_and_failures(
    interval: float, stall: float, restart: float, mttf: float
) -> None:
    share = goodput(interval, stall, restart, mttf)
    assert 0 <= share < 1
    assert goodput(interval, stall * 1.5, restart, mttf) <= share
    assert goodput(interval, stall, restart * 1.5, mttf) <= share
    assert goodput(interval, stall, restart, mttf * 1.5) >= share


@given(interval=seconds, stall=seconds)
def test_without_failures_only_the_stall_is_lost(interval: float, stall: float) -> None:
    share = goodput(interval, stall, 60.0, 1e15)
    assert share == pytest.approx(interval / (interval + stall), rel=1e-6)


def test_a_period_that_never_ends_makes_no_progress() -> None:
    assert goodput(1e6, 1.0, 1.0, 1.0) == 0.0


@given(stall_share=shares(1e-4), restart_share=shares(1e-3), mttf=mttfs)
def test_metas_approximation_agrees_where_failures_are_rare(
    stall_share: float, restart_share: float, mttf: float
) -> None:
    stall, restart = stall_share * mttf, restart_share * mttf
    interval = optimal_interval_s(stall, mttf)
    assert expected_ettr(interval, stall, restart, mttf) == pytest.approx(
        goodput(interval, stall, restart, mttf), rel=1e-3
    )


def test_least_waste_of_checkpoints_is_about_the_root_of_two_stalls_per_mttf() -> None:
    assert 1 - best_goodput(1.0, 0.0, 1e6) == pytest.approx(math.sqrt(2 / 1e6), rel=0.01)


def test_young_and_daly_differ_by_the_stall() -> None:
    assert young_interval_s(2.0, 10_000.0) == pytest.approx(200.0)
    assert optimal_interval_s(2.0, 10_000.0) == pytest.approx(198.0)


@pytest.mark.parametrize(("stall_s", "mean_s"), [(0.0, 10.0), (-1.0, 10.0), (5.0, 10.0), (math.nan, 10.0)])
def test_an_interval_needs_a_stall_below_half_the_mttf(stall_s: float, mean_s: float) -> None:
    for interval in (young_interval_s, optimal_interval_s, exact_interval_s):
        with pytest.raises(ValueError, match="stall_s must lie between 0 and"):
            interval(stall_s, mean_s)


@pytest.mark.parametrize(
    ("interval_s", "stall_s", "restart_s", "mean_s"),
    [(0.0, 1.0, 1.0, 1.0), (1.0, -1.0, 1.0, 1.0), (1.0, 1.0, -1.0, 1.0), (1.0, 1.0, 1.0, 0.0)],
)
def test_figures_out_of_range_are_refused(
    interval_s: float, stall_s: float, restart_s: float, mean_s: float
) -> None:
    for share in (goodput, expected_ettr):
        with pytest.raises(ValueError, match="must"):
            share(interval_s, stall_s, restart_s, mean_s)


def test_metas_approximation_says_where_it_ends() -> None:
    with pytest.raises(ValueError, match="the approximation holds while"):
        expected_ettr(interval_s=100.0, stall_s=1.0, restart_s=60.0, mttf_s=100.0)


@pytest.mark.parametrize(("nodes", "rate"), [(0, 1.0), (1, 0.0), (1, -1.0)])
def test_a_mean_time_to_failure_needs_nodes_and_a_rate(nodes: int, rate: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        mttf_s(nodes, rate)
