"""Moves: running jobs that go on elsewhere, or with another number of devices, so that a waiting one can start.

What a plan makes of them, and what could be made of them where a policy does not.
"""

from collections.abc import Generator, Hashable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace

from msgspec.structs import replace as structs_replace

from artesian.model.capacity import Trial
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.plan import HoldCode, Plan
from artesian.model.queue import shape_of
from artesian.model.running import RunningJobs
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.policy.base import Order, Place, Policy
from artesian.policy.claims import is_known, keep
from artesian.policy.fairshare import FairShare
from artesian.policy.place import Pack
from artesian.policy.pools import Pools
from artesian.policy.preemptive import Preemptive
from artesian.policy.room import Holders, Limits, Maker, Room
from artesian.policy.rounds import Rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """At ``at_s`` a running job goes on on ``to``, at a cost in device-seconds: what it does again, and a restart.

    ``lost_s`` is how long it ran since its last checkpoint, ``lets_start`` the job that can start for it, with others
    that move for the same one; None where there is none: it only grows.
    """

    at_s: float
    job_id: str
    now: Placement
    to: Placement
    lost_s: float
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
        move_of(entry, to[stop.job_id], snapshot.at_s, limits or Limits(), starter_of(entry, starters))
        for stop in plan.stops
        if stop.job_id in to and (entry := snapshot.running.get(stop.job_id)) is not None
    ]


def possible_moves(
    plan: Plan,
    snapshot: Snapshot,
    place: Place | None = None,
    limits: Limits | None = None,
    policy: Policy | None = None,
) -> list[tuple[str, tuple[Move, ...]]]:
    """Return the jobs that wait under the plan and could start now if others moved, each with these moves.

    Each is looked at after those before it, in the order of the plan. It stops nobody. Where ``policy``, whose plan it
    is, goes by teams, none of them gets what its team may not have; of ``Pools``, each has its own nodes, and its say
    about them.
    """
    limits = limits or Limits()
    found: list[tuple[str, Room, Limits]] = []
    with snapshot.capacity.trial() as trial, closing(parts_of(policy, snapshot)) as parts:
        adopt(plan, snapshot, trial)
        for part in parts:
            maker = RoomMaker(
                snapshot, place or Pack(), trial, (limits,), None if part is None else order_of(part)
            )
            maker.pass_over(plan)
            maker.leave_alone(victim.entry for _, room, _ in found for victim in room.victims)
            placed = {job_id for job_id, _, _ in found}
            rest = tuple(hold for hold in plan.holds if hold.job_id not in placed)
            found += maker.rooms(structs_replace(plan, holds=rest))
    return [(job_id, moves_for(job_id, room, snapshot, limits)) for job_id, room, _ in found]


def parts_of(policy: Policy | None, snapshot: Snapshot) -> Generator[Policy | None]:
    """Yield the policy, or, of ``Pools``, that of each pool: meanwhile nothing can start but on its nodes.

    To be closed, so that no pool stays shut where one of them raises.
    """
    if isinstance(policy, Pools):
        yield from policy.each(snapshot)
    else:
        yield policy


def adopt(plan: Plan, snapshot: Snapshot, trial: Trial) -> set[str]:
    """Take what those get who start by the plan, and what is kept for others; return the ids of all of them."""
    for start in plan.starts:
        trial.take(snapshot.waiting[start.job_id].job, start.placement)
    claims = {id_: entry.claim for id_, entry in snapshot.waiting.claims.items()}
    claims |= {entry.job.id: entry.claim for entry in RunningJobs.of(snapshot.running).stopping.values()}
    claims |= {claim.job_id: claim.placement for claim in plan.claims}
    starts = {start.job_id for start in plan.starts}
    kept = {
        id_: claim
        for id_, claim in claims.items()
        if claim is not None and id_ not in starts and is_known(claim, trial.capacity)
    }
    for id_, claim in sorted(kept.items()):
        entry = snapshot.waiting.get(id_) or snapshot.running[id_]
        keep(entry.job, claim, trial, snapshot.at_s)
    return starts | set(kept)


