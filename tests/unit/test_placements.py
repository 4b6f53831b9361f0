"""Placements that score nodes: what each prefers, and that scores kept from before are never stale."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.model.capacity import Capacity
from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.resources import MILLI, DeviceRequest, parse_devices
from artesian.policy.base import Place
from artesian.policy.registry import PLACES
from artesian.policy.scored import (
    Fit,
    Rows,
    Score,
    Scored,
    Wish,
    best_fit,
    clustering,
    dot_product,
    packing,
    spread,
)
from builders import GIB, a_job, a_node, a_placement, nodes
from strategies import fleets, jobs

HOST = DeviceRequest(min_milli=0, max_milli=0)


@pytest.fixture(params=sorted(PLACES))
def place(request: pytest.FixtureRequest) -> Place:
    """Each placement in turn."""
    return PLACES[request.param]()


# -- what the scores prefer ----------------------------------------------------------------------------


def test_best_fit_prefers_what_is_left_with_least() -> None:
    capacity = Capacity([a_node("wide", devices=8, cpus=64), a_node("narrow", devices=2, cpus=64)])
    # Half of 48/128 for the CPUs that are left on both, and half of 7/8 or of 1/8 for the devices.
    assert scores(best_fit, capacity, 1, cpus=16) == [37, 75]
    assert where(best_fit, capacity, a_job(devices=1, cpus_per_device=16)) == "narrow[0]"


def test_dot_product_prefers_what_has_least_of_what_is_asked_for() -> None:
    capacity = Capacity([a_node("cpus", devices=4, cpus=128), a_node("devices", devices=8, cpus=32)])
    assert where(dot_product, capacity, a_job(devices=1, cpus_per_device=24)) == "devices[0]"
    assert where(dot_product, capacity, a_job(devices=4, cpus_per_device=0.1)) == "cpus[0,1,2,3]"


def test_packing_prefers_a_device_in_use_then_a_node_in_use_then_a_small_node() -> None:
    capacity = Capacity([a_node("large", devices=8), a_node("used", devices=4), a_node("small", devices=2)])
    assert scores(packing, capacity, 0.5) == [25, 29, 31]
    capacity.take(a_job(devices=0.25), a_placement(("used", [1]), milli=250))
    assert scores(packing, capacity, 0.5) == [25, 100 - 7, 31]
    assert scores(packing, capacity, 0.8) == [25, 49, 31]
    assert scores(packing, capacity, 3) == [25, 47, 31]
    assert scores(packing, capacity, HOST) == [0, 0, 0]


def test_clustering_prefers_nodes_with_only_its_own_kind_of_job() -> None:
    capacity = Capacity(nodes(4, devices=8))
    capacity.take(a_job(devices=2), a_placement(("n1", [0, 1])))
    capacity.take(a_job(devices=1), a_placement(("n2", [0])))
    for devices in ([0], [1, 2]):
        capacity.take(a_job(devices=len(devices)), a_placement(("n3", devices)))
    assert scores(clustering, capacity, 2) == [75 + 6, 0 + 3, 50 + 9, 25]
    assert scores(clustering, capacity, 1) == [0 + 6, 75 + 3, 50 + 9, 25]
    assert scores(clustering, capacity, 0.5) == [0 + 6, 0 + 3, 0 + 9, 25]


def test_spread_prefers_the_emptiest_node() -> None:
    capacity = Capacity(nodes(3, devices=4))
    placed = []
    for number in range(4):
        job = a_job(f"j{number}")
        placement = Scored(Fit(spread)).place(job, capacity, capacity.is_up)
        assert placement is not None
        capacity.take(job, placement)
        placed.append(str(placement))
    assert placed == ["n1[0]", "n2[0]", "n3[0]", "n1[1]"]


def test_random_depends_on_the_job_and_the_seed_alone() -> None:
    capacity = Capacity(nodes(50, devices=8))
    random = PLACES["random"]()
    found = [str(random.place(a_job(f"j{n}"), capacity, capacity.is_up)) for n in range(20)]
    assert found == [str(random.place(a_job(f"j{n}"), capacity, capacity.is_up)) for n in range(20)]
    assert len(set(found)) > 10


def test_ties_go_to_the_first_node() -> None:
    assert where(best_fit, Capacity(nodes(3, devices=4)), a_job(devices=2)) == "n1[0,1]"


def test_a_share_goes_to_the_tightest_device_of_the_best_node() -> None:
    capacity = Capacity([a_node(devices=3)])
    capacity.take(a_job(devices=0.3), a_placement(("n1", [0]), milli=300))
    capacity.take(a_job(devices=0.6), a_placement(("n1", [2]), milli=600))
    assert where(best_fit, capacity, a_job(devices=0.4)) == "n1[2]"
    assert where(best_fit, capacity, a_job(devices=0.5)) == "n1[0]"


# -- what all placements promise -------------------------------------------------------------------------


def test_a_job_without_devices_has_its_cpus_and_memory_once_on_one_node(place: Place) -> None:
    capacity = Capacity([a_node("full", cpus=2), a_node("free", cpus=8), a_node("bare", devices=0, cpus=4)])
    job = a_host_job(cpus=6.0, memory_bytes=GIB)
    placement = place.place(job, capacity, capacity.is_up)
    assert placement is not None
    (share,) = placement.shares
    assert (share.node_id, share.devices) == ("free", ())
    capacity.take(job, placement)
    assert (capacity.free_cpu_milli[1], capacity.free_whole[1]) == (2000, 8)
    assert place.place(job, capacity, capacity.is_up) is None
    capacity.give(job, placement)
    assert capacity.free_cpu_milli[1] == 8000


def test_a_gang_that_no_node_holds_goes_to_several(place: Place) -> None:
    capacity = Capacity(nodes(3, devices=4))
    placement = place.place(a_job(devices=10), capacity, capacity.is_up)
    assert placement is not None
    assert placement.devices == 10


def test_nothing_is_placed_where_it_is_not_allowed_or_does_not_fit(place: Place) -> None:
    capacity = Capacity(nodes(2, devices=4))
    assert str(place.place(a_job(devices=4), capacity, np.array([False, True]))) == "n2[0,1,2,3]"
    assert place.place(a_job(devices=9), capacity, capacity.is_up) is None
    assert place.place(a_job(devices="H100:1"), capacity, capacity.is_up) is None
    assert place.place(a_job(devices=1, cpus_per_device=1000), capacity, capacity.is_up) is None
    assert place.place(a_job(), Capacity([]), np.zeros(0, dtype=np.bool_)) is None


@given(data=st.data(), fleet=fleets(), name=st.sampled_from(sorted(PLACES)))
def test_what_was_remembered_of_the_nodes_changes_nothing(
    data: st.DataObject, fleet: list[Node], name: str
) -> None:
    remembering, place = Capacity(fleet), PLACES[name]()
    taken: list[tuple[Job, Placement]] = []
    for number in range(8):
        if taken and data.draw(st.integers(0, 2)) == 0:
            job, placement = taken.pop(data.draw(st.integers(0, len(taken) - 1)))
            remembering.give(job, placement)
        job = data.draw(st.one_of(jobs(f"j{number}"), st.just(a_host_job(f"j{number}", cpus=1.0))))
        found = place.place(job, remembering, remembering.is_up)
        assert found == PLACES[name]().place(job, afresh(remembering, taken), remembering.is_up)
        if found is not None:
            remembering.take(job, found)
            taken.append((job, found))
    assert (remembering.free_cpu_milli >= 0).all()
    assert (remembering.free_memory_bytes >= 0).all()


def test_a_trial_that_was_given_back_leaves_the_placements_as_they_were(place: Place) -> None:
    capacity = Capacity(nodes(3, devices=4))
    capacity.take(a_job(devices=0.5), a_placement(("n2", [0]), milli=500))
    job = a_job("new", devices=0.25)
    before = place.place(job, capacity, capacity.is_up)
    with capacity.trial() as trial:
        trial.take(a_job("other", devices=3), a_placement(("n1", [0, 1, 2])))
        place.place(job, trial.capacity, capacity.is_up)
    assert place.place(job, capacity, capacity.is_up) == before


# -- requests for no device ------------------------------------------------------------------------------


def test_host_is_a_request_for_no_device() -> None:
    assert parse_devices("host") == (HOST,)
    assert (str(HOST), HOST.min_devices, HOST.is_fraction, HOST.is_host_only) == ("host", 0, False, True)


def test_a_request_for_no_device_names_no_kind_of_it() -> None:
    with pytest.raises(ValueError, match="expected whole devices"):
        DeviceRequest(min_milli=0, max_milli=0, accelerator="H100")


# -- helpers ---------------------------------------------------------------------------------------------


def a_host_job(id: str = "host", *, cpus: float, memory_bytes: int | None = None) -> Job:
    return a_job(id, devices="host", cpus_per_device=cpus, memory_bytes_per_device=memory_bytes)


def scores(
    score: Score, capacity: Capacity, devices: float | DeviceRequest, cpus: float | None = None
) -> list[int]:
    request = devices if isinstance(devices, DeviceRequest) else parse_devices(devices)[0]
    rows = Rows.of(capacity, np.arange(len(capacity.nodes)))
    return [int(found) for found in score(Wish.of(request, cpus), rows)]


def where(score: Score, capacity: Capacity, job: Job) -> str:
    return str(Scored(Fit(score)).place(job, capacity, capacity.is_up))


def afresh(capacity: Capacity, taken: list[tuple[Job, Placement]]) -> Capacity:
    """The same state on a capacity that has nothing remembered, reached in another order."""
    fresh = Capacity(capacity.nodes)
    for job, placement in reversed(taken):
        fresh.take(job, placement)
    assert (fresh.free_milli == capacity.free_milli).all()
    assert fresh.attempts.tolist() == capacity.attempts.tolist()
    assert fresh.held == capacity.held
    assert fresh.free_milli.max(initial=0) <= MILLI
    return fresh
