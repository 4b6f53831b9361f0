"""The censuses of an engine's nodes in the state folder, and the ceilings that they give."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from artesian.census import Census, CensusError, Figure, Host, Machine, Measurement
from artesian.server.node_census import NodeCensuses
from artesian.server.report import ceilings_in
from builders import a_node
from censuses import FAST, H100, census

HOST = Host(
    hostname="measured",
    architecture="x86_64",
    cpu_model="a CPU",
    sockets=1,
    physical_cores=8,
    logical_cpus=8,
    usable_cpus=tuple(range(8)),
    cpu_quota=None,
    core_cpus=tuple(range(8)),
    usable_cores=8,
    memory_bytes=2**36,
    memory_limit_bytes=None,
    last_level_cache_bytes=None,
    numa_nodes=(),
)


def a_census(fp32: float = 100e9, *, valid_runs: int = 5) -> Census:
    """A census of eight cores."""
    figure = Figure(
        kernel="matmul",
        best=8 * fp32,
        median=8 * fp32,
        runs=5,
        valid_runs=valid_runs,
        is_correct=True,
        worst_error=0.1,
    )
    measured = Measurement(accelerator="cpu", index=None, uuid=None, devices=8, fp32_flops=figure)
    return Census(machine=Machine(host=HOST, accelerators=()), measurements=(measured,), at_s=1.0)


@pytest.fixture
def kept(tmp_path: Path) -> NodeCensuses:
    return NodeCensuses(tmp_path / "census")


def test_what_was_measured_is_the_ceiling_of_the_node_by_the_engines_name(kept: NodeCensuses) -> None:
    assert list(kept) == []
    assert kept.ceilings() == {}
    east = a_node("east/n1", accelerator="cpu")
    kept.save([(east, a_census()), (a_node("n2", accelerator="cpu"), a_census(50e9))])
    assert [(id_, census.at_s) for id_, census in kept] == [("east/n1", 1.0), ("n2", 1.0)]
    assert {key: ceiling.flops for key, ceiling in kept.ceilings().items()} == {
        ("east/n1", "fp32"): pytest.approx(100e9),
        ("n2", "fp32"): pytest.approx(50e9),
    }
    for path in kept.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_waterfall_finds_them_beside_this_machines_own(kept: NodeCensuses) -> None:
    own = kept.folder.with_suffix(".json")
    kept.save([(a_node("n1", accelerator="cpu"), a_census())])
    assert set(ceilings_in(own)) == {("n1", "fp32")}
    a_census().save(own)
    assert set(ceilings_in(own)) == {("n1", "fp32"), ("measured", "fp32")}


def test_a_machine_without_the_devices_that_the_engine_speaks_of_is_no_ceiling(kept: NodeCensuses) -> None:
    kept.save([(a_node("n1", accelerator="H100-SXM5-80GB"), a_census())])
    assert [id_ for id_, _ in kept] == ["n1"]
    assert kept.ceilings() == {}


@pytest.mark.parametrize("named", ["H100-SXM5-80GB", "h100", "gpu"])
def test_the_census_knows_the_model_of_devices_of_which_the_engine_says_a_family_or_none(
    kept: NodeCensuses, named: str
) -> None:
    kept.save([(a_node("n1", accelerator=named), census(H100, FAST))])
    assert kept.ceilings()["n1", "bf16"].flops == 989e12  # the nameplate, which the catalogue is sure of


def test_devices_of_another_family_or_of_several_kinds_are_not_what_the_engine_means(
    kept: NodeCensuses,
) -> None:
    one = census(H100, FAST)
    other = replace(H100, index=1, uuid="GPU-1", name="NVIDIA H100 PCIe", model="H100-PCIe-80GB")
    several = replace(one, machine=replace(one.machine, accelerators=(H100, other)))
    kept.save([(a_node("n1", accelerator="910b"), one), (a_node("n2", accelerator="cpu"), one)])
    kept.save([(a_node("n3", accelerator="h100"), several), (a_node("n4", accelerator="gpu"), several)])
    assert kept.ceilings() == {}
    kept.save([(a_node("n5", accelerator="H100-SXM5-80GB"), several)])
    assert {node for node, _ in kept.ceilings()} == {"n5"}


def test_a_disturbed_census_does_not_take_the_place_of_a_good_one(kept: NodeCensuses) -> None:
    node = a_node("n1", accelerator="cpu")
    disturbed = a_census(1e9, valid_runs=0)
    kept.save([(node, disturbed)])
    assert kept.ceilings() == {}
    kept.save([(node, a_census())])
    kept.save([(node, replace(disturbed, at_s=2.0))])
    assert [census.at_s for _, census in kept] == [1.0]
    assert kept.ceilings()["n1", "fp32"].flops == pytest.approx(100e9)


def test_a_file_that_is_no_census_is_named(kept: NodeCensuses) -> None:
    kept.save([(a_node("n1", accelerator="cpu"), a_census())])
    (kept.folder / "n1.census.json").write_text("{")
    with pytest.raises(CensusError, match=r"n1\.census\.json"):
        list(kept)
    (kept.folder / "ceilings.json").write_text("{")
    with pytest.raises(CensusError, match=r"ceilings\.json"):
        kept.ceilings()
