"""Slurm's nodes as ours, and what other people's jobs occupy of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from artesian import catalog
from artesian.engines.slurm.parse import SlurmNode
from artesian.model.fleet import Node
from artesian.model.resources import CPU

_GONE = frozenset({"DOWN", "FAIL", "ERROR", "FUTURE", "POWERING_DOWN"})
"""States in which nothing runs on a node, or will soon."""
_CLOSED = frozenset(
    {
        "BLOCKED",
        "DRAIN",
        "DRAINED",
        "DRAINING",
        "FAILING",
        "INVAL",
        "INVALID_REG",
        "MAINT",
        "MAINTENANCE",
        "REBOOT",
        "REBOOT_ISSUED",
        "REBOOT_REQUESTED",
        "RESERVED",
    }
)
"""States in which what runs goes on, and nothing starts: somebody wants the node for something else."""
_SILENT = frozenset({"UNKNOWN", "NOT_RESPONDING"})
"""States of nodes that Slurm has not heard of for a moment, as all are when its controller has just started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """Devices, CPUs and memory of one node."""

    devices: int = 0
    cpus: int = 0
    memory_bytes: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        """Return both together."""
        return Amount(
            devices=self.devices + other.devices,
            cpus=self.cpus + other.cpus,
            memory_bytes=self.memory_bytes + other.memory_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What our own attempts have on a node.

    ``devices`` are the indices that they were planned on, ``planned`` is what they have or wait for, and
    ``granted`` the part of it that Slurm counts as used.
    """

    devices: frozenset[int] = frozenset()
    planned: Amount = Amount()
    granted: Amount = Amount()


NOTHING = Held()


class Offer(Struct, frozen=True, kw_only=True):
    """A node of Slurm's that artesian may use, or part of it: what it is to us, and to Slurm.

    ``gres_type`` is Slurm's word for its devices, ``""`` where they have no type, None where the node's
    devices are its CPUs.
    """

    node: Node
    slurm: SlurmNode
    gres_type: str | None

    @property
    def cpus_per_device(self) -> float:
        """CPUs that one device brings along."""
        return self.slurm.cpus / max(1, self.node.devices)

    @property
    def memory_bytes_per_device(self) -> float:
        """Memory of the host that one device brings along; 0 where it is not known."""
        return self.slurm.memory_bytes / max(1, self.node.devices)


def offers_of(
    slurm_nodes: list[SlurmNode],
    held: Mapping[str, Held],
    *,
    partition: str | None,
    pool: str,
    accelerators: Mapping[str, str],
    racks: Mapping[str, str] | None = None,
) -> dict[str, Offer]:
    """Return the nodes on offer by id: those of the partition that are there, with what is occupied on each.

    ``held`` is what our attempts have, by node. ``accelerators`` translates the site's types of GRES to
    names of the catalogue, where the catalogue does not know them by itself. ``racks`` has the rack of each node of
    which one is known.
    """
    offers = {}
    for entry in slurm_nodes:
        is_elsewhere = partition is not None and partition not in entry.partitions
        ours = held.get(entry.name, NOTHING)
        if is_elsewhere or entry.states & _GONE or (entry.states & _CLOSED and ours == NOTHING):
            continue
        offer = _whole(entry, pool, accelerators)
        node = replace(offer.node, occupied=_occupied(offer, ours), rack=(racks or {}).get(entry.name))
        offers[entry.name] = replace(offer, node=node)
    return offers


def _whole(entry: SlurmNode, pool: str, accelerators: Mapping[str, str]) -> Offer:
    """Return the node as it would be without any job on it."""
    # With several types on one node the most numerous one is offered: our nodes have devices of one kind.
    type_, count = max(entry.gres.items(), key=lambda item: (item[1], item[0]), default=(None, 0))
    cpus = max(1, entry.cpus)
    if type_ is None or count == 0:
        node = Node(
            id=entry.name,
            accelerator=CPU,
            devices=cpus,
            cpus=cpus,
            memory_bytes=entry.memory_bytes,
            pool=pool,
        )
        return Offer(node=node, slurm=entry, gres_type=None)
    name = accelerators.get(type_) or _name_of(type_, entry.features)
    known = catalog.find(name)
    node = Node(
        id=entry.name,
        accelerator=name if known is None else known.model,
        devices=count,
        cpus=cpus,
        memory_bytes=entry.memory_bytes,
        pool=pool,
        vendor=None if known is None else known.vendor,
        device_memory_bytes=None if known is None else known.memory_bytes,
        peak_flops=None if known is None else known.trusted_peak_flops,
    )
    return Offer(node=node, slurm=entry, gres_type=type_)


def _name_of(type_: str, features: frozenset[str]) -> str:
    """Return what to call a type: a name of the catalogue that it, or a feature of the node, goes by."""
    for word in (type_, type_.replace("_", "-"), type_.replace("_", " "), *sorted(features)):
        if word and catalog.find(word) is not None:
            return word
    return type_ or "gpu"


def _occupied(offer: Offer, ours: Held) -> tuple[int, ...]:
    """Return the devices that nobody of ours may have: as many as others use, or leave without CPUs or memory.

    Slurm chooses the devices of a job, so which ones it says does not matter, only how many: those with
    the highest indices that no attempt of ours was planned on.
    """
    entry, node = offer.slurm, offer.node
    free = [index for index in range(node.devices) if index not in ours.devices]
    if entry.states & (_CLOSED | _SILENT):
        return tuple(free)
    used = entry.cpus_used if offer.gres_type is None else entry.gres_used.get(offer.gres_type, 0)
    granted, planned = ours.granted, ours.planned
    devices = node.devices - max(0, used - granted.devices) - planned.devices
    cpus = entry.cpus - max(0, entry.cpus_used - granted.cpus) - planned.cpus
    usable = [len(free), devices, int(cpus / offer.cpus_per_device)]
    if entry.memory_bytes:
        memory = entry.memory_bytes - max(0, entry.memory_used_bytes - granted.memory_bytes)
        usable.append(int((memory - planned.memory_bytes) / offer.memory_bytes_per_device))
    return tuple(free[max(0, min(usable)) :])
