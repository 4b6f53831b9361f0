"""Preemption around any policy: who may have others stopped, and the devices kept for whom they were stopped."""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from artesian.model.capacity import Trial
from artesian.model.job import Cause
from artesian.model.plan import Claim, Hold, HoldCode, Plan, Reason, Start, Stop
from artesian.model.queue import WaitingJob, shape_of
from artesian.model.running import RunningJobs
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.policy import explain
from artesian.policy.base import Order, Place, Policy, Timed
from artesian.policy.claims import keep, reserve
from artesian.policy.elastic import growing
from artesian.policy.rights import Right
from artesian.policy.room import Holders, Limits, Maker, Room, Victim

_LOOK_EVERY_S = 300.0
"""How often to look at rights that time alone gives."""
_LOOKED_AT = 8
_ENOUGH = 8
"""Stops after which a cycle ends, to be short: the next one begins when the first of them has left."""
_WAITING = frozenset({HoldCode.DEVICES_BUSY, HoldCode.BEHIND_ANOTHER})
_WANTING = _WAITING | {HoldCode.KEPT_FOR_TEAMS}
"""Who waits for devices to come free. For one from whom free ones are kept no room is made: it might be with these."""


@dataclass(slots=True)
class _Cycle:
    """What one cycle has decided. ``kept`` has the jobs that devices are kept for, with those who leave."""

    starts: list[Start] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    kept: dict[str, tuple[str, ...]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    plan: Plan = field(default_factory=lambda: Plan(at_s=0.0))


@dataclass(frozen=True, slots=True)
class Preemptive:
    """Let ``inner`` decide; where a job waits that has a right over running ones, make room for it.

    First, if ``moves``, by having others go on elsewhere or with fewer devices, which takes no right but
    to be next; else by whoever of ``rights`` comes first. It has no memory: what is kept for whom stands in
    the plan, and so in the snapshot. Time alone lets attempts be stopped: it wants a cycle when one has run long enough, while jobs wait.
    """

    inner: Policy
    place: Place
    rights: tuple[Right, ...] = ()
    limits: Limits = field(default_factory=Limits)
    moves: bool = True
    order: Order | None = None
    """Where it goes by teams, these bound what gangs grow to."""

    def plan(self, snapshot: Snapshot) -> Plan:
        """Return the stops and starts of this cycle, and the jobs that it looked at in vain."""
        with self._decided(snapshot) as cycle:
            kept = tuple(Hold(job_id=job_id, code=HoldCode.DEVICES_BUSY) for job_id in cycle.kept)
            return Plan(
                at_s=snapshot.at_s,
                stops=(*cycle.stops, *cycle.plan.stops),
                starts=(*cycle.starts, *cycle.plan.starts),
                holds=(*kept, *cycle.plan.holds),
                claims=tuple(cycle.claims),
                notice=cycle.plan.notice,
            )

    def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
        """Return why the job waits that ``plan`` would leave waiting; None where it would start."""
        entry = snapshot.waiting[job_id]
        with self._decided(snapshot) as cycle:
            if job_id in cycle.kept:
                return explain.room_is_made(cycle.kept[job_id])
            if any(start.job_id == entry.job.id for start in cycle.starts):
                return None
            begun = _begun(snapshot, cycle.starts)
            with snapshot.waiting.without(cycle.hidden):
                return self.inner.explain(begun, job_id)

    def next_wake_s(self, snapshot: Snapshot) -> float | None:
        """Return when to look again whether those have run long enough that others wait for, or that could grow."""
        inner_s = self.inner.next_wake_s(snapshot) if isinstance(self.inner, Timed) else None
        if not snapshot.waiting and not _has_elastic(snapshot):
            return inner_s
        at_s = snapshot.at_s
        columns = RunningJobs.of(snapshot.running).columns
        safe_s = self.limits.safe_until_s(columns)[columns.is_held]
        wakes = [float(safe_s[safe_s > at_s].min(initial=math.inf))]
        if any(right.is_timed for right in self.rights):
            wakes.append((math.floor(at_s / _LOOK_EVERY_S) + 1) * _LOOK_EVERY_S)
        if inner_s is not None:
            wakes.append(inner_s)
        wake_s = min(wakes)
        return None if wake_s == math.inf else wake_s

    @contextmanager
    def _decided(self, snapshot: Snapshot) -> Iterator[_Cycle]:
        """Decide, and let the caller look at it while all that is kept is taken."""
        cycle = _Cycle()
        with snapshot.capacity.trial() as trial:
            claims = reserve(snapshot, trial)
            for entry, placement in claims.starts:
                cycle.hidden.add(entry.job.id)
                cycle.starts.append(
                    Start(
                        job_id=entry.job.id,
                        epoch=entry.next_epoch,
                        placement=placement,
                        reason=explain.start_kept(placement),
                    )
                )
            for job_id, leaving in claims.pending.items():
                cycle.hidden.add(job_id)
                cycle.kept[job_id] = tuple(holder.job.name for holder in leaving)
            self._serve(snapshot, trial, cycle)
            yield cycle

    def _serve(self, snapshot: Snapshot, trial: Trial, cycle: _Cycle) -> None:
        """Ask ``inner`` what is to start, make room for those who wait all the same, and ask again."""
        holders = Holders(snapshot, self.limits)
        with snapshot.waiting.hiding() as hide:
            is_over = self._make_room(snapshot, trial, cycle, holders, hide)
        if (
            is_over
            and self.moves
            and not cycle.kept
            and not any(hold.code in _WANTING for hold in cycle.plan.holds)
        ):
            self._grow(snapshot, trial, cycle, holders)

    def _make_room(
        self,
        snapshot: Snapshot,
        trial: Trial,
        cycle: _Cycle,
        holders: Holders,
        hide: Callable[[Iterable[str]], None],
    ) -> bool:
        """Do so until no more can be made; return False where that is enough for a cycle before."""
        while True:
            hide(cycle.hidden)
            cycle.plan = self.inner.plan(snapshot)
            is_enough = len(cycle.stops) >= _ENOUGH or len(holders.gone) >= self.limits.most_stopping
            if not snapshot.running or is_enough:
                return False
            rooms = self._rooms(snapshot, cycle.plan, holders) if cycle.plan.holds else []
            if not rooms:
                return True
            for entry, room, why in rooms:
                cycle.hidden.add(entry.job.id)
                cycle.kept[entry.job.id] = tuple(victim.entry.job.name for victim in room.victims)
                keep(entry.job, room.placement, trial, snapshot.at_s)
                cycle.claims.append(Claim(job_id=entry.job.id, placement=room.placement))
                for victim in room.victims:
                    self._stop(snapshot, trial, cycle, victim, explain.stop_for(entry.job, why, victim.to))

    def _grow(self, snapshot: Snapshot, trial: Trial, cycle: _Cycle, holders: Holders) -> None:
        """Give elastic gangs what nobody wants."""
        starts = cycle.plan.starts
        kept = [(snapshot.waiting[start.job_id].job, start.placement) for start in starts]
        while len(cycle.stops) < _ENOUGH:
            with snapshot.capacity.trial() as after:
                for job, placement in kept:
                    after.take(job, placement)
                grown = next(growing(snapshot, self.place, self.limits, holders, self.order), None)
            if grown is None:
                return
            holders.take([grown.entry])
            self._stop(snapshot, trial, cycle, grown, explain.stop_to_grow(grown.entry.placement, grown.to))

    @staticmethod
    def _stop(snapshot: Snapshot, trial: Trial, cycle: _Cycle, victim: Victim, reason: str) -> None:
        holder = victim.entry
        cycle.stops.append(
            Stop(
                job_id=holder.job.id,
                epoch=holder.epoch,
                grace_s=holder.job.grace_s,
                cause=Cause.PREEMPTED,
                reason=reason,
            )
        )
        if victim.to is not None:
            keep(holder.job, victim.to, trial, snapshot.at_s)
            cycle.claims.append(Claim(job_id=holder.job.id, placement=victim.to))

    def _rooms(self, snapshot: Snapshot, plan: Plan, holders: Holders) -> list[tuple[WaitingJob, Room, str]]:
        """Return the jobs that room can be made for, the room, and why it may be."""
        rooms: list[tuple[WaitingJob, Room, str]] = []
        in_vain: set[Hashable] = set()
        with snapshot.capacity.trial() as trial:
            for holder in holders.gone:
                trial.charge(holder.job, holder.placement, -1)
            for start in plan.starts:
                trial.take(snapshot.waiting[start.job_id].job, start.placement)
            for hold in plan.holds:
                entry = snapshot.waiting[hold.job_id]
                alike = (shape_of(entry.job), entry.job.team, entry.job.priority)
                if hold.code not in _WAITING or alike in in_vain:
                    continue
                found = self._room(entry, hold, snapshot, holders)
                if found is None:
                    in_vain.add(alike)
                else:
                    rooms.append((entry, *found))
                    self._set_aside(entry, found[0], snapshot, trial)
                    holders.take(victim.entry for victim in found[0].victims)
                is_full = len(holders.gone) >= self.limits.most_stopping
                if is_full or len(in_vain) >= _LOOKED_AT or len(rooms) >= _LOOKED_AT:
                    break
        return rooms

    @staticmethod
    def _set_aside(entry: WaitingJob, room: Room, snapshot: Snapshot, trial: Trial) -> None:
        """Let the others who want room see what is left."""
        keep(entry.job, room.placement, trial, snapshot.at_s)
        for victim in room.victims:
            trial.charge(victim.entry.job, victim.entry.placement, -1)
            if victim.to is not None:
                keep(victim.entry.job, victim.to, trial, snapshot.at_s)

    def _room(
        self, entry: WaitingJob, hold: Hold, snapshot: Snapshot, holders: Holders
    ) -> tuple[Room, str] | None:
        free = snapshot.capacity
        if self.place.place(entry.job, free, free.is_up) is not None:
            return None  # it waits for its turn, not for devices
        maker = Maker(entry.job, snapshot, self.place, holders)
        is_next = hold.code is HoldCode.DEVICES_BUSY
        if self.moves and is_next and (room := maker.by_moving()) is not None:
            return room, "it can go on without these devices"
        for right in self.rights:
            if (room := maker.by_right(partial(right.choice, entry, snapshot))) is not None:
                return room, right.text
        return None


def _begun(snapshot: Snapshot, starts: list[Start]) -> Snapshot:
    """Return the view in which these hold what they start on: it is their names that others are told."""
    if not starts:
        return snapshot
    running = dict(snapshot.running)
    for start in starts:
        running[start.job_id] = RunningJob.begun(snapshot.waiting[start.job_id], start, snapshot.at_s)
    return replace(snapshot, running=running)


def _has_elastic(snapshot: Snapshot) -> bool:
    """Return whether a gang runs that could use more devices than it needs."""
    return any(
        request.max_devices > request.min_devices
        for devices, _ in snapshot.capacity.held
        for request in devices
    )
