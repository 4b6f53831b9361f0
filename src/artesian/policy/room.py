"""Making room for a job that waits: whom to stop, so that it really fits, at the least cost.

A job is placed before anybody is stopped: on what is free and what those give back. Whoever turns out not
to be in its way stays. Of those who are, some can go on at once, elsewhere or with fewer devices; the
others wait.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from artesian.model.capacity import Capacity, Trial
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.policy.base import Place
from artesian.policy.pipeline import wanted_nodes
from artesian.policy.rights import Choice

_MOST_VICTIMS = 64
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
        if not entry.is_preemptible:
            return False
        doublings = min(max(0, entry.epoch - 1), _MOST_DOUBLINGS)
        return at_s - entry.since_s >= self.min_runtime_s * 2.0**doublings

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


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes room for one job. ``stopped`` are those who leave for somebody else already."""

    job: Job
    snapshot: Snapshot
    place: Place
    limits: Limits
    stopped: frozenset[str]

    def by_right(self, choose: Callable[[], Choice | None]) -> Room | None:
        """Return the cheapest room among those whom the job may have stopped; ``choose`` begins to ask anew."""
        if choose() is None:
            return None  # so it nearly always is, and nobody's running time was looked at
        return self._cheapest(self._holders(), choose, may_wait=True)

    def by_moving(self) -> Room | None:
        """Return the cheapest room for which everybody who is in the way goes on at once.

        Only who saves its state, and would lose little, is asked to.
        """
        at_s = self.snapshot.at_s
        holders = [
            entry
            for entry in self._holders()
            if entry.job.checkpoint_every_s is not None and entry.lost_s(at_s) <= self.limits.most_lost_s
        ]
        if not self._could_suffice(holders):
            return None
        return self._cheapest(holders, lambda: lambda _holder, _is_spare: True, may_wait=False)

    def _holders(self) -> list[RunningJob]:
        """Return who holds what the job could use, and may be stopped by now."""
        capacity, at_s = self.snapshot.capacity, self.snapshot.at_s
        wanted = wanted_nodes(self.job, capacity)
        return [
            entry
            for entry in self.snapshot.running.values()
            if entry.job.id not in self.stopped
            and self.limits.may_stop(entry, at_s)
            and any(wanted[capacity.row[share.node_id]] for share in entry.placement.shares)
        ]

    def _could_suffice(self, holders: Iterable[RunningJob]) -> bool:
        """Return whether there are enough devices if all went on with as few as they can: moving makes none."""
        capacity = self.snapshot.capacity
        spare = sum(max(0, entry.placement.devices - _fewest(entry)) for entry in holders)
        return any(
            int(capacity.free_milli[capacity.eligible(request)].clip(min=0).sum()) + 1000 * spare
            >= request.min_milli
            for request in self.job.devices
        )

    def _cheapest(
        self, holders: list[RunningJob], choose: Callable[[], Choice | None], *, may_wait: bool
    ) -> Room | None:
        rooms = []
        for order in self._orders(holders):
            choice = choose()
            if choice is not None and (room := self._try(order, choice, may_wait=may_wait)) is not None:
                rooms.append(room)
        return min(rooms, key=lambda room: room.cost_device_s, default=None)

    def _orders(self, holders: list[RunningJob]) -> list[list[RunningJob]]:
        """Return in which orders to ask holders: the cheapest first; the cheapest for each device; node by node."""
        cost = {entry.job.id: self._cost(entry) for entry in holders}

        def per_device(entry: RunningJob) -> float:
            return cost[entry.job.id] / max(entry.placement.whole_devices, 1e-3)

        def latest(entry: RunningJob) -> tuple[float, str]:
            return (-entry.since_s, entry.job.id)

        by_cost = sorted(holders, key=lambda entry: (cost[entry.job.id], *latest(entry)))
        by_device = sorted(holders, key=lambda entry: (per_device(entry), *latest(entry)))
        node = self._cheapest_node(by_device, cost)
        return [by_cost, by_device, *([node] if node else [])]

    def _cheapest_node(self, by_device: list[RunningJob], cost: dict[str, float]) -> list[RunningJob]:
        """Return the holders on the one node that is cheapest to make room on."""
        free = self.snapshot.capacity
        needed = max(1, min(request.min_devices for request in self.job.devices))
        on_node: dict[int, list[RunningJob]] = {}
        for entry in by_device:
            if len(entry.placement.shares) == 1:
                on_node.setdefault(free.row[entry.placement.shares[0].node_id], []).append(entry)
        best: list[RunningJob] = []
        least = float("inf")
        for row in sorted(on_node):
            missing = needed - float(free.free_whole[row])
            chosen, total = [], 0.0
            for entry in on_node[row]:
                if missing <= 0:
                    break
                chosen.append(entry)
                missing -= entry.placement.whole_devices
                total += cost[entry.job.id]
            if missing <= 0 and total < least:
                best, least = chosen, total
        return best

    def _try(self, order: Sequence[RunningJob], choice: Choice, *, may_wait: bool) -> Room | None:
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
        cost = sum(self._cost(victim.entry) for victim in victims)
        return Room(placement=placement, victims=tuple(victims), cost_device_s=cost)

    def _free_up(
        self, order: Sequence[RunningJob], choice: Choice, trial: Trial
    ) -> tuple[Placement, list[RunningJob]] | None:
        """Let one after the other go until the job fits; those first whom nobody would miss."""
        asked: list[RunningJob] = []
        ids: set[str] = set()
        free: Capacity = trial.capacity
        for is_spare in (True, False):
            for entry in order:
                if entry.job.id in ids or not choice(entry, is_spare):
                    continue
                ids.add(entry.job.id)
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
        for entry in sorted(asked, key=lambda entry: (-self._cost(entry), entry.job.id)):
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

    def _cost(self, entry: RunningJob) -> float:
        return self.limits.cost_device_s(entry, self.snapshot.at_s)


def _fewest(entry: RunningJob) -> int:
    return min(max(1, request.min_devices) for request in entry.job.devices)
