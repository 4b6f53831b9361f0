"""What is free, as arrays: taking and giving back, kinds of devices, limits of the host."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.model.capacity import Capacity, Trial
from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.resources import MILLI, parse_devices
from artesian.policy import explain
from artesian.policy.place import Pack
from builders import GIB, a_job, a_node, a_placement, free_of, nodes
from strategies import fleets, jobs

FLEET = [
    a_node(
        "sxm", accelerator="NVIDIA H100 80GB HBM3", vendor="nvidia", device_memory_bytes=79 * GIB, devices=8
    ),
    a_node("pcie", accelerator="H100-PCIe-80GB", vendor="nvidia", device_memory_bytes=80 * 10**9, devices=2),
    a_node("a40", accelerator="A100-SXM4-40GB", vendor="nvidia", device_memory_bytes=40 * GIB, devices=4),
    a_node("npu", accelerator="910B1", vendor="ascend", devices=8),
    a_node("cpu", accelerator="cpu", devices=2),
    a_node("odd", accelerator="LocalChip", vendor=None, devices=1),
]


@pytest.mark.parametrize(
    ("text", "eligible"),
    [
        ("1", "sxm pcie a40 npu cpu odd"),
        ("H100:8", "sxm pcie"),
        ("H100-SXM5-80GB:8", "sxm"),
        ("h100 sxm:1", "sxm"),
        ("nvidia:4", "sxm pcie a40"),
        ("80GB:1", "sxm pcie"),
        ("nvidia:A100:80GB", ""),
        ("910B:8", "npu"),
        ("ascend:910B1:1", "npu"),
        ("nvidia:910B1:1", ""),
        ("localchip:1", "odd"),
        ("cpu:1", "cpu"),
        ("B200:1", ""),
    ],
)
def test_a_request_finds_the_nodes_of_its_kind(text: str, eligible: str) -> None:
    capacity = Capacity(FLEET)
    (request,) = parse_devices(text)
    mask = capacity.eligible(request)
    assert [node.id for node, found in zip(FLEET, mask, strict=True) if found] == eligible.split()


def test_nothing_is_free_of_a_device_that_others_occupy() -> None:
    capacity = Capacity([a_node("n1", devices=4, occupied=(0, 3)), a_node("n2", devices=4)])
    (request,) = parse_devices("cpu:1")
    job = a_job(devices="cpu:0.5")
    capacity.take(job, a_placement(("n1", [0]), milli=500))  # it was there first
    capacity.occupy()
    assert capacity.free_milli[0].tolist() == [0, MILLI, MILLI, 0]
    assert capacity.startable(a_job(), request).tolist() == [2, 4]
    assert capacity.ownable(a_job(), request).tolist() == [4, 4]
    assert np.isinf(capacity.expected_ends_s(0.0)[0, [0, 3]]).all()
    capacity.give(job, a_placement(("n1", [0]), milli=500))


@pytest.mark.parametrize("occupied", [(0, 0), (4,), (-1,)])
def test_only_devices_that_are_there_can_be_occupied(occupied: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="occupied"):
        a_node("n1", devices=4, occupied=occupied)


def test_a_node_that_is_down_is_of_no_kind_and_comes_back() -> None:
    capacity = Capacity(nodes(2, devices=4))
    (request,) = parse_devices("cpu:1")
    capacity.set_up("n1", False)
    assert capacity.eligible(request).tolist() == [False, True]
    assert capacity.startable(a_job(), request).tolist() == [0, 4]
    assert capacity.ownable(a_job(), request).tolist() == [0, 4]
    capacity.set_up("n1", True)
    assert capacity.eligible(request).tolist() == [True, True]


@pytest.mark.parametrize(
    ("cpus", "memory_gib", "startable"),
    [
        (None, None, 4),
        (1.0, None, 4),
        (3.0, None, 2),
        (0.5, None, 4),
        (None, 3, 2),
        (7.0, 1, 1),
        (9.0, None, 0),
    ],
)
def test_the_hosts_cpus_and_memory_limit_the_devices(
    cpus: float | None, memory_gib: int | None, startable: int
) -> None:
    capacity = Capacity([a_node(devices=4, cpus=8, memory_bytes=8 * GIB)])
    memory = None if memory_gib is None else memory_gib * GIB
    job = a_job(cpus_per_device=cpus, memory_bytes_per_device=memory)
    assert capacity.startable(job, job.devices[0]).tolist() == [startable]
    assert capacity.ownable(job, job.devices[0]).tolist() == [startable]


def test_what_runs_limits_what_can_start_and_not_what_could_be_owned() -> None:
    capacity = Capacity([a_node(devices=4, cpus=8)])
    job = a_job(devices="cpu:3", cpus_per_device=2.0)
    capacity.take(job, a_placement(("n1", [0, 1, 3])))
    assert capacity.free_milli.tolist() == [[0, 0, 1000, 0]]
    assert (capacity.free_whole.tolist(), capacity.free_cpu_milli.tolist()) == ([1], [2000])
    assert capacity.startable(job, job.devices[0]).tolist() == [1]
    assert capacity.ownable(job, job.devices[0]).tolist() == [4]


def test_a_shared_device_is_not_whole() -> None:
    capacity = Capacity([a_node(devices=2)])
    share = a_job(devices=0.25)
    capacity.take(share, a_placement(("n1", [1]), milli=250))
    assert (capacity.free_milli.tolist(), capacity.free_whole.tolist()) == ([[1000, 750]], [1])
    capacity.give(share, a_placement(("n1", [1]), milli=250))
    assert capacity.free_whole.tolist() == [2]


def test_a_device_is_not_taken_twice_nor_given_back_twice() -> None:
    capacity = Capacity(nodes(2, devices=1))
    capacity.take(a_job(), a_placement(("n1", [0])))
    with pytest.raises(AssertionError, match=r"device n1\[0\] is oversubscribed"):
        capacity.take(a_job(), a_placement(("n1", [0])))
    with pytest.raises(AssertionError, match=r"n2\[0\]"):
        capacity.give(a_job(), a_placement(("n2", [0])))


def test_a_device_that_a_narrower_node_does_not_have_is_not_taken() -> None:
    capacity = Capacity([a_node("n1", devices=1), a_node("n2", devices=4)])
    with pytest.raises(AssertionError, match=r"n1\[2\]"):
        capacity.take(a_job(), a_placement(("n1", [2])))
    with pytest.raises(AssertionError, match=r"n1\[2\]"):
        capacity.give(a_job(), a_placement(("n1", [2])))


def test_a_copy_is_on_its_own() -> None:
    capacity = Capacity([a_node(devices=2)])
    twin = capacity.copy()
    twin.take(a_job(cpus_per_device=1.0, memory_bytes_per_device=GIB), a_placement(("n1", [0])))
    twin.set_up("n1", False)
    assert capacity.free_milli.tolist() == [[1000, 1000]]
    assert (capacity.free_whole.tolist(), capacity.is_up.tolist()) == ([2], [True])
    assert capacity.free_cpu_milli.tolist() == [16000]
    assert twin.ownable(a_job(), a_job().devices[0]).tolist() == [0]


def test_what_is_remembered_is_computed_once_until_a_node_comes_or_goes() -> None:
    capacity = Capacity(nodes(2))
    computed: list[str] = []

    def compute(what: str) -> str:
        computed.append(what)
        return what

    assert [capacity.remember("k", lambda: compute("first")) for _ in range(3)] == ["first"] * 3
    assert capacity.remember("other", lambda: compute("other")) == "other"
    capacity.take(a_job(), a_placement(("n1", [0])))
    assert capacity.remember("k", lambda: compute("never")) == "first"
    assert capacity.copy().remember("k", lambda: compute("a copy's")) == "a copy's"
    for is_up in (False, True):
        capacity.set_up("n2", is_up)
        assert capacity.remember("k", lambda: compute(f"up: {is_up}")) == f"up: {is_up}"  # noqa: B023 - called here
    assert computed == ["first", "other", "a copy's", "up: False", "up: True"]


def test_whether_a_job_is_possible_is_asked_anew_when_a_node_is_lost_and_comes_back() -> None:
    capacity = Capacity(nodes(2, devices=4))
    job, like = a_job("a", devices="cpu:8"), a_job("b", devices="cpu:8", priority=1)
    assert explain.is_possible(job, capacity)
    capacity.set_up("n2", False)
    assert not explain.is_possible(like, capacity)
    assert explain.is_possible(a_job(devices="cpu:4"), capacity)
    capacity.set_up("n2", True)
    assert explain.is_possible(job, capacity)


# -- trials -------------------------------------------------------------------------------------------


HUNGRY = a_job("hungry", devices="cpu:2", cpus_per_device=1.5, memory_bytes_per_device=GIB)


def test_what_a_trial_takes_is_taken_until_it_is_over() -> None:
    capacity = Capacity([a_node(devices=2)])
    before = free_of(capacity)
    with capacity.trial() as trial:
        assert trial.capacity is capacity
        trial.take(HUNGRY, a_placement(("n1", [0, 1])))
        assert (capacity.free_whole.tolist(), capacity.free_cpu_milli.tolist()) == ([0], [13000])
    assert free_of(capacity) == before


def test_a_trial_may_give_what_runs_back_and_take_it_for_another() -> None:
    capacity = Capacity([a_node(devices=2)])
    capacity.take(HUNGRY, a_placement(("n1", [0, 1])))
    before = free_of(capacity)
    with capacity.trial() as trial:
        trial.give(HUNGRY, a_placement(("n1", [0, 1])))
        assert capacity.free_whole.tolist() == [2]
        trial.take(a_job("other", devices=0.5), a_placement(("n1", [1]), milli=500))
        assert capacity.free_milli.tolist() == [[1000, 500]]
    assert free_of(capacity) == before


def test_a_trial_in_a_trial_ends_on_its_own() -> None:
    capacity = Capacity(nodes(2, devices=2))
    before = free_of(capacity)
    with capacity.trial() as outer:
        outer.take(HUNGRY, a_placement(("n1", [0, 1])))
        within = free_of(capacity)
        with capacity.trial() as inner:
            inner.take(HUNGRY, a_placement(("n2", [0, 1])))
            inner.give(HUNGRY, a_placement(("n1", [0, 1])))
            assert capacity.free_whole.tolist() == [2, 0]
        assert free_of(capacity) == within
        outer.take(HUNGRY, a_placement(("n2", [0, 1])))
    assert free_of(capacity) == before


def test_an_exception_ends_a_trial_and_goes_on() -> None:
    capacity = Capacity(nodes(2, devices=2))
    before = free_of(capacity)

    def break_within() -> None:
        with capacity.trial() as outer:
            outer.take(HUNGRY, a_placement(("n1", [0, 1])))
            with capacity.trial() as inner:
                inner.take(HUNGRY, a_placement(("n2", [0, 1])))
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_within()
    assert free_of(capacity) == before


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (a_placement(("n2", [0, 1]), ("n1", [1, 0])), AssertionError),
        (a_placement(("n2", [0, 1]), ("n1", [1, 2])), AssertionError),
        (a_placement(("n2", [0, 1]), ("n1", [1, 9])), IndexError),
        (a_placement(("n2", [0, 1]), ("nowhere", [0])), KeyError),
    ],
)
def test_what_cannot_be_taken_is_not_taken_in_part(wrong: Placement, error: type[Exception]) -> None:
    capacity = Capacity([a_node("n1", devices=2), a_node("n2", devices=3)])
    capacity.take(a_job("holder"), a_placement(("n1", [0])))
    before = free_of(capacity)
    with pytest.raises(error):
        capacity.take(HUNGRY, wrong)
    assert free_of(capacity) == before

    def take_both() -> None:
        with capacity.trial() as trial:
            trial.take(a_job("fits"), a_placement(("n2", [2])))
            trial.take(HUNGRY, wrong)

    with pytest.raises(error):
        take_both()
    assert free_of(capacity) == before


def test_what_cannot_be_given_back_is_not_given_back_in_part() -> None:
    capacity = Capacity(nodes(2, devices=2))
    capacity.take(HUNGRY, a_placement(("n1", [0, 1])))
    before = free_of(capacity)
    with pytest.raises(AssertionError, match=r"n2\[0\]"), capacity.trial() as trial:
        trial.give(HUNGRY, a_placement(("n1", [0, 1]), ("n2", [0])))
    assert free_of(capacity) == before


@given(data=st.data(), fleet=fleets())
def test_whatever_a_trial_does_leaves_no_trace(data: st.DataObject, fleet: list[Node]) -> None:
    capacity = Capacity(fleet)
    held: list[tuple[Job, Placement]] = []

    def change(trial: Trial, depth: int) -> None:
        for number in range(data.draw(st.integers(0, 4))):
            before = free_of(capacity)
            choice = data.draw(st.sampled_from(["take", "give", "nest"]))
            if choice == "nest" and depth < 3:
                kept = list(held)
                with capacity.trial() as inner:
                    change(inner, depth + 1)
                held[:] = kept
                assert free_of(capacity) == before
            elif choice == "give" and held:
                trial.give(*held.pop(data.draw(st.integers(0, len(held) - 1))))
            else:
                job = data.draw(jobs(f"j{depth}.{number}"))
                placement = Pack().place(job, capacity, capacity.is_up)
                if placement is not None:
                    trial.take(job, placement)
                    held.append((job, placement))

    before = free_of(capacity)
    with capacity.trial() as trial:
        change(trial, 0)
    assert free_of(capacity) == before


def test_a_fleet_of_nothing_has_room_for_nothing() -> None:
    for capacity in (Capacity([]), Capacity([a_node(devices=0)])):
        job = a_job()
        assert capacity.startable(job, job.devices[0]).sum() == 0
        assert Pack().place(job, capacity, capacity.is_up) is None


@given(data=st.data(), fleet=fleets())
def test_what_is_taken_and_given_back_leaves_no_trace(data: st.DataObject, fleet: list[Node]) -> None:
    capacity = Capacity(fleet)
    before = capacity.copy()
    taken = []
    for number in range(4):
        job = data.draw(jobs(f"j{number}"))
        placement = Pack().place(job, capacity, capacity.is_up)
        if placement is not None:
            capacity.take(job, placement)
            taken.append((job, placement))
    for job, placement in data.draw(st.permutations(taken)):
        capacity.give(job, placement)
    for name in ("free_milli", "free_whole", "free_cpu_milli", "free_memory_bytes"):
        assert getattr(before, name).tolist() == getattr(capacity, name).tolist()


def all_of(capacity: Capacity) -> object:
    """All that a policy may see of a capacity: when devices come free, as seen from early and late."""
    ends_s = [capacity.expected_ends_s(at_s).tolist() for at_s in (0.0, 5.0, 100.0, 1e3, 1e5)]
    more = (capacity.levels.at, capacity.open_devices, capacity.free_by_kind)
    return free_of(capacity), ends_s, capacity.used, capacity.held, more


@given(data=st.data(), fleet=fleets(2))
def test_whatever_comes_and_goes_a_capacity_is_as_one_made_from_what_is_left(
    data: st.DataObject, fleet: list[Node]
) -> None:
    capacity = Capacity(fleet)
    holders: list[tuple[Job, Placement, float]] = []

    def come(id: str) -> tuple[Job, Placement, float] | None:
        job = replace(
            data.draw(jobs(id)),
            estimated_duration_s=data.draw(st.sampled_from([None, 1.0, 10.0, 10.0, 500.0])),
        )
        if data.draw(st.booleans()):
            job = replace(
                job, devices=parse_devices(data.draw(st.sampled_from(["0.25", "0.5", "cpu:0.125"])))
            )
        placement = Pack().place(job, capacity, capacity.is_up)
        return None if placement is None else (job, placement, data.draw(st.sampled_from([0.0, 3.0, 50.0])))

    for number in range(data.draw(st.integers(1, 10))):
        match data.draw(st.sampled_from(["come", "come", "go", "try"])):
            case "come":
                if (holder := come(f"j{number}")) is not None:
                    capacity.take(*holder[:2])
                    capacity.expect(*holder)
                    holders.append(holder)
            case "go" if holders:
                job, placement, _ = holders.pop(data.draw(st.integers(0, len(holders) - 1)))
                capacity.give(job, placement)
            case _:
                with capacity.trial() as trial:
                    for job, placement, _ in data.draw(st.permutations(holders))[:2]:
                        trial.give(job, placement)
                    # Also one that it has given back may go on elsewhere, and nobody says for how long.
                    for id in (f"j{number}", *(holder[0].id for holder in holders[:2])):
                        if (tried := come(id)) is not None:
                            at_s = data.draw(st.sampled_from([None, tried[2]]))
                            trial.take(tried[0], tried[1], at_s=at_s)
                    all_of(capacity)  # what is worked out meanwhile is not kept
        fresh = Capacity(fleet)
        for job, placement, since_s in data.draw(st.permutations(holders)):
            fresh.take(job, placement)
            fresh.expect(job, placement, since_s)
        assert all_of(capacity) == all_of(fresh)
        assert all_of(capacity.copy()) == all_of(fresh)


def test_a_shared_device_is_free_as_soon_as_those_who_are_left_can_tell() -> None:
    capacity = Capacity([a_node("n1", devices=1)])
    short, long, longer = (
        a_job(f"j{lasts_s}", devices="cpu:0.25", estimated_duration_s=lasts_s)
        for lasts_s in (10.0, 50.0, 90.0)
    )
    part = a_placement(("n1", [0]), milli=250)
    for job in (short, longer, long):
        capacity.take(job, part)
        capacity.expect(job, part, 0.0)
    found = [capacity.expected_ends_s(5.0).item()]
    for job in (long, longer, short):
        capacity.give(job, part)
        found.append(capacity.expected_ends_s(5.0).item())
    assert found == [90.0, 90.0, 10.0, -np.inf]


# -- Pack ---------------------------------------------------------------------------------------------


def place(
    devices: str | float, *taken: tuple[str, list[int]], widths: tuple[int, ...] = (4, 4, 4)
) -> str | None:
    """Where Pack puts a job on nodes n1, n2, ... of these widths, some devices of which are taken."""
    capacity = Capacity([a_node(f"n{number}", devices=width) for number, width in enumerate(widths, 1)])
    for share in taken:
        capacity.take(a_job(), a_placement(share))
    placement = Pack().place(a_job(devices=devices), capacity, capacity.is_up)
    return None if placement is None else str(placement)


def test_a_gang_goes_where_it_leaves_the_fewest_devices_free() -> None:
    assert place("cpu:2", ("n2", [0]), ("n3", [0, 1])) == "n3[2,3]"
    assert place("cpu:3", ("n2", [0]), ("n3", [0, 1])) == "n2[1,2,3]"
    assert place("cpu:4", ("n2", [0]), ("n3", [0, 1])) == "n1[0,1,2,3]"


def test_a_gang_larger_than_a_node_takes_as_few_nodes_as_it_can() -> None:
    assert place("cpu:6", ("n1", [0, 1])) == "n2[0,1,2,3] + n3[0,1]"
    assert place("cpu:13") is None


def test_an_elastic_gang_takes_what_one_node_has_before_it_spreads() -> None:
    assert place("cpu:2..8", ("n1", [0])) == "n2[0,1,2,3]"
    assert place("cpu:5..20", widths=(4, 2)) == "n1[0,1,2,3] + n2[0,1]"


def test_alternatives_are_tried_in_the_jobs_own_order() -> None:
    assert place("H100:1 | cpu:5 | cpu:1", ("n1", [0, 1]), widths=(4, 2)) == "n1[2]"
    assert place("cpu:3 | cpu:1", ("n1", [0, 1]), widths=(4, 2)) == "n1[2,3] + n2[0]"


def test_a_share_goes_to_the_device_with_the_least_left_that_suffices() -> None:
    capacity = Capacity([a_node(devices=3)])
    for device, milli in ((0, 300), (1, 600)):
        capacity.take(a_job(devices=milli / 1000), a_placement(("n1", [device]), milli=milli))
    placed = [str(Pack().place(a_job(devices=share), capacity, capacity.is_up)) for share in (0.4, 0.5, 0.8)]
    assert placed == ["n1[1]", "n1[0]", "n1[2]"]


def test_a_share_takes_a_part_of_a_device_and_the_hosts_full_ration() -> None:
    capacity = Capacity([a_node(devices=2, cpus=3)])
    job = a_job(devices=0.5, cpus_per_device=2.0)
    placement = Pack().place(job, capacity, capacity.is_up)
    assert placement is not None
    assert placement.shares[0].milli == 500
    capacity.take(job, placement)
    assert Pack().place(job, capacity, capacity.is_up) is None
