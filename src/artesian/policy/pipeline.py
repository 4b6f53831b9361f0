"""A policy from parts: an order and a placement, served strictly in order."""

from dataclasses import dataclass

import numpy as np

from artesian.model.capacity import BoolArray, Capacity
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.plan import Hold, Plan, Start
from artesian.model.snapshot import Snapshot
from artesian.policy import explain
from artesian.policy.base import Order, Place


@dataclass(frozen=True, slots=True)
class InOrder:
    """Serve jobs in order; one that cannot start yet keeps its nodes from all behind it.

    A job that waits blocks only the nodes that it could run on, so that a queue for one kind of
    device never holds up another. One that the whole fleet could not hold blocks nothing.
    """

    order: Order
    place: Place

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return the starts of this cycle, and the reason of every job that stays."""
        free = snapshot.capacity.copy()
        allowed = free.is_up.copy()
        blockers: list[tuple[Job, BoolArray]] = []
        holders = [(entry.job, entry.placement) for entry in snapshot.running]
        started: list[tuple[Job, Placement]] = []
        starts: list[Start] = []
        holds: list[Hold] = []
        for entry in self.order.rank(snapshot):
            job = entry.job
            if (reason := explain.impossible(job, free)) is not None:
                holds.append(Hold(job_id=job.id, reason=reason))
                continue
            placement = self.place.place(job, free, allowed)
            if placement is not None:
                free.take(job, placement)
                started.append((job, placement))
                starts.append(
                    Start(
                        job_id=job.id,
                        epoch=entry.next_epoch,
                        placement=placement,
                        reason=explain.start(placement, is_first=not blockers),
                    )
                )
                continue
            wanted = _wanted_nodes(job, free)
            blocker = next((ahead for ahead, nodes in blockers if bool((nodes & wanted).any())), None)
            reason = (
                explain.devices_busy(job, [*holders, *started], free)
                if blocker is None
                else explain.behind(blocker)
            )
            holds.append(Hold(job_id=job.id, reason=reason))
            if bool((wanted & allowed).any()):
                # Head-of-line blocking is FIFO's contract, not an oversight: without it a large gang
                # waits for ever behind small jobs that fit.
                blockers.append((job, wanted))
                allowed &= ~wanted
        return Plan(at_s=snapshot.at_s, starts=tuple(starts), holds=tuple(holds))


def _wanted_nodes(job: Job, capacity: Capacity) -> BoolArray:
    """Return the nodes [N] that one of the job's alternatives could use."""
    wanted: BoolArray = np.logical_or.reduce([capacity.eligible(request) for request in job.devices])
    return wanted
