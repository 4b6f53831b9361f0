"""Fragments, prices and worth: what a placement thinks of what is left."""

import math
from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.model.capacity import Capacity
from artesian.model.job import Job
from artesian.policy.fragmentation import Gradient, _Classes
from artesian.policy.learning import Learning
from artesian.policy.mix import Mix
from artesian.policy.scored import Scored
from artesian.policy.worth import Demand, LeastWaste, prices, worth_milli
from builders import a_job, a_node, a_placement, nodes

OPENB_LIKE = {810: 1078, 470: 750, 320: 328, 650: 253, 230: 140, 460: 128, 590: 75, 160: 74}

# -- the mix ---------------------------------------------------------------------------------------------


def test_a_mix_keeps_the_most_frequent_classes_that_cover_enough() -> None:
    mix = Mix.of([*some(6, 0.5), *some(3, 1), *some(1, 8)], covered=0.9)
    assert [(found.devices, found.milli) for found in mix.classes] == [(1, 500), (1, 1000)]
    assert mix.count == (6, 3)


def test_a_mix_is_learnt_from_what_runs_in_powers_of_two() -> None:
    capacity = Capacity(nodes(2, devices=8))
    for number, job in enumerate(some(5, 1)):
        capacity.take(job, a_placement(("n1", [number])))
    capacity.take(a_job(devices=0.5), a_placement(("n2", [0]), milli=500))
    mix = Mix.of_what_runs(capacity)
    assert [(found.milli, count) for found, count in zip(mix.classes, mix.count, strict=True)] == [
        (1000, 4),
        (500, 1),
    ]


def test_the_mix_counts_as_changed_only_when_a_count_passes_a_power_of_two() -> None:
    capacity = Capacity([a_node(devices=8)])
    seen = []
    for device in range(8):
        capacity.take(a_job(), a_placement(("n1", [device])))
        seen.append(capacity.mix_changes)
    assert seen == [1, 2, 2, 3, 3, 3, 3, 4]


# -- fragments -------------------------------------------------------------------------------------------


def test_a_fragment_is_what_a_class_cannot_use() -> None:
    capacity = Capacity([a_node(devices=2, cpus=10)])
    capacity.take(a_job(devices=0.6), a_placement(("n1", [0]), milli=600))
    # 400 and 1000 are free: no use for 0.5 is the 400; for 2 devices, and for 20 CPUs, all of it.
    assert fragment(capacity, a_job(devices=0.5)) == 400
    assert fragment(capacity, a_job(devices=0.3)) == 0
    assert fragment(capacity, a_job(devices=2)) == 1400
    assert fragment(capacity, a_job(devices=0.3, cpus_per_device=20)) == 1400
    assert fragment(capacity, a_job(devices="H100:1")) == 1400
    assert fragment(capacity, a_job(devices="host", cpus_per_device=1)) == 1400
    assert fragment(capacity, a_job(devices=0.5), a_job(devices=2)) == 900


def test_the_gradient_puts_a_share_where_it_leaves_no_new_fragment() -> None:
    capacity = Capacity(nodes(2, devices=2))
    capacity.take(a_job(devices=0.5), a_placement(("n2", [1]), milli=500))
    place = Scored(Gradient(Mix.of([*some(5, 1), *some(5, 0.5)])))
    assert str(place.place(a_job(devices=0.5), capacity, capacity.is_up)) == "n2[1]"


def test_a_mix_of_nothing_scores_all_alike() -> None:
    capacity = Capacity(nodes(2, devices=2))
    for scorer in (Gradient, LeastWaste):
        place = Scored(scorer(Mix.of([])))
        assert str(place.place(a_job(devices=1), capacity, capacity.is_up)) == "n1[0]"


# -- prices and worth ------------------------------------------------------------------------------------


def test_a_size_costs_the_part_of_a_device_that_it_takes_in_the_best_packing() -> None:
    assert prices({500: 10}) == pytest.approx({500: 1 / 2})
    assert prices({810: 10}) == pytest.approx({810: 1.0})
    assert prices({}) == {}
    # As many as there are of 650 find room beside 320, and three of 320 fill a device.
    assert prices({650: 5, 320: 50}) == pytest.approx({650: 2 / 3, 320: 1 / 3})
    # Nothing is left of a device with 810 on it but for 160; of these there are too few to cost anything.
    found = prices({810: 10, 160: 2})
    assert found[810] == pytest.approx(1)
    assert found[160] == pytest.approx(0)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(range(100, 1000, 10)), st.integers(1, 40), min_size=1, max_size=8))
def test_no_combination_that_fits_a_device_costs_more_than_one(sizes: dict[int, int]) -> None:
    found = prices(sizes)
    assert set(found) == set(sizes)
    assert all(price >= 0 for price in found.values())
    for many in (1, 2, 3):
        for pattern in combinations_with_replacement(sorted(sizes), many):
            if sum(pattern) <= 1000:
                assert sum(found[size] for size in pattern) <= 1 + 1e-6


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(range(100, 1000, 10)), st.integers(1, 40), min_size=1, max_size=8))
def test_the_prices_of_all_jobs_are_a_bound_on_the_devices_that_they_need(sizes: dict[int, int]) -> None:
    found = prices(sizes)
    bound = sum(found[size] * count for size, count in sizes.items())
    assert bound <= first_fit_decreasing(sizes) + 1e-6
    assert bound >= sum(size * count for size, count in sizes.items()) / 1000 - 1e-6


