"""The workers of a gang on several nodes: how many on each, and where each node's agent is told to stand."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # agents on nodes take ``place_of`` from here, and have the standard library alone
    from artesian.model.placement import Placement


def divided(workers: int, placement: "Placement") -> tuple[int, ...]:
    """Return how many workers each node has: as the devices are. Raises ValueError where that cannot be."""
    devices = [len(share.devices) for share in placement.shares]
    total = sum(devices)
    if total == 0 or any(workers * count % total for count in devices):
        raise ValueError(f"{workers} workers cannot be divided as the devices of {placement} are")
    return tuple(workers * count // total for count in devices)


def place_of(index: int, workers: Sequence[int]) -> list[str]:
    """Return the options of the launch agent on node ``index``, of nodes that have so many workers each."""
    options = [
        "--nnodes",
        str(len(workers)),
        "--node-rank",
        str(index),
        "--nproc-per-node",
        str(workers[index]),
    ]
    if len(set(workers)) > 1:
        options += ["--first-rank", str(sum(workers[:index])), "--world-size", str(sum(workers))]
    return options
