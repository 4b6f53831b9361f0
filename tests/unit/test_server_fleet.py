"""This machine as nodes, and the ceilings of their devices."""

from typing import Any

import pytest

from artesian.census import Census, Figure, FoundDevice, Host, Machine, Measurement
from artesian.model.capacity import Capacity
from artesian.model.resources import parse_devices
from artesian.server.fleet import ceilings_of, nodes_of

GIB = 2**30


def a_host(**more: Any) -> Host:
    """A host of 8 cores with two threads each, and 64 GiB."""
    given: dict[str, Any] = {
        "hostname": "box",
        "architecture": "x86_64",
        "cpu_model": "a CPU",
        "sockets": 1,
        "physical_cores": 8,
        "logical_cpus": 16,
        "usable_cpus": tuple(range(16)),
        "cpu_quota": None,
        "core_cpus": tuple(range(8)),
        "usable_cores": 8,
        "memory_bytes": 64 * GIB,
        "memory_limit_bytes": None,
        "last_level_cache_bytes": None,
        "numa_nodes": (),
    }
    return Host(**{**given, **more})


def a_device(index: int = 0, **more: Any) -> FoundDevice:
    """An H100 as NVML describes it."""
    given: dict[str, Any] = {
        "vendor": "nvidia",
        "uuid": f"GPU-{index}",
        "name": "NVIDIA H100 80GB HBM3",
        "memory_bytes": 80 * GIB,
        "driver": "550",
        "model": "H100-SXM5-80GB",
    }
    return FoundDevice(index=index, **{**given, **more})


def an_unknown_device(index: int, **more: Any) -> FoundDevice:
    """A device that no catalogue knows."""
    given: dict[str, Any] = {"vendor": "acme", "uuid": None, "name": "Acme  X1", "model": None}
    return a_device(index, **{**given, **more})


def a_measurement(
    *,
    index: int | None,
    devices: int = 1,
    fp32: float | None = None,
    bf16: float | None = None,
    runs: int = 3,
) -> Measurement:
    """What the devices reach together; without ``runs``, no run was undisturbed."""

    def figure(best: float | None) -> Figure | None:
        return (
            None
            if best is None
            else Figure(
                kernel="k", best=best, median=best, runs=3, valid_runs=runs, is_correct=True, worst_error=0.1
            )
        )

    return Measurement(
        accelerator="x",
        index=index,
        uuid=None,
        devices=devices,
        fp32_flops=figure(fp32),
        bf16_flops=figure(bf16),
    )


def ceilings(machine: Machine, *measurements: Measurement) -> dict[tuple[str, str], tuple[float, str]]:
    found = ceilings_of(Census(machine=machine, measurements=measurements, at_s=0.0))
    return {key: (ceiling.flops, ceiling.basis) for key, ceiling in found.items()}


def test_a_machine_without_accelerators_is_one_node_whose_devices_are_its_cores() -> None:
    [entry] = nodes_of(Machine(host=a_host(), accelerators=()))
    node = entry.node
    assert (node.id, node.accelerator, node.devices, node.cpus) == ("box", "cpu", 8, 16)
    assert node.memory_bytes == 64 * GIB
    assert (node.vendor, node.peak_flops, node.device_memory_bytes) == (None, None, None)
    assert entry.device_ids == tuple("01234567")


def test_a_core_that_the_quota_cannot_keep_busy_is_no_device() -> None:
    [entry] = nodes_of(Machine(host=a_host(usable_cores=3, cpu_quota=3.5), accelerators=()))
    assert entry.node.devices == 3
    assert entry.device_ids == ("0", "1", "2")


def test_like_accelerators_are_one_node_with_the_catalogues_name_and_peak() -> None:
    [entry] = nodes_of(Machine(host=a_host(), accelerators=(a_device(0), a_device(1))))
    node = entry.node
    assert (node.id, node.accelerator, node.vendor) == ("box", "H100-SXM5-80GB", "nvidia")
    assert (node.devices, node.cpus, node.memory_bytes) == (2, 16, 64 * GIB)
    assert node.device_memory_bytes == 80 * GIB
    assert node.peak_flops == pytest.approx(989e12, rel=0.01)


