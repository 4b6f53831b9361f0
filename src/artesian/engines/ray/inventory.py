"""Ray's nodes as nodes that jobs can be placed on, and the last word on them in a file.

Devices of a node are, in this order of preference: a resource named like an accelerator of the catalogue
(``{"910B": 8}``), Ray's own kinds (GPU, NPU, ...) with the accelerator type that Ray detected or was told,
or its CPUs. A node without any of them, such as a head that runs no work, is not offered.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from artesian import catalog
from artesian.engines.base import Clock
from artesian.engines.ray.client import RayNode
from artesian.model.events import NodeJoined, NodeLost
from artesian.model.fleet import Node
from artesian.model.resources import CPU

CPU_RESOURCE = "CPU"
KINDS = ("GPU", "NPU", "HPU", "TPU", "MLU", "neuron_cores")
"""Resources by which Ray counts accelerators that it knows itself."""
RACK_LABEL = "artesian.io/rack"
"""The label of a Ray node that says which of its neighbours it shares a rack with."""
_TYPE_LABEL = "ray.io/accelerator-type"
_TYPE_PREFIX = "accelerator_type:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A node on offer, its id in Ray, the resource by which Ray counts its devices, and all that it has.

    ``has`` is empty where it is not known.
    """

    node: Node
    ray_id: str
    resource: str
    has: Mapping[str, float] = field(default_factory=dict, compare=False)


def offers_of(nodes: Sequence[RayNode], pool: str, accelerators: Mapping[str, str]) -> dict[str, Offer]:
    """Return what can be placed on, by node id.

    A node goes by its name in Ray. Of several with one name, as on a machine that emulates nodes, each has
    a part of its Ray id behind it. ``accelerators`` translates the site's names to the catalogue's.
    """
    names = Counter(node.name for node in nodes)
    offers = {}
    for entry in nodes:
        id_ = entry.name if names[entry.name] == 1 else f"{entry.name}#{entry.ray_id[:8]}"
        if (offer := _offer(id_, entry, pool, accelerators)) is not None:
            offers[id_] = offer
    return offers


def _offer(id_: str, entry: RayNode, pool: str, accelerators: Mapping[str, str]) -> Offer | None:
    cpus = int(entry.resources.get(CPU_RESOURCE, 0))
    resource, name = _devices_of(entry, accelerators)
    devices = int(entry.resources.get(resource, 0))
    if devices < 1:
        return None
    known = catalog.find(name)
    family = [row for row in catalog.accelerators() if row.family.casefold() == name.casefold()]
    vendors = {row.vendor for row in family}
    node = Node(
        id=id_,
        accelerator=name if known is None else known.model,
        devices=devices,
        cpus=max(1, cpus),
        memory_bytes=int(entry.resources.get("memory", 0)),
        pool=pool,
        # Ray's types are families: the vendor is certain then, and the peak is not.
        vendor=known.vendor if known else vendors.pop() if len(vendors) == 1 else None,
        device_memory_bytes=None if known is None else known.memory_bytes,
        peak_flops=None if known is None else known.trusted_peak_flops,
        rack=entry.labels.get(RACK_LABEL) or None,
    )
    return Offer(node=node, ray_id=entry.ray_id, resource=resource, has=dict(entry.resources))


def _devices_of(entry: RayNode, accelerators: Mapping[str, str]) -> tuple[str, str]:
    """Return the resource that counts the node's devices, and what they are called."""
    for resource in sorted(entry.resources):
        name = accelerators.get(resource, resource)
        if resource not in (CPU_RESOURCE, *KINDS) and _is_accelerator(name):
            return resource, name
    for resource in KINDS:
        if entry.resources.get(resource, 0) >= 1:
            told = entry.labels.get(_TYPE_LABEL) or _detected_type(entry) or resource.lower()
            return resource, accelerators.get(told, told)
    return CPU_RESOURCE, CPU


def _is_accelerator(name: str) -> bool:
    families = {family.casefold() for family in catalog.families()}
    return catalog.find(name) is not None or name.casefold() in families


def _detected_type(entry: RayNode) -> str | None:
    found = (name for name in sorted(entry.resources) if name.startswith(_TYPE_PREFIX))
    return next((name.removeprefix(_TYPE_PREFIX) for name in found), None)


class Stock:
    """The nodes on offer, as the control plane was last told; ``offers`` is what Ray last said.

    The last word is kept in ``file``: where Ray does not answer as the control plane starts, its nodes are
    still known, and what runs on them is not taken for lost.
    """

    def __init__(self, file: Path, pool: str, accelerators: Mapping[str, str]) -> None:
        self._file = file
        self._pool = pool
        self._accelerators = accelerators
        self.offers: dict[str, Offer] = {}

    def take_in(self, nodes: Sequence[RayNode], clock: Clock) -> list[NodeJoined | NodeLost]:
        """Take in what Ray says, and return what is new. A raylet that was started anew is a node lost and joined."""
        before, self.offers = self.offers, offers_of(nodes, self._pool, self._accelerators)
        at_s = clock()
        lost = [
            NodeLost(at_s=at_s, node_id=id_)
            for id_, offer in before.items()
            if id_ not in self.offers or self.offers[id_].ray_id != offer.ray_id
        ]
        joined = [
            NodeJoined(at_s=at_s, node=offer.node)
            for id_, offer in self.offers.items()
            if before.get(id_) != offer
        ]
        if lost or joined:
            self._save()
        return [*lost, *joined]

    def remember(self) -> None:
        """Go on with the nodes of the last time; with none where there was none."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            entries = json.loads(self._file.read_bytes())
            offers = [Offer(**{**entry, "node": _node(entry["node"])}) for entry in entries]
            self.offers = {offer.node.id: offer for offer in offers}

    @property
    def nodes(self) -> list[Node]:
        """The nodes on offer."""
        return [offer.node for offer in self.offers.values()]

    def _save(self) -> None:
        private = self._file.with_suffix(f".{os.getpid()}")
        with suppress(OSError):  # without it, a start without Ray begins without nodes
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            private.write_text(json.dumps(msgspec.to_builtins(list(self.offers.values()))))
            private.rename(self._file)


def _node(entry: Mapping[str, object]) -> Node:
    fields: dict[str, object] = {**entry}
    occupied = fields.pop("occupied", ())
    assert isinstance(occupied, list | tuple)
    return Node(**fields, occupied=tuple(occupied))  # type: ignore[arg-type]
