"""The Monte Carlo of goodput: it agrees with the closed form, and knows what spares are for."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.formulas.goodput import exact_interval_s, goodput, mttf_s, replaced_share, spares_needed
from artesian.sim.goodput import simulate_goodput

PLENTY = 4.5
"""Standard errors: one deviation in 150,000 is as large."""


@pytest.mark.parametrize(
    ("interval", "stall", "restart", "mttf"),
    [
        (74.5, 0.25, 10.0, 11_100.0),
        (120.0, 4.0, 60.0, 1500.0),
        (30.0, 5.0, 100.0, 60.0),
        (9.0, 1.0, 0.0, 5.0),
    ],
)
def test_it_agrees_with_the_closed_form_within_its_error(
    interval: float, stall: float, restart: float, mttf: float
) -> None:
    found = simulate_goodput(
        interval_s=interval, stall_s=stall, restart_s=restart, mttf_s=mttf, failures_per_run=300, seed=7
    )
    assert found.standard_error is not None
    assert found.goodput != goodput(interval, stall, restart, mttf)
    difference = abs(found.goodput - goodput(interval, stall, restart, mttf))
    assert difference < PLENTY * found.standard_error
    assert found.standard_error < 0.01


@settings(max_examples=25, deadline=None)
@given(
    mttf=st.floats(min_value=50.0, max_value=1e6),
    stall_share=st.floats(min_value=1e-6, max_value=0.1),
    restart_share=st.floats(min_value=0.0, max_value=1.0),
    seed=st.integers(min_value=0, max_value=2**32),
)
def test_it_agrees_at_the_best_interval_of_any_job(
    mttf: float, stall_share: float, restart_share: float, seed: int
) -> None:
    stall, restart = stall_share * mttf, restart_share * mttf
    interval = exact_interval_s(stall, mttf)
    found = simulate_goodput(
        interval_s=interval, stall_s=stall, restart_s=restart, mttf_s=mttf, failures_per_run=80, seed=seed
    )
    assert found.standard_error is not None
    # Two in 10^8 examples are off by so much.
    assert abs(found.goodput - goodput(interval, stall, restart, mttf)) < 5.6 * found.standard_error


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    def run(seed: int) -> float:
        return simulate_goodput(
            interval_s=10, stall_s=1, restart_s=5, mttf_s=100, failures_per_run=20, runs=8, seed=seed
        ).goodput

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_a_single_run_has_no_error_to_tell() -> None:
    found = simulate_goodput(
        interval_s=10, stall_s=1, restart_s=5, mttf_s=100, failures_per_run=20, runs=1, seed=1
    )
    assert found.standard_error is None
    assert (found.replaced_share, found.waited_s) == (None, None)


def test_the_spares_that_the_formula_asks_for_replace_nearly_all_failed_nodes_at_once() -> None:
    needed = spares_needed(1 / 1800, 14_400, 0.99)
    found = simulate_goodput(
        interval_s=60, stall_s=0.25, restart_s=10, mttf_s=1800, failures_per_run=400, spares=needed,
        repair_s=14_400, seed=3,
    )  # fmt: skip
    assert found.replaced_share is not None
    assert found.replaced_share > 0.988
    few = simulate_goodput(
        interval_s=60, stall_s=0.25, restart_s=10, mttf_s=1800, failures_per_run=400, spares=needed - 4,
        repair_s=14_400, seed=3,
    )  # fmt: skip
    assert few.replaced_share is not None
    assert few.replaced_share < 0.97
    assert few.goodput < found.goodput


def test_without_a_spare_every_failure_waits_for_a_whole_repair() -> None:
    found = simulate_goodput(
        interval_s=10, stall_s=1, restart_s=0, mttf_s=100, failures_per_run=10, runs=4, spares=0, repair_s=50
    )
    assert found.replaced_share == 0.0
    assert found.waited_s == pytest.approx(50)


def test_spares_that_never_run_out_are_the_same_as_very_many() -> None:
    base = {"interval_s": 10.0, "stall_s": 1.0, "restart_s": 5.0, "mttf_s": 100.0}
    endless = simulate_goodput(**base, failures_per_run=50, runs=4)  # type: ignore[arg-type]
    many = simulate_goodput(**base, failures_per_run=50, runs=4, spares=50, repair_s=1e9)  # type: ignore[arg-type]
    assert many.replaced_share == 1.0
    assert replace(many, replaced_share=None, waited_s=None) == endless


@given(
    mean=st.floats(min_value=1e-3, max_value=3000.0),
    share=st.floats(min_value=0.0, max_value=0.999999),
)
def test_the_fewest_spares_reach_the_share_and_one_fewer_does_not(mean: float, share: float) -> None:
    needed = spares_needed(mean, 1.0, share)
    assert replaced_share(needed, mean, 1.0) >= share
    assert needed == 0 or replaced_share(needed - 1, mean, 1.0) < share


@given(
    spares=st.integers(min_value=0, max_value=200),
    rate=st.floats(min_value=1e-6, max_value=1.0),
    repair=st.floats(min_value=0.0, max_value=100.0),
)
def test_more_spares_help_and_more_failures_or_longer_repairs_hurt(
    spares: int, rate: float, repair: float
) -> None:
    share = replaced_share(spares, rate, repair)
    assert 0.0 <= share <= 1.0
    assert replaced_share(spares + 1, rate, repair) >= share
    assert replaced_share(spares, rate * 1.5, repair) <= share + 1e-12
    assert replaced_share(spares, rate, repair * 1.5) <= share + 1e-12


def test_spares_follow_the_poisson_table() -> None:
    # One node under repair on average: P(0) = 1/e, P(<= 1) = 2/e, P(<= 2) = 2.5/e.
    assert [replaced_share(spares, 0.1, 10.0) for spares in range(4)] == pytest.approx(
        [0.0, 1 / math.e, 2 / math.e, 2.5 / math.e]
    )
    assert spares_needed(1 / mttf_s(12_500, 3.8e-3), 4 * 3600, 0.99) == 16  # 7.9 under repair on average


@pytest.mark.parametrize("name", ["interval_s", "mttf_s", "failures_per_run", "runs"])
def test_what_must_be_positive_is_checked(name: str) -> None:
    good = {"interval_s": 1, "stall_s": 1, "restart_s": 1, "mttf_s": 1, "failures_per_run": 1, "runs": 1}
    with pytest.raises(ValueError, match=name):
        simulate_goodput(**{**good, name: 0})


@pytest.mark.parametrize(
    ("spares", "rate", "repair"), [(-1, 1.0, 1.0), (1, 0.0, 1.0), (1, 1.0, -1.0), (1, math.nan, 1.0)]
)
def test_spares_need_figures_in_range(spares: int, rate: float, repair: float) -> None:
    with pytest.raises(ValueError, match="must"):
        replaced_share(spares, rate, repair)


def test_no_number_of_spares_makes_it_certain() -> None:
    with pytest.raises(ValueError, match="share must be at least 0 and below 1, got 1"):
        spares_needed(1.0, 1.0, 1.0)
