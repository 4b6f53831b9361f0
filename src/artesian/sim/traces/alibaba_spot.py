"""The nodes of Alibaba's spot trace: 10,412 GPUs of six kinds, some under names that hide what they are.

Columns ``gpu_model``, ``gpu_capacity_num``, ``cpu_num``, ``node_name``. Nodes of one model are a pool.
"""

import re
from pathlib import Path

from artesian.model.fleet import Fleet, Node
from artesian.sim.fleet import MAX_NODES, common_figure
from artesian.sim.traces.errors import TooLarge
from artesian.sim.traces.table import BadRows, Row, Table
from artesian.sim.traces.trace import Trace, pools_of

COLUMNS = ("gpu_model", "gpu_capacity_num", "cpu_num", "node_name")

MEMORY_BYTES = 2**40
"""Host memory of a node where the caller does not say: the trace does not tell, and a note says so."""


def read(path: Path, *, bad_rows: BadRows = BadRows.REFUSE, memory_bytes: int | None = None) -> Trace:
    """Return the fleet; there are no jobs. ``memory_bytes`` is what each node has. Raises TraceError."""
    table = Table(path, required=COLUMNS, bad_rows=bad_rows)
    seen: set[str] = set()
    host_bytes = MEMORY_BYTES if memory_bytes is None else memory_bytes

    def node(row: Row) -> Node:
        accelerator = row.text("gpu_model")
        return Node(
            id=f"node-{row.new('node_name', row.text('node_name'), seen)}",
            pool=re.sub(r"[^a-z0-9]+", "-", accelerator.lower()).strip("-") or "pool",
            accelerator=accelerator,
            devices=row.count("gpu_capacity_num", least=1, most=1024),
            cpus=row.count("cpu_num", least=1),
            memory_bytes=host_bytes,
            vendor=common_figure(accelerator, lambda known: known.vendor),
            device_memory_bytes=common_figure(accelerator, lambda known: known.memory_bytes),
            peak_flops=common_figure(accelerator, lambda known: known.trusted_peak_flops),
        )

    nodes: list[Node] = []
    for number, found in table.rows(node):
        if len(nodes) == MAX_NODES:
            raise TooLarge(path, f"expected at most {MAX_NODES} nodes, got more", row=number)
        nodes.append(found)
    pools, centers = pools_of(entry.pool for entry in nodes)
    note = "the trace does not tell the nodes' memory; each is taken to have 1 TiB"
    return Trace(
        source=str(path),
        fleet=Fleet(nodes=tuple(nodes), pools=pools, centers=centers),
        skipped=table.tally.skipped,
        notes=() if memory_bytes is not None else (note,),
    )
