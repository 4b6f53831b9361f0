"""A fleet from YAML: pools of like nodes.

::

    pools:
      - {name: train, nodes: 4, accelerator: H100, devices: 8, cpus: 96, memory: 1TB}
      - {name: old, nodes: 2, accelerator: Tesla V100-SXM2-32GB, devices: 8, cpus: 48, memory: 512GB}

``accelerator`` is a family, a model or an alias of the catalogue, or any other name; ``cpu`` for nodes
whose devices are cores. What the catalogue says of it goes to the nodes: a family's models may differ,
and then a figure is unknown. ``vendor``, ``device_memory`` and ``center`` can be given as well, and
``rack_nodes``: how many nodes share a rack, one number for all racks or a list with one for each.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from artesian import catalog
from artesian.model import document, fields
from artesian.model.document import DocumentError
from artesian.model.fields import Reader, path
from artesian.model.fleet import Center, Fleet, Node, Pool

POOL_KEYS = (
    "name",
    "nodes",
    "accelerator",
    "devices",
    "cpus",
    "memory",
    "vendor",
    "device_memory",
    "center",
    "rack_nodes",
)
"""The keys of a pool; the first six must be given."""

ENGINE = "virtual"
"""The engine of a pool that is only simulated."""

MAX_NODES = 100_000

_EXAMPLE = "pools: [{name: train, nodes: 4, accelerator: H100, devices: 8, cpus: 96, memory: 1TB}]"
_POOL = _EXAMPLE.removeprefix("pools: [").removesuffix("]")

T = TypeVar("T")


class PoolEntry(Struct, frozen=True, kw_only=True, gc=False):
    """A pool and its ``count`` like nodes; ``rack_nodes`` of them are in each rack in turn (none: in no rack)."""

    pool: Pool
    count: int
    node: Node
    """What all its nodes are like."""
    rack_nodes: tuple[int, ...] = ()

    def nodes(self) -> Iterator[Node]:
        """Yield the nodes: of pool ``train``, ``train-0``, ``train-1``, …, in the racks ``rack-0``, ``rack-1``, …"""
        racks = (f"rack-{number}" for number, size in enumerate(self.rack_nodes) for _ in range(size))
        for number in range(self.count):
            yield replace(self.node, id=f"{self.pool.name}-{number}", rack=next(racks, None))


def racks_of(sizes: Sequence[int], nodes: int) -> tuple[int, ...] | None:
    """Return how many of so many nodes are in each rack; None where the sizes do not add up to them.

    One size is that of all racks but the last, which has what is left.
    """
    if len(sizes) == 1:
        size = sizes[0]
        return tuple(min(size, nodes - first) for first in range(0, nodes, size))
    return tuple(sizes) if sum(sizes) == nodes else None


class FleetFileError(DocumentError):
    """A fleet file with mistakes: ``mistakes`` has all of them, ``str`` one line for each."""


def parse_fleet(text: str, *, source: str) -> Fleet:
    """Return the fleet that ``text`` describes; ``source`` names the file in errors.

    The nodes of pool ``train`` are ``train-0``, ``train-1``, … Raises FleetFileError with every mistake.
    """
    root, mistakes = document.compose(text, what="a fleet", hint=f"a fleet has at least {_EXAMPLE}")
    reader = Reader(mistakes)

    def fleet(node: document.Node, subject: str) -> tuple[PoolEntry, ...]:
        file = reader.section(node, subject, keys=("pools",), what="a fleet", example=_EXAMPLE)
        return file.require("pools", lambda item, at: _pools(reader, item, at), _EXAMPLE) or ()

    pools = reader.convert(root, "", fleet, ())
    if reader.mistakes:
        raise FleetFileError(source, reader.mistakes)
    return fleet_of(pools)


def fleet_of(pools: Sequence[PoolEntry]) -> Fleet:
    """Return the fleet that the pools make up."""
    centers = dict.fromkeys(entry.pool.center for entry in pools)
    return Fleet(
        nodes=tuple(node for entry in pools for node in entry.nodes()),
        pools=tuple(entry.pool for entry in pools),
        centers=tuple(Center(name=name) for name in centers),
    )


def _pools(reader: Reader, node: document.Node, subject: str) -> tuple[PoolEntry, ...]:
    lines: dict[str, int] = {}

    def pool(item: document.Node, at: str) -> PoolEntry | None:
        made = _pool(reader, item, at)
        if made is None:
            return None
        name, line = made.pool.name, item.at.line
        if name in lines:
            text = f"expected each name once, got {name!r} in line {lines[name]} and again in line {line}"
            reader.note(item.at, path(at, "name"), text, "give one of the two another name")
        lines.setdefault(name, line)
        return made

    pools = reader.items(node, subject, pool, "pools")
    total = sum(entry.count for entry in pools)
    if total > MAX_NODES:
        reader.note(node.at, subject, f"expected at most {MAX_NODES} nodes in all, got {total}")
    return pools


def _pool(reader: Reader, node: document.Node, subject: str) -> PoolEntry | None:
    file = reader.section(node, subject, keys=POOL_KEYS, what="a pool", example=_POOL)
    name = file.require("name", fields.word, "name: train")
    count = file.require("nodes", fields.integer(least=1, most=MAX_NODES), "nodes: 4")
    accelerator = file.require("accelerator", fields.word, "accelerator: H100")
    devices = file.require("devices", fields.integer(least=1, most=1024), "devices: 8")
    cpus = file.require("cpus", fields.integer(least=1), "cpus: 96")
    memory_bytes = file.require("memory", fields.size_bytes, "memory: 1TB")
    vendor = file.read("vendor", fields.word, None)
    device_memory_bytes = file.read("device_memory", fields.size_bytes, None)
    center = file.read("center", fields.word, "default")
    racks: tuple[int, ...] | None = ()
    if count is not None and file.has("rack_nodes"):
        racks = file.read("rack_nodes", lambda item, at: _rack_nodes(reader, item, at, count), None)
    if racks is None:
        return None
    if not (name and count and accelerator and devices and cpus and memory_bytes):
        return None
    return PoolEntry(
        pool=Pool(name=name, engine=ENGINE, center=center),
        count=count,
        rack_nodes=racks,
        node=Node(
            id=name,
            pool=name,
            accelerator=accelerator,
            devices=devices,
            cpus=cpus,
            memory_bytes=memory_bytes,
            vendor=vendor or common_figure(accelerator, lambda row: row.vendor),
            device_memory_bytes=device_memory_bytes
            or common_figure(accelerator, lambda row: row.memory_bytes),
            peak_flops=common_figure(accelerator, lambda row: row.trusted_peak_flops),
        ),
    )


def _rack_nodes(reader: Reader, node: document.Node, subject: str, count: int) -> tuple[int, ...]:
    size = fields.integer(least=1, most=MAX_NODES, of=" of nodes")
    if not isinstance(node, document.List):
        sizes: tuple[int, ...] = (size(node, subject),)
    else:
        sizes = reader.items(node, subject, size, "numbers of nodes")
        if len(sizes) < len(node.items):
            raise fields.Mistaken(None)
    racks = racks_of(sizes, count)
    if racks is None:
        fields.refuse(node, subject, f"expected racks of {count} nodes in all, got {sum(sizes)}")
    return racks


def common_figure(accelerator: str, figure: Callable[[catalog.Accelerator], T | None]) -> T | None:
    """Return what holds for every catalogued model that ``accelerator`` may mean; None where they differ."""
    exact = catalog.find(accelerator)
    rows = (
        [exact]
        if exact is not None
        else [row for row in catalog.accelerators() if row.family.casefold() == accelerator.casefold()]
    )
    figures = {figure(row) for row in rows}
    return figures.pop() if len(figures) == 1 else None
