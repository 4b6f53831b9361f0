"""Fleets from YAML: what they mean, and what is refused with its line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.kernel.lifecycle import JobState
from artesian.model.fleet import Center, Node, Pool
from artesian.policy.registry import policy
from artesian.sim import (
    FleetFileError,
    parse_fleet,
    report,
)
from simulations import a_sim_job, run

POOLS = """\
pools:
  - {name: train, nodes: 2, accelerator: H100, devices: 8, cpus: 96, memory: 1TB}
  - name: old
    nodes: 1
    accelerator: Tesla V100-SXM2-32GB
    devices: 4
    cpus: 48
    memory: 512GiB
    center: north
  - {name: new, nodes: 1, accelerator: X9, devices: 2, cpus: 8, memory: 64GB, vendor: acme, device_memory: 8GB}
"""


def test_a_fleet_is_read_pool_by_pool() -> None:
    fleet = parse_fleet(POOLS, source="fleet.yaml")
    assert [node.id for node in fleet.nodes] == ["train-0", "train-1", "old-0", "new-0"]
    assert fleet.devices == 22
    assert fleet.pools == (
        Pool(name="train", engine="virtual"),
        Pool(name="old", engine="virtual", center="north"),
        Pool(name="new", engine="virtual"),
    )
    assert fleet.centers == (Center(name="default"), Center(name="north"))
    assert fleet.nodes[3] == Node(
        id="new-0",
        pool="new",
        accelerator="X9",
        vendor="acme",
        devices=2,
        cpus=8,
        memory_bytes=64 * 10**9,
        device_memory_bytes=8 * 10**9,
    )


def test_the_catalogue_fills_in_what_is_the_same_for_all_that_a_name_may_mean() -> None:
    family, model = (parse_fleet(POOLS, source="f").nodes[number] for number in (0, 2))
    assert family.vendor == "nvidia"
    assert family.peak_flops is None  # SXM, PCIe and NVL differ
    assert model.vendor == "nvidia"
    assert model.peak_flops == 125e12
    assert model.device_memory_bytes == 32 * 2**30


def test_a_described_fleet_runs_jobs() -> None:
    fleet = parse_fleet(POOLS, source="fleet.yaml")
    result = run(fleet, a_sim_job("a", "nvidia:H100:16"), a_sim_job("b", "V100:4 | X9:2"))
    assert {entry.state for entry in report(result).jobs} == {JobState.SUCCEEDED}


@pytest.mark.parametrize(
    ("text", "line", "subject", "words"),
    [
        ("", 1, "file", "expected a fleet, got an empty file"),
        ("nodes: 3", 1, "pools", "expected the key pools, got none"),
        ("pools: {a: 1}", 1, "pools", "expected a list of pools, got a mapping of 1"),
        (POOLS + "  - {name: x}", 11, "pools[3].memory", "expected the key memory, got none"),
        (POOLS.replace("1TB", "1000"), 2, "pools[0].memory", "expected a number with a unit"),
        (POOLS.replace("nodes: 1\n", "nodes: 0\n"), 4, "pools[1].nodes", "expected a whole number from 1"),
        (POOLS.replace("cpus: 48", "cpu: 48"), 7, "pools[1].cpu", "expected a key of a pool, got 'cpu'"),
        (POOLS.replace("name: old", "name: train"), 3, "pools[1].name", "in line 2 and again in line 3"),
        (POOLS.replace("nodes: 2", "nodes: 100000"), 2, "pools", "expected at most 100000 nodes in all"),
    ],
)
def test_a_wrong_fleet_is_refused_with_its_line(text: str, line: int, subject: str, words: str) -> None:
    with pytest.raises(FleetFileError) as caught:
        parse_fleet(text, source="fleet.yaml")
    found = [(mistake.at.line, mistake.subject, mistake.text) for mistake in caught.value.mistakes]
    assert any((line, subject) == (at, what) and words in said for at, what, said in found), found


@given(st.text() | st.sampled_from(POOLS.split()).map(lambda word: POOLS.replace(word, "'")))
def test_any_text_gives_a_fleet_or_its_error(text: str) -> None:
    try:
        fleet = parse_fleet(text, source="fleet.yaml")
    except FleetFileError as raised:
        error = raised
    else:
        assert len({node.id for node in fleet.nodes}) == len(fleet.nodes)
        return
    assert error.mistakes


# -- racks --------------------------------------------------------------------------------------------


def racks(of: str, nodes: int = 5) -> list[str | None]:
    pool = f"name: p, nodes: {nodes}, accelerator: X9, devices: 2, cpus: 8, memory: 64GB"
    fleet = parse_fleet(f"pools: [{{{pool}, rack_nodes: {of}}}]", source="f")
    return [node.rack for node in fleet.nodes]


def test_neighbouring_nodes_share_a_rack() -> None:
    assert racks("2") == ["rack-0", "rack-0", "rack-1", "rack-1", "rack-2"]
    assert racks("[1, 4]") == ["rack-0"] + 4 * ["rack-1"]
    assert {node.rack for node in parse_fleet(POOLS, source="f").nodes} == {None}


@given(size=st.integers(1, 12), nodes=st.integers(1, 12))
def test_every_node_is_in_a_rack_and_no_rack_has_too_many(size: int, nodes: int) -> None:
    found = racks(str(size), nodes)
    assert None not in found
    assert max(found.count(rack) for rack in found) == min(size, nodes)


@pytest.mark.parametrize("of", ["0", "[2, 2]", "[]", "x", "[5, -1]", "1.5", "{a: 1}"])
def test_racks_that_do_not_hold_the_nodes_are_refused(of: str) -> None:
    with pytest.raises(FleetFileError, match="rack_nodes"):
        racks(of)


def test_topology_keeps_a_gang_within_a_rack_of_the_file() -> None:
    pool = "name: p, nodes: 4, accelerator: X9, devices: 2, cpus: 8, memory: 64GB, rack_nodes: 2"
    fleet = parse_fleet(f"pools: [{{{pool}}}]", source="f")
    small = a_sim_job("small", "X9:2", takes=100.0)
    gang = a_sim_job("gang", "X9:4", at=1.0)
    result = run(fleet, small, gang, policy=policy("topology"))
    shares = result.state.jobs["gang"].attempts[0].placement.shares
    assert {share.node_id for share in shares} == {"p-2", "p-3"}
