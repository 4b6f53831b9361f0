"""What the agents of a gang agree on before they meet, and what they need of the node that each is on."""

from dataclasses import dataclass
from typing import Protocol

from artesian.train.budget import MAX_REPLACEMENTS, Budget
from artesian.train.recovery import CAUSES, Failure
from artesian.wire.messages import Layer

Address = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all agents of a gang are started with. ``endpoints`` are tried in turn; the first is bound.

    ``max_replacements`` is how often stragglers are replaced. ``restart_on`` are the causes that a restart is for. ``place``: the node rank that this agent was told; None where
    the leader says who stands where. ``join_timeout_s`` is how long an agent waits for others, while there are too few.
    """

    endpoints: tuple[Address, ...]
    token: str
    min_nodes: int
    max_nodes: int
    max_restarts: int
    max_replacements: int = MAX_REPLACEMENTS
    restart_on: frozenset[str] = frozenset(CAUSES)
    place: int | None = None
    join_timeout_s: float = 600.0

    def budget(self) -> Budget:
        """Return what the gang may do before it has done anything."""
        return Budget(
            max_restarts=self.max_restarts,
            max_replacements=self.max_replacements,
            restart_on=self.restart_on,
        )


class Node(Protocol):
    """What the council needs of the agent that it belongs to."""

    def pause(self, duration_s: float) -> bool:
        """Act on what comes within ``duration_s`` seconds, and return whether the node is to go on."""

    def open_store(self, host: str) -> tuple[int, bool]:
        """Return the port of a new store on ``host``, and whether it is served; else that is rank 0's part."""

    def form(
        self,
        number: int,
        nodes: int,
        node_rank: int | None,
        master: Address,
        layer: Layer | None,
        cause: Failure | None,
        *,
        is_served: bool,
    ) -> None:
        """Enter a formation; ``node_rank`` None is a spare's."""

    def show_stacks(self) -> None:
        """Have the workers print their stacks: one of another node hangs."""

    def give_way(self) -> None:
        """Have the workers save and leave, so that the gang can be formed anew; then ``yielded``."""

    def blame(self, cause: Failure, restarts: int) -> None:
        """Tell of the failure that ends the gang after so many restarts."""

    def end(self, exit_code: int) -> None:
        """The gang is over."""