def test_nvidia_devices_go_by_their_uuid_and_others_by_their_index() -> None:
    [nvidia] = nodes_of(Machine(host=a_host(), accelerators=(a_device(3),)))
    assert nvidia.device_ids == ("GPU-3",)
    [nameless] = nodes_of(Machine(host=a_host(), accelerators=(a_device(3, uuid=None),)))
    assert nameless.device_ids == ("3",)
    [other] = nodes_of(Machine(host=a_host(), accelerators=(an_unknown_device(3, uuid="ACME-3"),)))
    assert other.device_ids == ("3",)


def test_an_unknown_accelerator_has_its_own_name_and_no_peak() -> None:
    [entry] = nodes_of(Machine(host=a_host(), accelerators=(an_unknown_device(0),)))
    assert (entry.node.accelerator, entry.node.peak_flops) == ("Acme  X1", None)


def test_each_kind_is_a_node_of_its_own_with_its_part_of_the_host() -> None:
    machine = Machine(
        host=a_host(), accelerators=(an_unknown_device(0), a_device(0), a_device(1), a_device(2))
    )
    nodes = {entry.node.id: entry.node for entry in nodes_of(machine)}
    assert nodes.keys() == {"box/acme-x1", "box/nvidia-h100-80gb-hbm3"}
    one, three = nodes["box/acme-x1"], nodes["box/nvidia-h100-80gb-hbm3"]
    assert (one.devices, one.cpus, one.memory_bytes) == (1, 4, 16 * GIB)
    assert (three.devices, three.cpus, three.memory_bytes) == (3, 12, 48 * GIB)


def test_the_same_name_with_another_memory_is_another_kind() -> None:
    machine = Machine(host=a_host(), accelerators=(a_device(0), a_device(1, memory_bytes=40 * GIB)))
    entries = nodes_of(machine)
    assert [entry.node.devices for entry in entries] == [1, 1]
    assert len({entry.node.id for entry in entries}) == 2, "two nodes never share an id"


def test_a_job_finds_its_devices_among_the_nodes() -> None:
    machine = Machine(host=a_host(), accelerators=(a_device(0), a_device(1)))
    capacity = Capacity(entry.node for entry in nodes_of(machine))
    for text, fits in (("H100:2", True), ("nvidia:H100:80GB:1", True), ("MI300X:1", False), (2, True)):
        [request] = parse_devices(text)
        assert bool(capacity.eligible(request).any()) is fits, text


def test_the_ceiling_of_a_core_is_its_share_of_what_all_reach_together() -> None:
    machine = Machine(host=a_host(), accelerators=())
    measurement = a_measurement(index=None, devices=8, fp32=80e9, bf16=16e9)
    assert ceilings(machine, measurement) == {
        ("box", "fp32"): (10e9, "measured fp32"),
        ("box", "bf16"): (2e9, "measured bf16"),
    }


def test_a_trusted_nameplate_is_the_ceiling_in_bf16_and_a_measurement_in_fp32() -> None:
    machine = Machine(host=a_host(), accelerators=(a_device(0),))
    found = ceilings(machine, a_measurement(index=0, fp32=50e12, bf16=700e12))
    assert found["box", "bf16"][1] == "nameplate bf16"
    assert found["box", "bf16"][0] == pytest.approx(989e12, rel=0.01)
    assert found["box", "fp32"] == (50e12, "measured fp32")


def test_what_was_not_measured_has_no_ceiling_and_what_was_disturbed_neither() -> None:
    machine = Machine(host=a_host(), accelerators=())
    assert ceilings(machine) == {}
    assert ceilings(machine, a_measurement(index=None, devices=8, fp32=80e9, runs=0)) == {}


def test_each_kind_has_the_ceiling_of_its_own_first_device() -> None:
    machine = Machine(host=a_host(), accelerators=(an_unknown_device(0), a_device(1)))
    found = ceilings(machine, a_measurement(index=0, fp32=1e12), a_measurement(index=1, fp32=50e12))
    assert found["box/acme-x1", "fp32"] == (1e12, "measured fp32")
    assert found["box/nvidia-h100-80gb-hbm3", "fp32"] == (50e12, "measured fp32")
    assert ("box/acme-x1", "bf16") not in found
