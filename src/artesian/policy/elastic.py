"""Growing: elastic gangs take what nobody else wants, where that pays for the restart.

Shrinking is making room (``room``): a gang that goes on at once with fewer devices.
"""

from collections.abc import Iterator

from artesian.model.capacity import Capacity
from artesian.model.placement import Placement
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.policy.base import Order, Place
from artesian.policy.line import Line, is_shared
from artesian.policy.room import Holders, Limits, Victim

_MARGIN = 2.0
"""How many times what it costs a restart has to save: estimates are no more than that."""


def growing(
    snapshot: Snapshot, place: Place, limits: Limits, holders: Holders, order: Order | None = None
) -> Iterator[Victim]:
    """Yield gangs that gain by going on with more devices, and where; with no more than their teams may have by ``order``."""
    line: Line | None = None
    for entry in holders.growable():
        if not _is_room_above(entry, snapshot.capacity):
            continue
        if line is None and order is not None and is_shared(order):
            line = order.line(snapshot)  # made where a gang might grow, which is seldom
        with snapshot.capacity.trial() as trial:
            trial.give(entry.job, entry.placement)
            free = trial.capacity
            if line is None or line.accounts is None:
                to = place.place(entry.job, free, free.is_up)
            else:
                line.accounts.add(entry.job, entry.placement, -1)
                to = line.place(place, entry.job, free, free.is_up)
                line.accounts.add(entry.job, entry.placement)
        cost_s = entry.lost_s(snapshot.at_s) + limits.restart_s
        if to is not None and saved_s(entry, to, snapshot.at_s) > _MARGIN * cost_s:
            yield Victim(entry=entry, to=to)


def saved_s(entry: RunningJob, to: Placement, at_s: float) -> float:
    """Return how much earlier the job would end, in seconds; 0 where it would not get more devices.

    What is left of its estimate would take that much less by its scaling curve. One without an estimate is taken
    to go on for as long as it has run.
    """
    job, ran_s = entry.job, at_s - entry.since_s
    if to.devices <= entry.placement.devices:
        return 0.0
    left_s = ran_s if job.estimated_duration_s is None else max(0.0, job.estimated_duration_s - ran_s)
    return left_s * (1.0 - job.speedup(entry.placement.devices) / job.speedup(to.devices))


def _is_room_above(entry: RunningJob, free: Capacity) -> bool:
    row = free.row[entry.placement.shares[0].node_id]
    same = (free.kind == free.kind[row]) & free.is_up
    return bool((free.free_whole[same] > 0).any())
