"""What a machine is: the data that ``discover`` returns."""

from dataclasses import dataclass

from artesian import catalog
from artesian.catalog import Accelerator

CPU = "cpu"
"""The accelerator name of a CPU core, on a machine that has no accelerators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaNode:
    """Memory and the CPUs close to it.

    ``cores`` and ``logical_cpus`` are the machine's, whether this process may use them or not.
    """

    index: int
    logical_cpus: int
    cores: int | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine around the devices. What the system does not tell is None.

    ``sockets``, ``physical_cores`` and ``logical_cpus`` are the machine's. What this process may use is
    less where its CPU affinity or its cgroup says so: ``usable_cpus`` are the logical CPUs of the former,
    ``cpu_quota`` is the latter in CPUs. ``core_cpus`` names one usable logical CPU of each usable
    physical core, and ``usable_cores`` counts those that the quota can keep busy, at least one.
    ``memory_limit_bytes`` is the cgroup's limit; None where there is none. ``last_level_cache_bytes`` sums the
    third-level caches that the usable CPUs reach.
    """

    hostname: str
    architecture: str
    cpu_model: str | None
    sockets: int | None
    physical_cores: int | None
    logical_cpus: int
    usable_cpus: tuple[int, ...]
    cpu_quota: float | None
    core_cpus: tuple[int, ...]
    usable_cores: int
    memory_bytes: int | None
    memory_limit_bytes: int | None
    last_level_cache_bytes: int | None
    numa_nodes: tuple[NumaNode, ...]

    @property
    def usable_memory_bytes(self) -> int | None:
        """Memory that this process may use: the machine's or the cgroup's limit, whichever is less."""
        known = [size for size in (self.memory_bytes, self.memory_limit_bytes) if size is not None]
        return min(known, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDevice:
    """An accelerator as its vendor's library describes it.

    ``vendor`` is the catalogue's key, ``index`` the library's own. ``model`` is the catalogued model that
    the device is, None where its name is unknown or its memory contradicts the catalogue.
    """

    vendor: str
    index: int
    uuid: str | None
    name: str
    memory_bytes: int | None
    driver: str | None
    model: str | None

    @property
    def accelerator(self) -> Accelerator | None:
        """The catalogue's entry for the device."""
        return None if self.model is None else catalog.find(self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine: its host, its accelerators, and what stood in the way of finding more.

    ``problems`` are sentences for a person: a driver that does not start, a card without its library.
    """

    host: Host
    accelerators: tuple[FoundDevice, ...]
    problems: tuple[str, ...] = ()

    def is_same_as(self, other: "Machine") -> bool:
        """Whether both are the same machine with the same devices, so that figures of one hold for the other.

        Memory is left out: on a virtual machine it comes and goes.
        """
        mine, its = self.host, other.host
        return (
            (mine.hostname, mine.architecture, mine.cpu_model)
            == (its.hostname, its.architecture, its.cpu_model)
            and (mine.usable_cpus, mine.usable_cores) == (its.usable_cpus, its.usable_cores)
            and self.accelerators == other.accelerators
        )

    @property
    def device_counts(self) -> dict[str, int]:
        """Devices that the machine offers, by accelerator name.

        A machine without accelerators offers its usable physical cores as devices named ``cpu``.
        """
        counts: dict[str, int] = {}
        for device in self.accelerators:
            counts[device.name] = counts.get(device.name, 0) + 1
        return counts or {CPU: self.host.usable_cores}
