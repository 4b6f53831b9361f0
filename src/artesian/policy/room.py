"""Making room for a job that waits: whom to stop, so that it really fits, at the least cost.

A job is placed before anybody is stopped: on what is free and what those give back. Whoever turns out not
to be in its way stays. Of those who are, some can go on at once, elsewhere or with fewer devices; the
others wait.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from artesian.model.capacity import BoolArray, Trial
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.resources import MILLI
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.policy.base import Place
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

    def may_stop(self, entry: RunningJob, at_s: float) -> bool:
        """Return whether the attempt has run long enough, and would be tried again."""
        return at_s >= self.safe_until_s(entry) and entry.is_preemptible

    def safe_until_s(self, entry: RunningJob) -> float:
        """Return until when the attempt is not stopped for others."""
        doublings = min(max(0, entry.epoch - 1), _MOST_DOUBLINGS)
        return entry.since_s + self.min_runtime_s * 2.0**doublings

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
    """Those who may be stopped in a cycle, sorted once for all that want room in it; the cheapest device first."""

    def __init__(self, snapshot: Snapshot, limits: Limits) -> None:
        self._snapshot = snapshot
        self._limits = limits
        self.gone = [holder for holder in snapshot.running.values() if holder.is_stopping]
        """Those who leave already, and for whom it was decided in this cycle."""
        self.taken: set[str] = set()

    def take(self, holders: Iterable[RunningJob]) -> None:
        """Take note that these are to leave."""
        self.gone += (found := list(holders))
        self.taken |= {holder.job.id for holder in found}

    @cached_property
    def all(self) -> list[RunningJob]:
        """All of them."""
        return self._sorted(self._snapshot.running)

    @cached_property
    def movable(self) -> list[RunningJob]:
        """Those who save their state, and would lose little."""
        running, at_s, most_s = self._snapshot.running, self._snapshot.at_s, self._limits.most_lost_s
        return self._sorted(
            job_id for job_id, entry in running.items() if entry.saves and entry.lost_s(at_s) <= most_s
        )

    def _sorted(self, job_ids: Iterable[str]) -> list[RunningJob]:
        running, at_s, may_stop = self._snapshot.running, self._snapshot.at_s, self._limits.may_stop
        # Tuples of plain values, and no key to call: tens of thousands may be running.
        found = sorted(
            (entry.lost_s(at_s), -entry.since_s, job_id)
            for job_id in job_ids
            if may_stop(entry := running[job_id], at_s)
        )
        return [running[job_id] for _, _, job_id in found]

    @cached_property
    def spare_milli(self) -> int:
        """What those could do without who can be moved."""
        return MILLI * sum(max(0, entry.placement.devices - _fewest(entry.job)) for entry in self.movable)

    def cost(self, entry: RunningJob) -> float:
        """Return what it costs to stop it."""
        return self._limits.cost_device_s(entry, self._snapshot.at_s)


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes room for one job."""

    job: Job
    snapshot: Snapshot
    place: Place
    holders: Holders

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
        if not holders.movable or not any(
            int(free.free_milli[free.eligible(request)].clip(min=0).sum()) + holders.spare_milli
            >= request.min_milli
            for request in self.job.devices
        ):
            return None  # moving makes no devices
        anybody = Choice(frozenset(free.used), lambda _holder, _is_spare: True)
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
            for kind in set(free.kind[rows].tolist()):
                there = int(free.free_milli[rows & (free.kind == kind)].clip(min=0).sum())
                if there + held[kind] >= request.min_milli:
                    return True
        return False

    def _cheapest(
        self, holders: Sequence[RunningJob], choose: Callable[[], Choice | None], *, may_wait: bool
    ) -> Room | None:
        """Try the cheapest devices first; the cheapest gang that suffices alone; and the cheapest node."""
        rooms = []
        wanted = wanted_nodes(self.job, self.snapshot.capacity)
        first = choose()
        assert first is not None
        tries: list[Iterable[RunningJob]] = [self._eligible(holders, first, wanted)]
        near = list(islice(self._eligible(holders, first, wanted), _NODES_LOOKED_AT))
        tries += [near for near in (self._cheapest_gang(near), self._cheapest_node(near)) if near]
        for order in tries:
            choice = choose()
            if choice is not None and (room := self._try(order, choice, may_wait=may_wait)) is not None:
                rooms.append(room)
            elif order is tries[0]:
                return None  # not even with all of them
        return min(rooms, key=lambda room: room.cost_device_s, default=None)

    def _eligible(
        self, holders: Sequence[RunningJob], choice: Choice, wanted: BoolArray
    ) -> Iterator[RunningJob]:
        accounts, taken, row = choice.accounts, self.holders.taken, self.snapshot.capacity.row
        for entry in holders:
            if (entry.job.team, entry.job.priority) not in accounts or entry.job.id in taken:
                continue
            if any(wanted[row[share.node_id]] for share in entry.placement.shares):
                yield entry

    def _cheapest_gang(self, near: list[RunningJob]) -> list[RunningJob]:
        enough = [entry for entry in near if entry.placement.devices >= _fewest(self.job)]
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
            missing = _fewest(self.job) - float(free.free_whole[row])
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
        with self.snapshot.capacity.trial() as trial:
            found = self._free_up(order, choice, trial)
            if found is None:
                return None
            placement, asked = found
            trial.take(self.job, placement)
            victims = self._settle(asked, trial)
        if not victims or (not may_wait and any(victim.to is None for victim in victims)):
            return None
        cost = sum(self.holders.cost(victim.entry) for victim in victims)
        return Room(placement=placement, victims=tuple(victims), cost_device_s=cost)

    def _free_up(
        self, order: Iterable[RunningJob], choice: Choice, trial: Trial
    ) -> tuple[Placement, list[RunningJob]] | None:
        """Let one after the other go until the job fits; those first whom nobody would miss."""
        asked: list[RunningJob] = []
        passed_over: list[RunningJob] = []
        free = trial.capacity
        for is_spare, entries in ((True, order), (False, passed_over)):
            for entry in entries:
                if not choice.takes(entry, is_spare):
                    if is_spare:
                        passed_over.append(entry)
                    continue
                asked.append(entry)
                trial.give(entry.job, entry.placement)
                if (placement := self.place.place(self.job, free, free.is_up)) is not None:
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
            if to is not None:
                trial.take(entry.job, to)
            victims.append(Victim(entry=entry, to=to))
        return victims


def _fewest(job: Job) -> int:
    return min(max(1, request.min_devices) for request in job.devices)
