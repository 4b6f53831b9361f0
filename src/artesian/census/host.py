"""The host: CPUs, memory and NUMA nodes, from Linux's /proc and /sys.

Every path is taken below ``root``, so that a test can describe a machine as a tree of small files.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from artesian.census.machine import Host, NumaNode

_NO_LIMIT_BYTES = 2**60
"""cgroup v1 writes a huge number where there is no limit."""

_ARM_PARTS = {  # /proc/cpuinfo of an ARM machine has numbers instead of a name
    ("0x41", "0xd0c"): "Arm Neoverse-N1",
    ("0x41", "0xd40"): "Arm Neoverse-V1",
    ("0x41", "0xd49"): "Arm Neoverse-N2",
    ("0x41", "0xd4f"): "Arm Neoverse-V2",
    ("0x48", "0xd01"): "HiSilicon TaiShan v110 (Kunpeng 920)",
}


def read_host(root: Path, affinity: Iterable[int], problems: list[str]) -> Host:
    """Return the host below ``root`` for a process that may run on the logical CPUs ``affinity``.

    What is missing or odd is appended to ``problems``.
    """
    cpus = root / "sys/devices/system/cpu"
    online = _cpu_list(_text(cpus / "online"))
    usable = sorted(set(affinity))
    if online is None:
        online = usable
        problems.append(
            f"{cpus / 'online'} is not readable: taking the CPUs of this process for all there are"
        )
    core_of = {cpu: core for cpu in online if (core := _core(cpus / f"cpu{cpu}")) is not None}
    is_known = len(core_of) == len(online)
    if not is_known:
        problems.append(f"the core topology below {cpus} is incomplete: counting logical CPUs as cores")
    core_cpus = _one_cpu_per_core(usable, core_of) if is_known else tuple(usable)
    quota = _cpu_quota(root)
    memory = _memory_bytes(root)
    return Host(
        hostname=os.uname().nodename,
        architecture=os.uname().machine,
        cpu_model=_cpu_model(root),
        sockets=len({package for package, _ in core_of.values()}) if is_known else None,
        physical_cores=len(set(core_of.values())) if is_known else None,
        logical_cpus=len(online),
        usable_cpus=tuple(usable),
        cpu_quota=quota,
        core_cpus=core_cpus,
        usable_cores=max(1, min(len(core_cpus), int(quota)) if quota is not None else len(core_cpus)),
        memory_bytes=memory,
        memory_limit_bytes=_memory_limit_bytes(root),
        last_level_cache_bytes=_last_level_cache_bytes(cpus, core_cpus),
        numa_nodes=tuple(_numa_nodes(root, core_of if is_known else None)),
    )


def _core(cpu: Path) -> tuple[str, str] | None:
    package, core = _text(cpu / "topology/physical_package_id"), _text(cpu / "topology/core_id")
    if package is None or core is None:
        return None
    # Core ids repeat from die to die on some machines; the siblings' list does not.
    return package, _text(cpu / "topology/thread_siblings_list") or core


def _one_cpu_per_core(cpus: Iterable[int], core_of: dict[int, tuple[str, str]]) -> tuple[int, ...]:
    first: dict[tuple[str, str], int] = {}
    for cpu in cpus:
        if cpu in core_of:
            first.setdefault(core_of[cpu], cpu)
    return tuple(first.values())


def _last_level_cache_bytes(cpus: Path, core_cpus: Iterable[int]) -> int | None:
    caches: dict[str, int] = {}
    for cpu in core_cpus:
        cache = cpus / f"cpu{cpu}/cache/index3"
        shared, size = _text(cache / "shared_cpu_list"), _text(cache / "size")
        if shared is None or size is None or not size.endswith("K"):
            return None
        caches[shared] = int(size[:-1]) * 1024
    return sum(caches.values()) or None


def _cpu_model(root: Path) -> str | None:
    try:
        with open(root / "proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            head = file.read(4096)  # the first CPU's block; the file as a whole is slow on big machines
    except OSError:
        return None
    fields: dict[str, str] = {}
    for line in head.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    if name := fields.get("model name") or fields.get("cpu"):
        return name
    return _ARM_PARTS.get((fields.get("CPU implementer", ""), fields.get("CPU part", "")))


def _memory_bytes(root: Path) -> int | None:
    return _kib_field(_text(root / "proc/meminfo"), "MemTotal")


def _numa_nodes(root: Path, core_of: dict[int, tuple[str, str]] | None) -> Iterator[NumaNode]:
    nodes = root / "sys/devices/system/node"
    for index in _cpu_list(_text(nodes / "online")) or []:
        cpus = _cpu_list(_text(nodes / f"node{index}/cpulist")) or []
        yield NumaNode(
            index=index,
            logical_cpus=len(cpus),
            cores=None if core_of is None else len({core_of[cpu] for cpu in cpus if cpu in core_of}),
            memory_bytes=_kib_field(_text(nodes / f"node{index}/meminfo"), "MemTotal"),
        )


def _cpu_quota(root: Path) -> float | None:
    quotas = []
    for folder in _cgroup_folders(root, "cpu"):
        if (text := _text(folder / "cpu.max")) is not None:  # v2: "max 100000" or "200000 100000"
            quota, _, period = text.partition(" ")
        else:
            quota = _text(folder / "cpu.cfs_quota_us") or "-1"
            period = _text(folder / "cpu.cfs_period_us") or "100000"
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _memory_limit_bytes(root: Path) -> int | None:
    limits = []
    for folder in _cgroup_folders(root, "memory"):
        text = _text(folder / "memory.max") or _text(folder / "memory.limit_in_bytes")
        if text is not None and text.isdigit() and int(text) < _NO_LIMIT_BYTES:
            limits.append(int(text))
    return min(limits, default=None)


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders whose limits bind this process: its own cgroup and those above it, v1 and v2."""
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, names, path = line.split(":", 2)
        if names == "":
            mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif controller in names.split(","):
            mounts = [root / "sys/fs/cgroup" / names, root / "sys/fs/cgroup" / controller]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in dict.fromkeys(mounts):
            # In a container the path is the host's, and the mount is already the container's own
            # cgroup: the folders named by the path are missing there, the mount's limits still bind.
            for depth in range(len(parts), -1, -1):
                yield mount.joinpath(*parts[:depth])


def _cpu_list(text: str | None) -> list[int] | None:
    """Return the numbers in a list such as ``0-3,8,10-11``."""
    if text is None:
        return None
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def _kib_field(text: str | None, name: str) -> int | None:
    match = re.search(rf"\b{name}:\s+(\d+) kB", text or "")
    return int(match[1]) * 1024 if match else None


def _text(path: Path) -> str | None:
    """Return the file's text without surrounding whitespace; None where it cannot be read or is empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
