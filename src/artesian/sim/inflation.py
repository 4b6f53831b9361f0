"""How much of a fleet a placement can fill: jobs arrive until more are asked for than there is.

The protocol of FGD's authors (Weng et al., USENIX ATC 2023). Nothing departs. A job that finds no room
is dropped, and counts as arrived; one that finds room is placed.
"""

from collections.abc import Sequence
from random import Random

from msgspec import Struct
from msgspec.structs import replace

from artesian.model.capacity import Capacity
from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.resources import MILLI
from artesian.policy.base import Place

INFLATION = 1.3


class Inflation(Struct, frozen=True, kw_only=True, gc=False):
    """One run. ``allocated[load]`` is the mean of what is allocated, in percent of the fleet's devices.

    The mean is over all arrivals at which the load, what has arrived in percent of the fleet, rounds to
    ``load``.
    """

    allocated: dict[int, float]
    arrived: int
    dropped: int


def arrivals(jobs: Sequence[Job], least_milli: int, seed: int) -> list[Job]:
    """Return all the jobs in random order, then more drawn from them until they ask for ``least_milli``.

    A job that is drawn again has an id of its own.
    """
    random = Random(seed)  # noqa: S311 - a simulation, not a secret
    drawn = list(jobs)
    random.shuffle(drawn)
    asked = sum(map(asked_milli, drawn))
    while asked < least_milli:
        job = jobs[random.randrange(len(jobs))]
        drawn.append(replace(job, id=f"{job.id}-{len(drawn)}"))
        asked += asked_milli(job)
    return drawn


def inflate(place: Place, nodes: Sequence[Node], jobs: Sequence[Job], *, seed: int) -> Inflation:
    """Return what the placement fills when jobs arrive up to 1.3 times the fleet.

    The seed decides on the order of the jobs and of the nodes: ties go to the first node.
    """
    fleet = list(nodes)
    Random(f"nodes {seed}").shuffle(fleet)  # noqa: S311 - a simulation, not a secret
    capacity = Capacity(fleet)
    fleet_milli = int(capacity.devices.sum()) * MILLI
    sums: dict[int, tuple[float, int]] = {}
    arrived = allocated = dropped = 0
    queue = arrivals(jobs, int(INFLATION * fleet_milli), seed)
    for job in queue:
        asked = asked_milli(job)
        arrived += asked
        placement = place.place(job, capacity, capacity.is_up)
        if placement is None:
            dropped += 1
        else:
            capacity.take(job, placement)
            allocated += asked
        load = round(100 * arrived / fleet_milli)
        total, count = sums.get(load, (0.0, 0))
        sums[load] = (total + allocated, count + 1)
    return Inflation(
        allocated={load: 100 * total / count / fleet_milli for load, (total, count) in sums.items()},
        arrived=len(queue),
        dropped=dropped,
    )


def asked_milli(job: Job) -> int:
    """Return what the job asks for, in thousandths of a device, under its first alternative."""
    return job.devices[0].max_milli
