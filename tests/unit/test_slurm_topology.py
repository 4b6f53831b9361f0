"""Racks in what Slurm prints of its topology, as its documentation has the forms."""

import pytest

from artesian.engines.slurm.inventory import offers_of
from artesian.engines.slurm.parse import ParseError
from artesian.engines.slurm.topology import hosts_of, racks_of_text
from slurm_builders import a_slurm_node

TREE = """\
SwitchName=leaf-a Level=0 LinkSpeed=1 Nodes=n[1-2,4]
SwitchName=leaf-b Level=0 LinkSpeed=1 Nodes=m[08-10],n3
SwitchName=spine Level=1 LinkSpeed=1 Nodes=m[08-10],n[1-4] Switches=leaf-[a-b]
"""
BLOCK = """\
BlockName=b1 BlockIndex=0 Nodes=n[1-2] BlockSize=2
BlockName=b2 BlockIndex=1 Nodes=n[3-4] BlockSize=2
AggregatedBlock=b1,b2 BlockIndex=2 Nodes=n[1-4] BlockSize=4
"""


def test_the_leaf_switch_or_the_block_of_a_node_is_its_rack() -> None:
    leaves = racks_of_text(TREE)
    assert {name: leaves[name] for name in ("n1", "n3", "n4")} == {
        "n1": "leaf-a", "n3": "leaf-b", "n4": "leaf-a",
    }  # fmt: skip
    assert {name for name, rack in leaves.items() if rack == "leaf-b"} == {"m08", "m09", "m10", "n3"}
    assert racks_of_text(BLOCK) == {"n1": "b1", "n2": "b1", "n3": "b2", "n4": "b2"}
    assert racks_of_text(TREE + BLOCK)["n4"] == "b2", "the closer links"


@pytest.mark.parametrize(
    "text", ["", "No topology information available\n", "SwitchName=s0 Level=0 LinkSpeed=1 Nodes=(null)\n"]
)
def test_a_site_without_a_topology_has_no_racks(text: str) -> None:
    assert racks_of_text(text) == {}


def test_lists_of_hosts_are_expanded() -> None:
    assert list(hosts_of("n7,r[0-1]-m[09-10]x,z")) == [
        "n7", "r0-m09x", "r0-m10x", "r1-m09x", "r1-m10x", "z",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["n[1-2", "n1]", "n[a-b]", "n[1--2]", "n[0-99999999]"])
def test_a_list_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(ParseError):
        list(hosts_of(text))


def test_who_is_in_no_rack_has_none() -> None:
    offers = offers_of(
        [a_slurm_node("n1"), a_slurm_node("n9")],
        {},
        partition=None,
        pool="p",
        accelerators={},
        racks={"n1": "r"},
    )
    assert {id_: offer.node.rack for id_, offer in offers.items()} == {"n1": "r", "n9": None}
