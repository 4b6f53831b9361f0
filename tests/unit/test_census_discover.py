"""Discovery on described machines: trees of /proc and /sys, a fake NVML, a fake vendors' library."""

import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from artesian.census import Machine, discover

GIB = 2**30


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text + "\n")


def describe_cpus(root: Path, cores: Iterable[tuple[int, int, tuple[int, ...]]]) -> None:
    """Write the topology of ``cores``: (package, core id, logical CPUs) each."""
    everything: list[int] = []
    for package, core, cpus in cores:
        everything += cpus
        for cpu in cpus:
            folder = f"sys/devices/system/cpu/cpu{cpu}"
            write(
                root,
                {
                    f"{folder}/topology/physical_package_id": str(package),
                    f"{folder}/topology/core_id": str(core),
                    f"{folder}/topology/thread_siblings_list": ",".join(map(str, cpus)),
                    f"{folder}/cache/index3/size": "32768K",
                    f"{folder}/cache/index3/shared_cpu_list": f"package {package}",
                },
            )
    write(root, {"sys/devices/system/cpu/online": ",".join(map(str, sorted(everything)))})


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A server with 2 sockets of 4 cores with 2 threads each, in 2 NUMA nodes; core ids repeat."""
    describe_cpus(
        tmp_path,
        [(package, core, (c := package * 4 + core, c + 8)) for package in (0, 1) for core in range(4)],
    )
    write(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) 6430",
            "proc/meminfo": "MemTotal:       527955828 kB\nMemFree:        1000 kB",
            "proc/self/cgroup": "0::/user.slice/session.scope",
            "sys/devices/system/node/online": "0-1",
            "sys/devices/system/node/node0/cpulist": "0-3,8-11",
            "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:       263977914 kB",
            "sys/devices/system/node/node1/cpulist": "4-7,12-15",
        },
    )
    return tmp_path


ALL = frozenset(range(16))


def test_a_server_is_described_with_its_sockets_cores_memory_and_numa_nodes(server: Path) -> None:
    machine = discover(root=server, affinity=ALL)
    host = machine.host
    assert (host.sockets, host.physical_cores, host.logical_cpus) == (2, 8, 16)
    assert host.cpu_model == "Intel(R) Xeon(R) 6430"
    assert host.memory_bytes == 527955828 * 1024
    assert host.last_level_cache_bytes == 2 * 32 * 2**20
    assert [(n.index, n.logical_cpus, n.cores) for n in host.numa_nodes] == [(0, 8, 4), (1, 8, 4)]
    assert [n.memory_bytes for n in host.numa_nodes] == [263977914 * 1024, None]
    assert (host.cpu_quota, host.memory_limit_bytes) == (None, None)
    assert host.core_cpus == tuple(range(8))
    assert machine.problems == ()


def test_a_machine_without_accelerators_offers_its_usable_physical_cores(server: Path) -> None:
    assert discover(root=server, affinity=ALL).device_counts == {"cpu": 8}


def test_two_threads_of_one_core_are_one_device(server: Path) -> None:
    host = discover(root=server, affinity=frozenset({1, 9, 2})).host
    assert host.core_cpus == (1, 2)
    assert host.usable_cores == 2
    assert host.usable_cpus == (1, 2, 9)


@pytest.mark.parametrize(
    ("files", "quota", "cores"),
    [
        ({"user.slice/session.scope/cpu.max": "max 100000"}, None, 8),
        ({"user.slice/session.scope/cpu.max": "250000 100000"}, 2.5, 2),
        (
            {"user.slice/session.scope/cpu.max": "600000 100000", "user.slice/cpu.max": "300000 100000"},
            3.0,
            3,
        ),
        ({"user.slice/cpu.max": "50000 100000"}, 0.5, 1),
        ({"cpu.max": "400000 100000"}, 4.0, 4),
    ],
)
def test_a_cpu_quota_of_cgroup_v2_binds_wherever_it_is_set(
    server: Path, files: dict[str, str], quota: float | None, cores: int
) -> None:
    write(server / "sys/fs/cgroup", files)
    host = discover(root=server, affinity=ALL).host
    assert host.cpu_quota == quota
    assert host.usable_cores == cores


@pytest.mark.parametrize("folder", ["cpu,cpuacct/docker/abc", "cpu,cpuacct", "cpu/docker/abc", "cpu"])
def test_a_cpu_quota_of_cgroup_v1_binds_inside_and_outside_of_a_container(server: Path, folder: str) -> None:
    write(
        server,
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc",
            f"sys/fs/cgroup/{folder}/cpu.cfs_quota_us": "200000",
            f"sys/fs/cgroup/{folder}/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(8 * GIB),
        },
    )
    host = discover(root=server, affinity=ALL).host
    assert (host.cpu_quota, host.usable_cores) == (2.0, 2)
    assert host.memory_limit_bytes == host.usable_memory_bytes == 8 * GIB


def test_no_limit_of_cgroup_v1_is_no_limit(server: Path) -> None:
    write(
        server,
        {
            "proc/self/cgroup": "5:memory:/\n4:cpu:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096),
        },
    )
    host = discover(root=server, affinity=ALL).host
    assert (host.cpu_quota, host.memory_limit_bytes) == (None, None)
    assert host.usable_memory_bytes == host.memory_bytes


def test_a_memory_limit_of_cgroup_v2_is_the_usable_memory(server: Path) -> None:
    write(server, {"sys/fs/cgroup/user.slice/memory.max": str(64 * GIB)})
    host = discover(root=server, affinity=ALL).host
    assert host.usable_memory_bytes == 64 * GIB < (host.memory_bytes or 0)


def test_an_arm_machine_is_named_by_its_part_number(server: Path) -> None:
    write(server, {"proc/cpuinfo": "processor : 0\nCPU implementer : 0x48\nCPU part : 0xd01"})
    assert discover(root=server, affinity=ALL).host.cpu_model == "HiSilicon TaiShan v110 (Kunpeng 920)"


def test_without_a_topology_logical_cpus_are_counted_and_it_is_said(server: Path) -> None:
    (server / "sys/devices/system/cpu/cpu3/topology/core_id").unlink()
    machine = discover(root=server, affinity=ALL)
    assert machine.host.physical_cores is None
    assert machine.host.sockets is None
    assert machine.device_counts == {"cpu": 16}
    assert any("counting logical CPUs as cores" in problem for problem in machine.problems)


def test_a_bare_root_is_described_as_unknown_and_never_as_zero(tmp_path: Path) -> None:
    machine = discover(root=tmp_path, affinity=frozenset({0, 1}))
    host = machine.host
    assert (host.cpu_model, host.memory_bytes, host.usable_memory_bytes) == (None, None, None)
    assert (host.physical_cores, host.last_level_cache_bytes) == (None, None)
    assert machine.device_counts == {"cpu": 2}
    assert machine.problems


def test_this_machine_is_discovered() -> None:
    machine = discover()
    assert machine.host.usable_cores >= 1
    assert machine.host.logical_cpus >= len(machine.host.core_cpus) >= 1
    assert (machine.host.memory_bytes or 0) > 0
    assert machine.device_counts


class NvmlError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


class FakeNvml:
    """What ``discover`` uses of pynvml. A device is (name, memory), or the error that it answers with."""

    NVMLError = NvmlError
    NVML_ERROR_LIBRARY_NOT_FOUND = 12
    NVML_ERROR_GPU_IS_LOST = 15

    def __init__(self, *devices: tuple[str, int] | int, init_error: int | None = None) -> None:
        self.devices = devices
        self.init_error = init_error
        self.is_open = False

    def nvmlInit(self) -> None:  # noqa: N802
        if self.init_error is not None:
            raise NvmlError(self.init_error)
        self.is_open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.is_open = False

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "570.86.10"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> tuple[int, str, int]:  # noqa: N802
        device = self.devices[index]
        if isinstance(device, int):
            raise NvmlError(device)
        return (index, *device)

    def nvmlDeviceGetName(self, handle: tuple[int, str, int]) -> bytes:  # noqa: N802
        return handle[1].encode()  # older versions of the library return bytes

    def nvmlDeviceGetUUID(self, handle: tuple[int, str, int]) -> str:  # noqa: N802
        return f"GPU-{handle[0]}"

    def nvmlDeviceGetMemoryInfo(self, handle: tuple[int, str, int]) -> Any:  # noqa: N802
        return SimpleNamespace(total=handle[2])


H100 = ("NVIDIA H100 80GB HBM3", 81559 * 2**20)


def test_nvidia_devices_are_found_with_their_catalogue_entry(server: Path) -> None:
    nvml = FakeNvml(H100, H100)
    machine = discover(root=server, affinity=ALL, nvml=nvml)
    assert machine.device_counts == {"NVIDIA H100 80GB HBM3": 2}
    first, second = machine.accelerators
    assert (first.index, first.uuid, first.driver) == (0, "GPU-0", "570.86.10")
    assert (second.index, second.memory_bytes) == (1, 81559 * 2**20)
    assert first.accelerator is not None
    assert first.accelerator.trusted_peak_flops == 989e12
    assert machine.problems == ()
    assert not nvml.is_open


def test_an_nvidia_device_that_nobody_catalogued_has_no_peak(server: Path) -> None:
    (device,) = discover(root=server, affinity=ALL, nvml=FakeNvml(("NVIDIA Z999", GIB))).accelerators
    assert device.name == "NVIDIA Z999"
    assert device.accelerator is None


def test_a_device_whose_memory_contradicts_the_catalogue_has_no_peak(server: Path) -> None:
    machine = discover(root=server, affinity=ALL, nvml=FakeNvml(("NVIDIA H20", 141 * GIB)))
    assert machine.accelerators[0].accelerator is None
    assert any("141 GiB, where the catalogue has 96" in problem for problem in machine.problems)


def test_a_lost_device_is_a_problem_and_the_others_are_found(server: Path) -> None:
    machine = discover(root=server, affinity=ALL, nvml=FakeNvml(H100, FakeNvml.NVML_ERROR_GPU_IS_LOST, H100))
    assert [device.index for device in machine.accelerators] == [0, 2]
    assert machine.problems == ("nvidia device 1 does not answer: error 15",)


def test_a_missing_library_is_no_problem_where_there_is_no_device(server: Path) -> None:
    machine = discover(root=server, affinity=ALL, nvml=FakeNvml(init_error=12))
    assert machine.problems == ()
    assert machine.device_counts == {"cpu": 8}


def test_a_broken_driver_is_a_problem(server: Path) -> None:
    machine = discover(root=server, affinity=ALL, nvml=FakeNvml(init_error=9))
    assert machine.problems == ("nvidia: NVML is installed but does not start: error 9",)


def put_on_the_bus(root: Path, vendor: str, kind: str, count: int = 1) -> None:
    for number in range(count):
        folder = f"sys/bus/pci/devices/0000:{kind[2:]}:{number:02x}.0"
        write(root, {f"{folder}/vendor": vendor, f"{folder}/class": kind})


def test_a_card_on_the_bus_without_its_library_is_a_problem(server: Path) -> None:
    put_on_the_bus(server, "0x10de", "0x030200", count=8)
    machine = discover(root=server, affinity=ALL, nvml=FakeNvml(init_error=12))
    assert machine.problems == ("nvidia: 8 on the PCI bus, but NVML does not start: error 12",)


@pytest.fixture
def without_vendors_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gpustack_runtime", "gpustack_runtime.detector"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    # None makes the import fail, as if the package were not installed.
    monkeypatch.setitem(sys.modules, "gpustack_runtime", None)


def with_vendors_library(monkeypatch: pytest.MonkeyPatch, devices: list[Any]) -> None:
    detector = ModuleType("gpustack_runtime.detector")
    detector.detect_devices = lambda fast, usage: devices  # type: ignore[attr-defined]
    package = ModuleType("gpustack_runtime")
    package.detector = detector  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gpustack_runtime", package)
    monkeypatch.setitem(sys.modules, "gpustack_runtime.detector", detector)


def vendors_device(manufacturer: str, name: str, memory_mib: int) -> Any:
    return SimpleNamespace(
        manufacturer=manufacturer, index=0, name=name, uuid="", driver_version=None, memory=memory_mib
    )


@pytest.mark.usefixtures("without_vendors_library")
def test_cards_of_other_vendors_without_the_extra_are_a_problem_that_says_what_to_install(
    server: Path,
) -> None:
    put_on_the_bus(server, "0x19e5", "0x120000", count=8)
    machine = discover(root=server, affinity=ALL)
    assert machine.problems == (
        "8 ascend devices on the PCI bus: install artesian[accelerators] to see them",
    )


@pytest.mark.usefixtures("without_vendors_library")
def test_the_screen_of_a_management_controller_is_no_missed_accelerator(server: Path) -> None:
    put_on_the_bus(server, "0x19e5", "0x030000")
    assert discover(root=server, affinity=ALL).problems == ()


def test_devices_of_other_vendors_are_found(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_the_bus(server, "0x19e5", "0x120000")
    with_vendors_library(
        monkeypatch,
        [vendors_device("ascend", "910B3", 65536), vendors_device("nvidia", "NVIDIA H200", 143771)],
    )
    (device,) = discover(root=server, affinity=ALL).accelerators
    assert (device.vendor, device.uuid, device.driver) == ("ascend", None, None)
    assert device.accelerator is not None
    assert device.accelerator.model == "910B3"


def test_memory_of_zero_is_unknown(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_the_bus(server, "0x19e5", "0x120000")
    with_vendors_library(monkeypatch, [vendors_device("ascend", "910B3", 0)])
    assert discover(root=server, affinity=ALL).accelerators[0].memory_bytes is None


def test_half_of_a_two_chip_card_does_not_claim_the_cards_peak(
    server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_the_bus(server, "0x1002", "0x120000")
    with_vendors_library(monkeypatch, [vendors_device("amd", "AMD Instinct MI250X", 65520)])
    assert discover(root=server, affinity=ALL).accelerators[0].accelerator is None


def test_cards_that_their_library_does_not_find_are_a_problem(
    server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_the_bus(server, "0xcabc", "0x120000", count=2)
    with_vendors_library(monkeypatch, [])
    machine: Machine = discover(root=server, affinity=ALL)
    assert machine.problems == (
        "2 cambricon devices on the PCI bus, but the vendor's library finds none: is its driver up?",
    )


def test_a_machine_whose_memory_has_changed_is_the_same_machine(server: Path) -> None:
    before = discover(root=server, affinity=ALL)
    write(server, {"sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:       1000 kB"})
    assert before.is_same_as(discover(root=server, affinity=ALL))


def test_a_machine_with_another_device_is_another_machine(server: Path) -> None:
    bare = discover(root=server, affinity=ALL)
    assert not bare.is_same_as(discover(root=server, affinity=ALL, nvml=FakeNvml(H100)))
    assert not bare.is_same_as(discover(root=server, affinity=frozenset({0, 1})))
