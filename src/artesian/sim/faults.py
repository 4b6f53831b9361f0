"""Nodes that fail and are repaired, as events for a simulation.

Failures come to every node that is up with the same rate, at any time alike: a Poisson process, as the
failures of large training clusters are found to be (Kokolis et al., "Revisiting Reliability in Large-Scale
Machine Learning Research Clusters", HPCA 2025).
"""

import heapq
import math
import random
from collections.abc import Iterator

from msgspec import Struct

from artesian.model.events import Event, NodeJoined, NodeLost
from artesian.model.fleet import Fleet

_DAY_S = 86_400.0


class NodeFaults(Struct, frozen=True, kw_only=True, gc=False):
    """Each node fails ``per_node_day`` times in a day of being up, and is back ``repair_s`` later."""

    per_node_day: float
    repair_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.per_node_day < math.inf:
            raise ValueError(f"per_node_day must be finite and not negative, got {self.per_node_day}")
        if not 0 < self.repair_s < math.inf:
            raise ValueError(f"repair_s must be finite and positive, got {self.repair_s}")

    def events(self, fleet: Fleet, seed: int) -> Iterator[Event]:
        """Yield what happens to the nodes of ``fleet`` from time 0 on, in order and without an end.

        The same fleet and seed give the same events, whatever a policy does.
        """
        rate_s = self.per_node_day / _DAY_S * len(fleet.nodes)
        if not rate_s:
            return
        chance = random.Random(seed)  # noqa: S311 - faults, not secrets
        repairs: list[tuple[float, int]] = []
        down: set[int] = set()
        at_s = 0.0
        while True:
            # The rate of all nodes together, thinned by those that are down: they cannot fail again.
            at_s += chance.expovariate(rate_s)
            while repairs and repairs[0][0] <= at_s:
                back_s, number = heapq.heappop(repairs)
                down.discard(number)
                yield NodeJoined(at_s=back_s, node=fleet.nodes[number])
            number = chance.randrange(len(fleet.nodes))
            if number in down:
                continue
            down.add(number)
            heapq.heappush(repairs, (at_s + self.repair_s, number))
            yield NodeLost(at_s=at_s, node_id=fleet.nodes[number].id)
