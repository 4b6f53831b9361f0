"""The census on a real device: the figures lie between a floor that any GPU passes and the nameplate."""

import pytest

from artesian.census import BenchmarkSettings, Census, benchmark, discover
from artesian.server.fleet import ceilings_of, nodes_of


@pytest.fixture(scope="module")
def census() -> Census:
    machine = discover()
    return Census(
        machine=machine, measurements=benchmark(machine, settings=BenchmarkSettings(kernel_s=0.5)), at_s=0.0
    )


def test_every_device_is_measured_and_computes_right_results(census: Census) -> None:
    assert len(census.measurements) == len(census.machine.accelerators)
    for measurement, verdict in zip(census.measurements, census.verdicts(), strict=True):
        assert measurement.problem is None
        assert verdict.is_functional, verdict.reason
        assert all(figure.is_correct for figure in measurement.figures)


def test_no_device_is_faster_than_its_nameplate(census: Census) -> None:
    for measurement, verdict in zip(census.measurements, census.verdicts(), strict=True):
        assert (measurement.flops("bf16") or 0) > 1e12
        for ratio in (verdict.nameplate_ratio, verdict.bandwidth_ratio):
            assert ratio is None or 0.05 < ratio <= 1.02


def test_the_node_of_this_machine_has_its_devices_by_uuid_and_a_ceiling(census: Census) -> None:
    (first, *_) = nodes_of(census.machine)
    assert first.node.vendor == "nvidia"
    assert all(id_.startswith("GPU-") for id_ in first.device_ids)
    assert (first.node.id, "bf16") in ceilings_of(census)
