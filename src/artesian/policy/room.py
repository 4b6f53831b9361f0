"""Making room for a job that waits: whom to stop, so that it really fits, at the least cost.

A job is placed before anybody is stopped: on what is free and what those give back. Whoever turns out not
to be in its way stays. Of those who are, some can go on at once, elsewhere or with fewer devices; the
others wait.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice

import numpy as np

from artesian.model.capacity import BoolArray, Capacity, FloatArray, Trial
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.resources import MILLI
from artesian.model.running import Columns, Rising, RunningJobs
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.policy.base import Order, Place
from artesian.policy.line import Line, is_shared
from artesian.policy.pipeline import wanted_nodes
from artesian.policy.rights import Choice

_MOST_VICTIMS = 64
_NODES_LOOKED_AT = 64
_MOST_DOUBLINGS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may be stopped for others.

    ``min_runtime_s``: no attempt before it has run so long; twice as long with each further attempt of the job,
    so that whoever is stopped again and again comes to its end all the same. ``restart_s``: what a restart is
    taken to cost beside the work that is lost. ``most_stopping``: attempts that policies have stopped and that
    have not left, at any one time. ``most_lost_s``: the work that a job may lose to go on elsewhere.
    """

    min_runtime_s: float = 300.0
    restart_s: float = 60.0
    most_stopping: int = 64
    most_lost_s: float = 900.0

    def may_stop(self, running: Columns, at_s: float) -> BoolArray:
        """Return which attempts [S] have run long enough, and would be tried again."""
        return running.is_preemptible & (at_s >= self.safe_until_s(running))

    def safe_until_s(self, running: Columns) -> FloatArray:
        """Return until when the attempt in each slot [S] is not stopped for others."""
        doublings = np.clip(running.epoch - 1, 0, _MOST_DOUBLINGS)
        safe_s: FloatArray = running.since_s + np.ldexp(self.min_runtime_s, doublings)
        return safe_s

    def safe_for_s(self, entry: RunningJob, at_s: float) -> float:
        """Return for how much longer the attempt is not stopped for others; 0 or less: it may be."""
        doublings = min(max(entry.epoch - 1, 0), _MOST_DOUBLINGS)
        return math.ldexp(self.min_runtime_s, doublings) - (at_s - entry.since_s)

    def cost_device_s(self, entry: RunningJob, at_s: float) -> float:
        """Return what stopping the attempt costs: the work since its last checkpoint and a restart, in device-seconds."""
        return entry.placement.whole_devices * (entry.lost_s(at_s) + self.restart_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """A job that is stopped to make room; ``to`` is where it goes on at once (None: it waits)."""

    entry: RunningJob
    to: Placement | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Where a job fits once the victims have left, and what that costs, in device-seconds."""

    placement: Placement
    victims: tuple[Victim, ...]
    cost_device_s: float


class Holders:
    """Those who may be stopped in a cycle, for all that want room in it; the cheapest device first."""

    def __init__(self, snapshot: Snapshot, limits: Limits) -> None:
        self._at_s = snapshot.at_s
        self._limits = limits
        self._running = RunningJobs.of(snapshot.running)
        self.gone = list(self._running.stopping.values())
        """Those who leave already, and for whom it was decided in this cycle."""
        self.taken: set[str] = set()

    def take(self, holders: Iterable[RunningJob]) -> None:
        """Take note that these are to leave."""
        self.gone += (found := list(holders))
        self.taken |= {holder.job.id for holder in found}

    def all(self, choice: Choice) -> Iterator[RunningJob]:
        """Yield those who may be chosen and have not been taken."""
        columns = self._running.columns
        found = columns.of(choice.accounts)
        among = found if choice.among is None else found & choice.among(columns)
        return self._left(self._stoppable_rising.within(among))

    def movable(self, choice: Choice) -> Iterator[RunningJob]:
        """Yield those who save their state, and would lose little."""
        return self._left(self._movable_rising.within(self._running.columns.of(choice.accounts)))

    def growable(self) -> Iterator[RunningJob]:
        """Yield those of them who could use more devices."""
        return self._left(self._movable_rising.within(self._running.columns.is_growable))

    def _left(self, found: Iterator[RunningJob]) -> Iterator[RunningJob]:
        return (entry for entry in found if entry.job.id not in self.taken)

    @cached_property
    def _stoppable_rising(self) -> Rising:
        return self._running.columns.rising(self._stoppable, self._lost_s)

    @cached_property
    def _movable_rising(self) -> Rising:
        return self._running.columns.rising(self._movable, self._lost_s)

    @cached_property
    def _lost_s(self) -> FloatArray:
        return self._running.columns.lost_s(self._at_s)

    @cached_property
    def _stoppable(self) -> BoolArray:
        return self._limits.may_stop(self._running.columns, self._at_s)

    @cached_property
    def _movable(self) -> BoolArray:
        return self._stoppable & self._running.columns.saves & (self._lost_s <= self._limits.most_lost_s)

    @cached_property
    def has_movable(self) -> bool:
        """Whether there is anybody who can be moved, taken or not."""
        return bool(self._movable.any())

    @cached_property
    def spare_milli(self) -> int:
        """What those could do without who can be moved."""
        return MILLI * int(self._running.columns.spare[self._movable].sum())

    def cost(self, entry: RunningJob) -> float:
        """Return what it costs to stop it."""
        return self._limits.cost_device_s(entry, self._at_s)


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes room for one job.

    Where ``order`` goes by teams, nobody goes on where its team may not have it, and by moving alone the job gets
    no more than its own team may have.
    """

    job: Job
    snapshot: Snapshot
    place: Place
    holders: Holders
    order: Order | None = None

    def by_right(self, choose: Callable[[], Choice | None]) -> Room | None:
        """Return the cheapest room among those whom the job may have stopped; ``choose`` begins to ask anew."""
        choice = choose()
        if choice is None or not self._could_suffice(choice):
            return None
        return self._cheapest(self.holders.all, choose, may_wait=True)

    def by_moving(self) -> Room | None:
        """Return the cheapest room for which everybody who is in the way goes on at once.

        Only who saves its state, and would lose little, is asked to.
        """
        holders = self.holders
        free = self.snapshot.capacity
        if not holders.has_movable or not any(
            int(free.free_milli[free.eligible(request)].clip(min=0).sum()) + holders.spare_milli
            >= request.min_milli
            for request in self.job.devices
        ):
            return None  # moving makes no devices
        anybody = Choice(frozenset(free.used))
        return self._cheapest(holders.movable, lambda: anybody, may_wait=False)

    def _could_suffice(self, choice: Choice) -> bool:
        """Return whether there are enough devices if all left who may be asked to."""
        free = self.snapshot.capacity
        for request in self.job.devices:
            held = [0] * free.kinds
            for account in choice.accounts:
                for kind, milli in enumerate(free.used.get(account, ())[: free.kinds]):
                    held[kind] += milli
            rows = free.eligible(request)
            kinds = set(free.kind[rows].tolist())
            if any(held[kind] >= request.min_milli for kind in kinds):
                return True  # the usual answer, and what is free need not be summed up
            for kind in kinds:
                there = int(free.free_milli[rows & (free.kind == kind)].clip(min=0).sum())
                if there + held[kind] >= request.min_milli:
                    return True
        return False

    def _cheapest(
        self,
        holders: Callable[[Choice], Iterator[RunningJob]],
        choose: Callable[[], Choice | None],
        *,
        may_wait: bool,
    ) -> Room | None:
        """Try the cheapest devices first; the cheapest gang that suffices alone; and the cheapest node."""
        rooms = []
        wanted = wanted_nodes(self.job, self.snapshot.capacity)
        first = choose()
        assert first is not None
        there = self._there(holders(first), wanted)
        near = list(islice(there, _NODES_LOOKED_AT))
        tries: list[Iterable[RunningJob]] = [chain(near, there)]
        tries += [near for near in (self._cheapest_gang(near), self._cheapest_node(near)) if near]
        for order in tries:
            choice = choose()
            if choice is not None and (room := self._try(order, choice, may_wait=may_wait)) is not None:
                rooms.append(room)
            elif order is tries[0]:
                return None  # not even with all of them
        return min(rooms, key=lambda room: room.cost_device_s, default=None)

    def _there(self, holders: Iterator[RunningJob], wanted: BoolArray) -> Iterator[RunningJob]:
        """Yield those who have devices on nodes [N] that the job could run on."""
        row = self.snapshot.capacity.row
        for entry in holders:
            if any(wanted[row[share.node_id]] for share in entry.placement.shares):
                yield entry

    def _cheapest_gang(self, near: list[RunningJob]) -> list[RunningJob]:
        enough = [entry for entry in near if entry.placement.devices >= self.job.fewest_devices]
        return [min(enough, key=lambda entry: (self.holders.cost(entry), entry.job.id))] if enough else []

    def _cheapest_node(self, near: list[RunningJob]) -> list[RunningJob]:
        """Return the holders on the one node that it costs least to make room on."""
        free = self.snapshot.capacity
        on_node: dict[int, list[RunningJob]] = {}
        for entry in near:
            if len(entry.placement.shares) == 1:
                on_node.setdefault(free.row[entry.placement.shares[0].node_id], []).append(entry)
        best: list[RunningJob] = []
        least = math.inf
        for row in sorted(on_node):
            missing = self.job.fewest_devices - float(free.free_whole[row])
            chosen, total = [], 0.0
            for entry in on_node[row]:
                if missing <= 0:
                    break
                chosen.append(entry)
                missing -= entry.placement.whole_devices
                total += self.holders.cost(entry)
            if missing <= 0 and total < least:
                best, least = chosen, total
        return best

    def _try(self, order: Iterable[RunningJob], choice: Choice, *, may_wait: bool) -> Room | None:
        """Return the room that those make who come first in the order, and may be chosen."""
        line = None if may_wait else self._line()  # of before: who is asked to move counts as a holder
        with self.snapshot.capacity.trial() as trial:
            found = self._free_up(order, choice, trial, line)
            if found is None:
                return None
            placement, asked = found
            trial.take(self.job, placement)
            victims = self._settle(asked, trial)
            if not may_wait and not self._may_have(self.job, placement):
                return None
        if not victims or (not may_wait and any(victim.to is None for victim in victims)):
            return None
        cost = sum(self.holders.cost(victim.entry) for victim in victims)
        return Room(placement=placement, victims=tuple(victims), cost_device_s=cost)

    def _free_up(
        self, order: Iterable[RunningJob], choice: Choice, trial: Trial, line: Line | None
    ) -> tuple[Placement, list[RunningJob]] | None:
        """Let one after the other go until the job fits; those first whom nobody would miss."""
        asked: list[RunningJob] = []
        passed_over: list[RunningJob] = []
        free = trial.capacity
        for is_spare, entries in ((True, order), (False, passed_over)):
            for entry in entries:
                if choice.takes is not None and not choice.takes(entry, is_spare):
                    if is_spare:
                        passed_over.append(entry)
                    continue
                asked.append(entry)
                trial.give(entry.job, entry.placement)
                if (placement := self._placed(self.job, free, line)) is not None:
                    return placement, asked
                if len(asked) >= _MOST_VICTIMS:
                    return None
        return None

    def _settle(self, asked: list[RunningJob], trial: Trial) -> list[Victim]:
        """Put everybody back who is not in the way, the dearest first; find another place for those who are."""
        free = trial.capacity
        in_the_way = []
        for entry in sorted(asked, key=lambda entry: (-self.holders.cost(entry), entry.job.id)):
            if free.fits(entry.job, entry.placement):
                trial.take(entry.job, entry.placement)
            else:
                in_the_way.append(entry)
        victims = []
        for entry in in_the_way:
            to = self.place.place(entry.job, free, free.is_up)
            gains = to is not None and self._gains(entry.placement, to)
            if gains:  # which is seldom, and a line takes its time
                to = self._placed(entry.job, free, self._line())
            if to is not None:
                trial.take(entry.job, to)
                if gains and not self._may_have(entry.job, to):
                    trial.give(entry.job, to)
                    to = None
            victims.append(Victim(entry=entry, to=to))
        return victims

    def _line(self) -> Line | None:
        """Return who may have what, as things are in the trial now; None where nobody is guaranteed, or limited."""
        if self.order is None or not is_shared(self.order):
            return None
        line = self.order.line(self.snapshot)
        return None if line.accounts is None else line

    def _gains(self, now: Placement, to: Placement) -> bool:
        """Return whether a team would hold more of a model of device than it does."""
        free = self.snapshot.capacity
        kinds = [free.kind[free.row[placement.shares[0].node_id]] for placement in (now, to)]
        return bool(kinds[0] != kinds[1]) or to.whole_devices > now.whole_devices

    def _placed(self, job: Job, free: Capacity, line: Line | None) -> Placement | None:
        if line is None:
            return self.place.place(job, free, free.is_up)
        return line.place(self.place, job, free, free.is_up)

    def _may_have(self, job: Job, placement: Placement) -> bool:
        """Return whether the job's team may have what the job has got in the trial."""
        if (line := self._line()) is None:
            return True
        assert line.accounts is not None
        free = self.snapshot.capacity
        return line.accounts.may_hold(job.team, int(free.kind[free.row[placement.shares[0].node_id]]))
