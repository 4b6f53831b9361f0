"""The workers of a gang on several nodes: how many on each, where each node's agent stands, and where all meet."""

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # agents on nodes take ``place_of`` from here, and have the standard library alone
    from artesian.model.placement import Placement


class Meeting(NamedTuple):
    """Where the agents of a gang meet, at that of its first node, and the secret that they show each other."""

    host: str
    port: int
    token: str

    @classmethod
    def at(cls, host: str, port: int) -> "Meeting":
        """Return a meeting with a secret of its own."""
        return cls(host, port, secrets.token_hex(32))


def divided(workers: int, placement: "Placement") -> tuple[int, ...]:
    """Return how many workers each node has: as the devices are, and at least one.

    What that leaves over goes to those nodes whose workers have the most devices each. Raises ValueError where
    there are fewer workers than nodes.
    """
    devices = [max(1, len(share.devices)) for share in placement.shares]
    if workers < len(devices):
        raise ValueError(
            f"a gang needs a worker on each of its {len(devices)} nodes, got {workers} workers for {placement}"
        )
    parts = [max(1, workers * count // sum(devices)) for count in devices]
    while (left := workers - sum(parts)) != 0:
        change = 1 if left > 0 else -1
        able = [index for index, own in enumerate(parts) if own + change > 0]
        # Of nodes that are alike the first ones have more, so that the result is always the same.
        index = max(able, key=lambda index: (change * devices[index] / parts[index], -change * index))
        parts[index] += change
    return tuple(parts)


def place_of(index: int, workers: Sequence[int], meeting: Meeting) -> list[str]:
    """Return the options of the launch agent on node ``index``, of nodes that have so many workers each.

    The secret is none of them: it belongs into the agent's environment.
    """
    options = [
        "--nnodes",
        str(len(workers)),
        "--node-rank",
        str(index),
        "--nproc-per-node",
        str(workers[index]),
        "--master-addr",
        meeting.host,
        "--master-port",
        str(meeting.port),
    ]
    if len(set(workers)) > 1:
        options += ["--first-rank", str(sum(workers[:index])), "--world-size", str(sum(workers))]
    return options
