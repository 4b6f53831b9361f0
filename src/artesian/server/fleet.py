"""This machine, as nodes that jobs can be placed on."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from artesian.census import Census, FoundDevice, Machine
from artesian.engines.base import HostNode
from artesian.kernel.accounting import Ceilings
from artesian.model.fleet import Node
from artesian.model.ledger import Ceiling
from artesian.model.resources import CPU


def nodes_of(machine: Machine) -> Sequence[HostNode]:
    """Return the machine's nodes: one for each kind of accelerator, or one whose devices are CPU cores.

    The host's CPUs and memory are divided among several kinds by their devices.
    """
    host = machine.host
    memory_bytes = host.usable_memory_bytes or 0
    cpus = len(host.usable_cpus)
    if not machine.accelerators:
        node = Node(
            id=host.hostname,
            accelerator=CPU,
            devices=host.usable_cores,
            cpus=max(1, cpus),
            memory_bytes=memory_bytes,
        )
        return [HostNode(node=node, device_ids=tuple(map(str, host.core_cpus[: host.usable_cores])))]
    kinds = [list(devices) for _, devices in groupby(sorted(machine.accelerators, key=_kind), key=_kind)]
    total = len(machine.accelerators)
    nodes = []
    for id_, devices in zip(_node_ids(host.hostname, kinds), kinds, strict=True):
        first = devices[0]
        entry = first.accelerator
        node = Node(
            id=id_,
            accelerator=first.name if entry is None else entry.model,
            devices=len(devices),
            cpus=max(1, cpus * len(devices) // total),
            memory_bytes=memory_bytes * len(devices) // total,
            vendor=first.vendor,
            device_memory_bytes=first.memory_bytes,
            peak_flops=None if entry is None else entry.trusted_peak_flops,
        )
        nodes.append(HostNode(node=node, device_ids=tuple(_device_id(device) for device in devices)))
    return nodes


def _node_ids(hostname: str, kinds: Sequence[Sequence[FoundDevice]]) -> Sequence[str]:
    """Return an id for each kind; devices of one name and of several sizes of memory are numbered."""
    if len(kinds) == 1:
        return [hostname]
    ids: list[str] = []
    for first, *_ in kinds:
        id_ = f"{hostname}/{_slug(first.name)}"
        same = sum(known == id_ or known.startswith(f"{id_}#") for known in ids)
        ids.append(f"{id_}#{same + 1}" if same else id_)
    return ids


def ceilings_of(census: Census) -> Ceilings:
    """Return the FLOP/s of one device by node id and dtype, of the nodes of the census's machine."""
    return {
        (node.id, dtype): ceiling
        for node, ceilings in ceiling_of_each(census)
        for dtype, ceiling in ceilings.items()
    }


def ceiling_of_each(census: Census) -> Iterator[tuple[Node, Mapping[str, Ceiling]]]:
    """Yield each node of the census's machine with the ceilings of one of its devices by dtype."""
    machine = census.machine
    for entry in nodes_of(machine):
        index = _first_index(machine, entry)
        found = {dtype: census.ceiling_flops(dtype, index=index) for dtype in ("fp32", "bf16")}
        yield entry.node, {dtype: ceiling for dtype, ceiling in found.items() if ceiling is not None}


def _first_index(machine: Machine, entry: HostNode) -> int | None:
    """Return the library's index of the node's first device; None for CPU cores."""
    first = next((d for d in machine.accelerators if _device_id(d) == entry.device_ids[0]), None)
    return None if first is None else first.index


def _device_id(device: FoundDevice) -> str:
    # CUDA numbers devices by speed and NVML by their place on the bus: only the UUID means the same to both.
    return device.uuid if device.vendor == "nvidia" and device.uuid is not None else str(device.index)


def _kind(device: FoundDevice) -> tuple[str, str, int]:
    return (device.vendor, device.name, device.memory_bytes or 0)


def _slug(name: str) -> str:
    return "-".join(name.lower().split())
