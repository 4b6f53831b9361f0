"""A fleet for jobs whose trace has none: as many devices as give the load that is wanted."""

import math
from collections import defaultdict
from collections.abc import Sequence

from artesian.model.fleet import Fleet, Node
from artesian.model.resources import MILLI
from artesian.sim.jobs import SimJob
from artesian.sim.traces.trace import pools_of

CPUS_PER_DEVICE = 8
MEMORY_BYTES_PER_DEVICE = 64 * 10**9
"""What a node has for each of its devices unless the caller says otherwise; jobs of traces that tell
nothing of CPUs and memory ask for none."""


def fleet_for_load(
    jobs: Sequence[SimJob],
    load: float,
    devices_per_node: int = 8,
    *,
    accelerator: str = "GPU",
    cpus_per_device: int = CPUS_PER_DEVICE,
    memory_bytes_per_device: int = MEMORY_BYTES_PER_DEVICE,
) -> Fleet:
    """Return a fleet on which ``jobs`` are a load of ``load`` (1.0: as much as it can do).

    The load is the device-seconds that the jobs ask for, over devices times the span of the arrivals.
    There is one pool for each accelerator that the jobs name first, ``accelerator`` for those that name
    none. Nodes are whole, and a pool is never smaller than its largest gang: then the load is lower.

    Raises ValueError unless load and devices_per_node are above 0, and the jobs arrive over some time.
    """
    if not (math.isfinite(load) and load > 0) or devices_per_node < 1:
        raise ValueError(
            f"fleet: expected a load and devices_per_node above 0, got {load} and {devices_per_node}"
        )
    span_s = arrival_span_s(jobs)
    if span_s <= 0:
        raise ValueError(f"fleet: expected jobs that arrive over some time, got a span of {span_s} s")
    wanted: defaultdict[str, float] = defaultdict(float)
    largest: dict[str, int] = {}
    for entry in jobs:
        request = entry.job.devices[0]
        kind = request.accelerator or accelerator
        wanted[kind] += request.min_milli / MILLI * entry.duration_s
        largest[kind] = max(largest.get(kind, 0), request.min_devices)
    nodes = []
    for kind, device_s in sorted(wanted.items()):
        count = math.ceil(max(device_s / (span_s * load), largest[kind]) / devices_per_node)
        name = kind.lower()
        nodes += [
            Node(
                id=f"{name}-{number}",
                pool=name,
                accelerator=kind,
                devices=devices_per_node,
                cpus=devices_per_node * cpus_per_device,
                memory_bytes=devices_per_node * memory_bytes_per_device,
            )
            for number in range(count)
        ]
    pools, centers = pools_of(node.pool for node in nodes)
    return Fleet(nodes=tuple(nodes), pools=pools, centers=centers)


def arrival_span_s(jobs: Sequence[SimJob]) -> float:
    """Return the seconds from the first to the last submission; 0 without jobs."""
    times = [entry.submit_s for entry in jobs]
    return max(times) - min(times) if times else 0.0


def load_of(jobs: Sequence[SimJob], fleet: Fleet) -> float | None:
    """Return the device-seconds that ``jobs`` ask for over those of the fleet during their arrival.

    None where there is no such time, or no device.
    """
    owned = fleet.devices * arrival_span_s(jobs)
    asked = sum(entry.job.devices[0].min_milli / MILLI * entry.duration_s for entry in jobs)
    return asked / owned if owned else None
