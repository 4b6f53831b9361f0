"""Moves: running jobs that go on elsewhere, or with another number of devices, so that a waiting one can start.

What a plan makes of them, and what could be made of them where a policy does not.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from artesian.model.placement import Placement
from artesian.model.plan import HoldCode, Plan
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.policy.base import Place, Policy
from artesian.policy.place import Pack
from artesian.policy.preemptive import Preemptive
from artesian.policy.room import Holders, Limits, Maker


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """At ``at_s`` a running job goes on on ``to``, at a cost in device-seconds: what it does again, and a restart.

    ``lets_start`` is the job that can start for it, with others that move for the same one; None where there is
    none: it only grows.
    """

    at_s: float
    job_id: str
    now: Placement
    to: Placement
    cost_device_s: float
    lets_start: str | None

    @property
    def kind(self) -> str:
        """``grows``, ``shrinks`` or ``moves``."""
        more = self.to.devices - self.now.devices
        return "grows" if more > 0 else "shrinks" if more < 0 else "moves"


def moves_of(plan: Plan, snapshot: Snapshot, limits: Limits | None = None) -> list[Move]:
    """Return the moves in a plan that was made on the snapshot."""
    if not plan.stops or not plan.claims:
        return []
    to = {claim.job_id: claim.placement for claim in plan.claims}
    starters = {job_id: placement for job_id, placement in to.items() if job_id in snapshot.waiting}
    return [
        _move(entry, to[stop.job_id], snapshot.at_s, limits or Limits(), _starter(entry, starters))
        for stop in plan.stops
        if stop.job_id in to and (entry := snapshot.running.get(stop.job_id)) is not None
    ]


def possible_moves(
    plan: Plan, snapshot: Snapshot, place: Place | None = None, limits: Limits | None = None
) -> Iterator[tuple[str, tuple[Move, ...]]]:
    """Yield the jobs that wait under the plan and could start now if others moved, each with these moves.

    Each is looked at by itself, in the order of the plan. It stops nobody.
    """
    place, limits = place or Pack(), limits or Limits()
    at_s = snapshot.at_s
    with snapshot.capacity.trial() as trial:
        for start in plan.starts:
            trial.take(snapshot.waiting[start.job_id].job, start.placement)
        for hold in plan.holds:
            if hold.code is not HoldCode.DEVICES_BUSY:
                continue
            job = snapshot.waiting[hold.job_id].job
            if place.place(job, snapshot.capacity, snapshot.capacity.is_up) is not None:
                continue
            room = Maker(job, snapshot, place, Holders(snapshot, limits)).by_moving()
            if room is not None:
                yield (
                    job.id,
                    tuple(
                        _move(victim.entry, victim.to, at_s, limits, job.id)
                        for victim in room.victims
                        if victim.to is not None
                    ),
                )


def without_moves(policy: Policy) -> Policy:
    """Return the policy as it would be if it moved nobody."""
    return replace(policy, moves=False) if isinstance(policy, Preemptive) else policy


def _move(entry: RunningJob, to: Placement, at_s: float, limits: Limits, starter: str | None) -> Move:
    return Move(
        at_s=at_s,
        job_id=entry.job.id,
        now=entry.placement,
        to=to,
        cost_device_s=limits.cost_device_s(entry, at_s),
        lets_start=starter,
    )


def _starter(entry: RunningJob, starters: dict[str, Placement]) -> str | None:
    """Return whom the job makes room for: who is to have its devices, or others of its nodes."""
    devices = {(share.node_id, device) for share in entry.placement.shares for device in share.devices}
    nodes = {share.node_id for share in entry.placement.shares}
    for job_id, placement in starters.items():
        if any((share.node_id, device) in devices for share in placement.shares for device in share.devices):
            return job_id
    return next(
        (
            job_id
            for job_id, placement in starters.items()
            if any(share.node_id in nodes for share in placement.shares)
        ),
        None,
    )
