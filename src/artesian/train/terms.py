"""What the agents of a gang agree on before they meet, and what they need of the node that each is on."""

from dataclasses import dataclass
from typing import Protocol

from artesian.train.recovery import Failure
from artesian.wire.messages import Layer

Address = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all agents of a gang are started with. ``endpoints`` are tried in turn; the first is bound.

    ``join_timeout_s`` is how long an agent waits for others, while there are fewer than ``min_nodes``.
    """

    endpoints: tuple[Address, ...]
    token: str
    min_nodes: int
    max_nodes: int
    max_restarts: int
    join_timeout_s: float = 600.0


class Node(Protocol):
    """What the council needs of the agent that it belongs to."""

    def pause(self, duration_s: float) -> bool:
        """Act on what comes within ``duration_s`` seconds, and return whether the node is to go on."""

    def open_store(self, host: str) -> int:
        """Serve a new store on ``host``, and return its port."""

    def form(
        self,
        number: int,
        nodes: int,
        node_rank: int | None,
        master: Address,
        layer: Layer | None,
        cause: Failure | None,
    ) -> None:
        """Enter a formation; ``node_rank`` None is a spare's."""

    def give_way(self) -> None:
        """Have the workers save and leave, so that the gang can be formed anew; then ``yielded``."""

    def end(self, exit_code: int) -> None:
        """The gang is over."""