def test_what_is_left_is_worth_the_best_that_goes_into_it() -> None:
    worth = worth_milli(prices(OPENB_LIKE))
    assert worth[190] == pytest.approx(0)  # beside 810: there are too few of 160 to count on
    assert worth[530] == pytest.approx(500)  # beside 470, for another
    assert worth[350] == worth[320] == pytest.approx(1000 / 3)  # beside 650, for 320
    assert worth[1000] == 1000
    assert (np.diff(worth) >= 0).all()


def test_sizes_beyond_the_most_frequent_cost_what_they_take() -> None:
    sizes = {500 + step: 100 for step in range(32)} | {999: 1}
    assert prices(sizes)[999] == 0.999


def test_devices_are_stranded_where_the_cpus_run_out() -> None:
    demand = Demand.of(Mix.of([*some(1, 1, cpus=8), *some(1, 1, cpus=12)]))
    assert (demand.cpu_milli, demand.cpu_milli_spread) == (10_000, 2_000)
    free = np.array([[1000, 1000, 1000, 1000]] * 4)
    waste = demand.waste_milli(free, np.array([0, 20_000, 40_000, 200_000]))
    assert waste[0] == pytest.approx(4000)
    assert waste[1] == pytest.approx(2000)  # ten deviations away: two devices are left without CPUs
    assert waste[2] == pytest.approx(1000 * math.sqrt(4) * 2 * 0.5 / 10 / math.sqrt(2 * math.pi))
    assert waste[3] == pytest.approx(0)


@given(free=st.lists(st.integers(0, 1000), min_size=1, max_size=8), cpu_milli=st.integers(0, 128_000))
def test_less_cpu_never_makes_less_waste_and_all_is_wasted_at_most(free: list[int], cpu_milli: int) -> None:
    demand = Demand.of(Mix.of([*some(3, 1, cpus=11), *some(4, 0.81, cpus=3), *some(2, 0.32, cpus=4)]))
    left = np.array([free, free, free])
    none, some_waste, less = demand.waste_milli(left, np.array([0, cpu_milli, cpu_milli + 1000])).tolist()
    assert sum(free) + 1e-6 >= none >= some_waste - 1e-6 >= less - 2e-6


def test_least_waste_opens_a_device_rather_than_break_a_pair() -> None:
    # 530 is left beside 470 for another 470; 320 there would leave 210, which is good for nothing.
    capacity = Capacity(nodes(1, devices=2))
    capacity.take(a_job(devices=0.47), a_placement(("n1", [0]), milli=470))
    mix = Mix.of(
        [job for size, count in OPENB_LIKE.items() for job in some(count, size / 1000, prefix=f"s{size}-")]
    )
    assert str(Scored(LeastWaste(mix)).place(a_job(devices=0.32), capacity, capacity.is_up)) == "n1[1]"
    assert str(Scored(LeastWaste(mix)).place(a_job(devices=0.47), capacity, capacity.is_up)) == "n1[0]"


def test_least_waste_keeps_cpus_where_devices_are_left_to_need_them() -> None:
    capacity = Capacity([a_node("poor", devices=8, cpus=96), a_node("rich", devices=2, cpus=104)])
    mix = Mix.of(some(1, 1, cpus=11))
    job = a_job("host", devices="host", cpus_per_device=32)
    assert str(Scored(LeastWaste(mix)).place(job, capacity, capacity.is_up)) == "rich[]"
    assert str(Scored(Gradient(mix)).place(job, capacity, capacity.is_up)) == "poor[]"


def test_a_learning_placement_is_a_told_one_once_it_has_seen_the_mix() -> None:
    capacity = Capacity(nodes(4, devices=8, cpus=96))
    seen = [*some(4, 0.47, prefix="a"), *some(2, 0.65, prefix="b")]
    for number, job in enumerate(seen):
        milli = job.devices[0].max_milli
        capacity.take(job, a_placement(("n1", [number]), milli=milli))
    told, learning = Scored(LeastWaste(Mix.of(seen))), Learning(LeastWaste)
    for size in (0.32, 0.47, 1, 8):
        job = a_job("new", devices=size)
        found = learning.place(job, capacity, capacity.is_up)
        assert found == told.place(job, capacity, capacity.is_up)
        assert found is not None


# -- helpers ---------------------------------------------------------------------------------------------


def some(count: int, devices: float, *, cpus: float | None = None, prefix: str = "j") -> list[Job]:
    return [a_job(f"{prefix}{number}", devices=devices, cpus_per_device=cpus) for number in range(count)]


def fragment(capacity: Capacity, *seen: Job) -> float:
    classes = _Classes.of(Mix.of(seen), capacity)
    free = np.maximum(capacity.free_milli, 0).astype(np.int64)
    found = classes.fragment_milli(np.arange(len(free)), free, capacity.free_cpu_milli)
    return float(found[0])


def first_fit_decreasing(sizes: dict[int, int]) -> int:
    left: list[int] = []
    for size in sorted(sizes, reverse=True):
        for _ in range(sizes[size]):
            for number, room in enumerate(left):
                if room >= size:
                    left[number] -= size
                    break
            else:
                left.append(1000 - size)
    return len(left)