class RoomMaker:
    """Finds what room moves would make for one job after the other, each beside all before it, in a trial.

    ``limits`` are how much may be moved for others; of several the first ones that allow it count. ``order`` bounds
    what each may have where it goes by teams. It gives up after
    ``most`` rooms, or as many kinds of jobs that were looked at in vain (None: after the last job).
    """

    def __init__(
        self,
        snapshot: Snapshot,
        place: Place,
        trial: Trial,
        limits: tuple[Limits, ...],
        order: Order | None,
        *,
        most: int | None = None,
    ) -> None:
        self._snapshot, self._place, self._trial, self._most = snapshot, place, trial, most
        self._order = order
        self._holders = [(each, Holders(snapshot, each)) for each in limits]
        self._found = 0
        self._in_vain: set[Hashable] = set()

    def pass_over(self, plan: Plan) -> None:
        """Leave those alone who stop by the plan."""
        self.leave_alone(self._snapshot.running[stop.job_id] for stop in plan.stops)

    def leave_alone(self, entries: Iterable[RunningJob]) -> None:
        """Leave those alone who are about to stop, or to move."""
        known = list(entries)
        for _, holders in self._holders:
            holders.take(known)

    def rooms(self, plan: Plan) -> list[tuple[str, Room, Limits]]:
        """Return the jobs that are next by the plan and wait for devices, with the room and the limits that allow it.

        In the trial everybody is then where the rooms have them.
        """
        free = self._trial.capacity
        found: list[tuple[str, Room, Limits]] = []
        for hold in plan.holds:
            if self._most in (self._found, len(self._in_vain)):
                break
            job = self._snapshot.waiting[hold.job_id].job
            if hold.code is not HoldCode.DEVICES_BUSY or shape_of(job) in self._in_vain:
                continue
            if (
                job.id in self._snapshot.waiting.claims
                or self._place.place(job, free, free.is_up) is not None
            ):
                continue
            room = self._room(job)
            if room is None:
                self._in_vain.add(shape_of(job))
            else:
                self._found += 1
                _settle(job, room[0], self._trial)
                found.append((job.id, *room))
        return found

    def _room(self, job: Job) -> tuple[Room, Limits] | None:
        for limits, holders in self._holders:
            room = Maker(job, self._snapshot, self._place, holders, self._order).by_moving()
            if room is not None:
                for _, each in self._holders:
                    each.take(victim.entry for victim in room.victims)
                return room, limits
        return None


def _settle(job: Job, room: Room, trial: Trial) -> None:
    """Have everybody where the room has them."""
    for victim in room.victims:
        trial.give(victim.entry.job, victim.entry.placement)
    trial.take(job, room.placement)
    for victim in room.victims:
        assert victim.to is not None
        trial.take(victim.entry.job, victim.to)


def moves_for(job_id: str, room: Room, snapshot: Snapshot, limits: Limits) -> tuple[Move, ...]:
    """Return the moves that make the room for the job."""
    return tuple(
        move_of(victim.entry, victim.to, snapshot.at_s, limits, job_id)
        for victim in room.victims
        if victim.to is not None
    )


def order_of(policy: Policy) -> Order | None:
    """Return the order that bounds what moves may give to whom under the policy; None where none does."""
    if isinstance(policy, Rounds):
        return FairShare(policy.teams)
    return policy.order if isinstance(policy, Preemptive) else None


def without_moves(policy: Policy) -> Policy:
    """Return the policy as it would be if it moved nobody."""
    if isinstance(policy, Pools):
        by_pool = {name: without_moves(each) for name, each in policy.by_pool.items()}
        return Pools(by_pool, without_moves(policy.other))
    return replace(policy, moves=False) if isinstance(policy, Preemptive) else policy


def move_of(entry: RunningJob, to: Placement, at_s: float, limits: Limits, starter: str | None) -> Move:
    """Return the move of a running job, for ``starter``."""
    return Move(
        at_s=at_s,
        job_id=entry.job.id,
        now=entry.placement,
        to=to,
        lost_s=entry.lost_s(at_s),
        cost_device_s=limits.cost_device_s(entry, at_s),
        lets_start=starter,
    )


def starter_of(entry: RunningJob, starters: dict[str, Placement]) -> str | None:
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
