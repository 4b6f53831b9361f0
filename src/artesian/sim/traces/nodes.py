"""What traces of nodes have in common: a node by its model of device, and a file of nodes as a fleet."""

import re
from collections.abc import Callable
from pathlib import Path

from artesian.model.fleet import Fleet, Node
from artesian.sim.fleet import MAX_NODES, common_figure
from artesian.sim.traces.errors import TooLarge
from artesian.sim.traces.table import Row, Table
from artesian.sim.traces.trace import Trace, pools_of


def node_of(id: str, *, accelerator: str, devices: int, cpus: int, memory_bytes: int) -> Node:
    """Return a node of the pool of its model, with what the catalogue has of all models of that name."""
    return Node(
        id=id,
        pool=re.sub(r"[^a-z0-9]+", "-", accelerator.lower()).strip("-") or "pool",
        accelerator=accelerator,
        devices=devices,
        cpus=cpus,
        memory_bytes=memory_bytes,
        vendor=common_figure(accelerator, lambda known: known.vendor),
        device_memory_bytes=common_figure(accelerator, lambda known: known.memory_bytes),
        peak_flops=common_figure(accelerator, lambda known: known.trusted_peak_flops),
    )


def collect_nodes(
    path: Path, table: Table, node: Callable[[Row], Node], *, notes: tuple[str, ...] = ()
) -> Trace:
    """Return the trace of a file in which each row is a node. Raises TraceError."""
    nodes: list[Node] = []
    for number, found in table.rows(node):
        if len(nodes) == MAX_NODES:
            raise TooLarge(path, f"expected at most {MAX_NODES} nodes, got more", row=number)
        nodes.append(found)
    pools, centers = pools_of(entry.pool for entry in nodes)
    return Trace(
        source=str(path),
        fleet=Fleet(nodes=tuple(nodes), pools=pools, centers=centers),
        skipped=table.tally.skipped,
        notes=notes,
    )
