"""The nodes of Alibaba's spot trace: 10,412 GPUs of six kinds, some under names that hide what they are.

Columns ``gpu_model``, ``gpu_capacity_num``, ``cpu_num``, ``node_name``. Nodes of one model are a pool.
"""

from pathlib import Path

from artesian.model.fleet import Node
from artesian.sim.traces.nodes import collect_nodes, node_of
from artesian.sim.traces.table import BadRows, Row, Table
from artesian.sim.traces.trace import Trace

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
        return node_of(
            f"node-{row.new('node_name', row.text('node_name'), seen)}",
            accelerator=accelerator,
            devices=row.count("gpu_capacity_num", least=1, most=1024),
            cpus=row.count("cpu_num", least=1),
            memory_bytes=host_bytes,
        )

    note = "the trace does not tell the nodes' memory; each is taken to have 1 TiB"
    return collect_nodes(path, table, node, notes=() if memory_bytes is not None else (note,))
