"""Slurm's nodes for tests, brief and complete."""

from artesian.engines.slurm.parse import SlurmNode
from builders import GIB


def a_slurm_node(name: str = "h1", **more: object) -> SlurmNode:
    given: dict[str, object] = {
        "address": name,
        "states": frozenset({"IDLE"}),
        "cpus": 32,
        "cpus_used": 0,
        "memory_bytes": 64 * GIB,
        "memory_used_bytes": 0,
        "gres": {"h100": 8},
        "gres_used": {},
        "partitions": frozenset({"all"}),
        "features": frozenset(),
    }
    return SlurmNode(name=name, **{**given, **more})  # type: ignore[arg-type]
