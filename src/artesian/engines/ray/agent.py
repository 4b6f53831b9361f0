"""The actor on a node of a gang: its part of the attempt, and where it can be reached."""

import socket
from collections.abc import Mapping
from typing import Any

import ray

from artesian.engines.ray.part import NodePart
from artesian.wire import environment as names


class NodeAgent(NodePart):
    """Runs one node's part of one attempt, with the devices that Ray has granted to the actor."""

    def __init__(self, folder: str, index: int) -> None:
        super().__init__(folder, index, _granted)

    def address(self) -> tuple[str, int]:
        """Return this node's address, and a port on it that nobody listens on now."""
        with socket.create_server(("", 0)) as server:
            address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            return address, server.getsockname()[1]


def _granted(own: Mapping[str, Any]) -> dict[str, str]:
    ids = ray.get_runtime_context().get_accelerator_ids().get(own["resource"])
    if not ids or own["visible"] is None:
        return {}
    return {own["visible"]: ",".join(ids), names.DEVICES: ",".join(ids)}
