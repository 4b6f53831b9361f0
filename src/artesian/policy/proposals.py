"""What moving running jobs would give now: for a live fleet, whatever its policy does by itself."""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum

from artesian.model.capacity import Trial
from artesian.model.placement import Placement
from artesian.model.plan import Plan
from artesian.model.running import RunningJobs
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.model.units import format_duration
from artesian.policy.base import Place, Policy
from artesian.policy.moves import (
    Move,
    RoomMaker,
    adopt,
    move_of,
    moves_for,
    moves_of,
    order_of,
    parts_of,
    starter_of,
)
from artesian.policy.place import Pack
from artesian.policy.pools import Pools
from artesian.policy.preemptive import Preemptive
from artesian.policy.room import Limits

_ANY = Limits(min_runtime_s=0.0, most_lost_s=math.inf)
_MOST = 8
"""Jobs that room is found for, and kinds of jobs that it is looked for in vain: more would take seconds."""


class Standing(StrEnum):
    """How far a move has come: decided; what the next cycle would decide; possible, but the policy in force moves
    nobody; or more than what moves may cost."""

    UNDER_WAY = "under_way"
    NEXT = "next_cycle"
    POSSIBLE = "possible"
    HELD_BACK = "held_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A move, where the job starts that it lets start, how far it has come, and what holds it back if something does."""

    move: Move
    starts_on: Placement | None
    standing: Standing
    held_back_by: str | None = None


def moves_by_itself(policy: Policy) -> bool:
    """Return whether the policy has running jobs go on elsewhere so that waiting ones can start."""
    if isinstance(policy, Pools):
        return any(map(moves_by_itself, (*policy.by_pool.values(), policy.other)))
    return isinstance(policy, Preemptive) and policy.moves


def proposals(policy: Policy, snapshot: Snapshot) -> list[Proposal]:
    """Return the moves with which waiting jobs can start: under way, planned, and possible. It stops nobody.

    The possible ones are found as a policy that moves jobs would find them: for who is next, and, once there is room
    for it, for who is next then.
    """
    found = list(_under_way(snapshot))
    plan = policy.plan(snapshot)
    claims = {claim.job_id: claim.placement for claim in plan.claims}
    found += [
        Proposal(move=move, starts_on=claims[move.lets_start], standing=Standing.NEXT)
        for move in moves_of(plan, snapshot)
        if move.lets_start is not None
    ]
    with snapshot.capacity.trial() as trial:
        placed = adopt(plan, snapshot, trial) & set(snapshot.waiting)
        with closing(parts_of(policy, snapshot)) as parts:
            for part in parts:
                assert part is not None
                found += _possible(part, plan, placed, snapshot, trial)
    return found


def _possible(
    policy: Policy, plan: Plan, placed: set[str], snapshot: Snapshot, trial: Trial
) -> Iterator[Proposal]:
    """Yield what moves would give beyond the plan; ``placed`` grows by the jobs that have a place."""
    own, inner = Limits(), policy
    place: Place = Pack()
    if isinstance(policy, Preemptive):  # who would be stopped for others by right is in the plan
        own, place, inner = policy.limits, policy.place, policy.inner
    maker = RoomMaker(snapshot, place, trial, (own, _ANY), order_of(policy), most=_MOST)
    maker.pass_over(plan)
    while True:
        with snapshot.waiting.without(placed):
            after = inner.plan(snapshot)
            for start in after.starts:  # it fits, and waited for its turn only
                trial.take(snapshot.waiting[start.job_id].job, start.placement)
            rooms = maker.rooms(after)
        if not rooms:
            return
        placed |= {start.job_id for start in after.starts} | {job_id for job_id, _, _ in rooms}
        for job_id, room, by in rooms:
            moves = moves_for(job_id, room, snapshot, by)
            why_not = {} if by is own else _why_not(moves, snapshot, own)
            for move in moves:
                yield Proposal(
                    move=move,
                    starts_on=room.placement,
                    standing=Standing.POSSIBLE if by is own else Standing.HELD_BACK,
                    held_back_by=why_not.get(move.job_id),
                )


def _under_way(snapshot: Snapshot) -> Iterator[Proposal]:
    """Yield the moves of those who leave already."""
    starters = {id_: entry.claim for id_, entry in snapshot.waiting.claims.items() if entry.claim is not None}
    for entry in RunningJobs.of(snapshot.running).stopping.values():
        starter = starter_of(entry, starters)
        if entry.claim is not None and starter is not None:
            move = move_of(entry, entry.claim, snapshot.at_s, Limits(), starter)
            yield Proposal(move=move, starts_on=starters[starter], standing=Standing.UNDER_WAY)


def _why_not(moves: tuple[Move, ...], snapshot: Snapshot, limits: Limits) -> dict[str, str]:
    """Return what holds each of the moves for one job back; those that only have to wait for others say so."""
    found = {
        move.job_id: reason
        for move in moves
        if (reason := _reason(snapshot.running[move.job_id], move, limits)) is not None
    }
    others = ", ".join(found)
    return {move.job_id: found.get(move.job_id, f"moves with {others}") for move in moves}


def _reason(entry: RunningJob, move: Move, limits: Limits) -> str | None:
    left_s = limits.safe_for_s(entry, move.at_s)
    if left_s > 0:
        return f"has not run for long: it is left alone for another {format_duration(left_s)}"
    if move.lost_s > limits.most_lost_s:
        most = format_duration(limits.most_lost_s)
        return f"would lose {format_duration(move.lost_s)} of work: more than {most}"
    return None
