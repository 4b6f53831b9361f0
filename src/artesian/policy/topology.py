"""Placing gangs where their links are short: on one node, else in one rack, else in one pool."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace

from artesian.model.capacity import BoolArray, Capacity, IntArray
from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.resources import DeviceRequest
from artesian.policy.base import Place
from artesian.policy.place import Pack

DOMAINS: tuple[tuple[str, Callable[[Node], str | None]], ...] = (
    ("rack", lambda node: None if node.rack is None else f"{node.pool}/{node.rack}"),
    ("pool", lambda node: node.pool),
)
"""Link domains that are wider than a node, the closest first. None: nobody told, so it is in none."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Keep a gang that no single node holds within the closest link domain that holds it.

    Among domains of one kind, the one that it leaves the fewest free devices in: wide gaps stay whole.
    Within it, and for everything else, ``place`` decides. Where no domain holds the gang it goes on any nodes of one
    model: it is a preference, and nobody waits for it.
    """

    place_within: Place = field(default_factory=Pack)

    def place(self, job: Job, capacity: Capacity, allowed: BoolArray) -> Placement | None:
        """Return where the job goes, or None when no alternative fits on the allowed nodes."""
        for request in job.devices:
            asked = job if len(job.devices) == 1 else replace(job, devices=(request,))
            within = self._domain(asked, request, capacity, allowed)
            placement = self.place_within.place(asked, capacity, allowed if within is None else within)
            if placement is not None:
                return placement
        return None

    @staticmethod
    def _domain(job: Job, request: DeviceRequest, capacity: Capacity, allowed: BoolArray) -> BoolArray | None:
        """Return the nodes [N] of the closest domain that holds a gang; None for one that needs none, or finds none."""
        if request.is_fraction or request.is_host_only:
            return None
        count: IntArray = np.where(allowed, capacity.startable(job, request), 0)
        if count.size == 0 or int(count.max()) >= request.min_devices:
            return None
        for needed in dict.fromkeys((request.max_devices, request.min_devices)):
            for name, domain_of in DOMAINS:
                domains = _domains(name, domain_of, capacity)
                sums = np.bincount(domains[domains >= 0], weights=count[domains >= 0])
                enough = np.flatnonzero(sums >= needed)
                if enough.size:
                    tightest = int(enough[np.argmin(sums[enough])])
                    within: BoolArray = allowed & (domains == tightest)
                    return within
        return None


def _domains(name: str, domain_of: Callable[[Node], str | None], capacity: Capacity) -> IntArray:
    """Return the number of each node's domain [N], nodes of several models counted apart; -1 for none."""

    def found() -> IntArray:
        numbers: dict[tuple[str, int], int] = {}
        domains = [domain_of(node) for node in capacity.nodes]
        kinds = capacity.kind.tolist()
        return np.array(
            [
                -1 if domain is None else numbers.setdefault((domain, kind), len(numbers))
                for domain, kind in zip(domains, kinds, strict=True)
            ],
            dtype=np.int64,
        )

    return capacity.remember(("domains", name), found)
