"""Topology-aware placing: one node, else one rack, else one pool, else anywhere."""

import pytest

from artesian.model.capacity import Capacity
from artesian.model.fleet import Node
from artesian.policy.topology import Topology
from builders import a_job, a_node, a_placement

FLEET = [
    a_node("a1", devices=4, rack="a"),
    a_node("b1", devices=4, rack="b"),
    a_node("a2", devices=4, rack="a"),
    a_node("b2", devices=4, rack="b"),
    a_node("b3", devices=4, rack="b"),
    a_node("far", devices=4, pool="other"),
]


def nodes_of(devices: str, fleet: list[Node] = FLEET, taken: dict[str, int] | None = None) -> set[str]:
    capacity = Capacity(fleet)
    for node_id, count in (taken or {}).items():
        capacity.take(a_job("t", devices=f"cpu:{count}"), a_placement((node_id, range(count))))
    placement = Topology().place(a_job("g", devices=devices), capacity, capacity.is_up)
    assert placement is not None
    return {share.node_id for share in placement.shares}


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ("cpu:4", {"a1"}),
        ("cpu:8", {"a1", "a2"}),
        ("cpu:12", {"b1", "b2", "b3"}),
        ("cpu:20", {"a1", "a2", "b1", "b2", "b3"}),
        ("cpu:24", {"a1", "a2", "b1", "b2", "b3", "far"}),
    ],
)
def test_a_gang_stays_in_the_closest_domain_that_holds_it(devices: str, expected: set[str]) -> None:
    assert nodes_of(devices) == expected


def test_of_two_racks_the_one_that_is_left_with_less_is_taken() -> None:
    assert nodes_of("cpu:7", taken={"b1": 4, "b2": 1}) == {"b2", "b3"}


def test_an_elastic_gang_takes_the_rack_that_holds_it_whole() -> None:
    assert nodes_of("cpu:5..12") == {"b1", "b2", "b3"}


def test_racks_of_one_name_in_two_pools_are_two() -> None:
    fleet = [
        a_node("p1", devices=4, rack="a", pool="p"),
        a_node("q1", devices=4, rack="a", pool="q"),
        a_node("q2", devices=4, rack="a", pool="q"),
    ]
    assert nodes_of("cpu:8", fleet) == {"q1", "q2"}


def test_where_no_rack_is_told_the_pool_is_what_holds_it() -> None:
    fleet = [a_node("p1", devices=4, pool="p"), *(a_node(f"q{n}", devices=4, pool="q") for n in range(2))]
    assert nodes_of("cpu:8", fleet) == {"q0", "q1"}


def test_a_domain_of_two_models_is_two() -> None:
    fleet = [
        a_node("h", devices=4, rack="a", accelerator="H100-SXM5-80GB"),
        a_node("t", devices=4, rack="a", accelerator="T4"),
        *(a_node(f"u{n}", devices=4, rack="b", accelerator="T4") for n in range(2)),
    ]
    assert nodes_of("8", fleet) == {"u0", "u1"}
