"""What a job that waits can look forward to: its nearest start, and what would let it start now.

Each answer is a trial: the policy plans once more, on the same snapshot with one thing changed.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

from msgspec.structs import replace

from artesian.model.job import Job
from artesian.model.quota import Teams
from artesian.model.resources import MILLI, DeviceRequest
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.model.units import format_duration
from artesian.policy.accounts import Accounts
from artesian.policy.base import Place, Policy
from artesian.policy.foresight import nearest_start_s
from artesian.policy.moves import order_of, parts_of
from artesian.policy.pipeline import wanted_nodes
from artesian.policy.place import Pack
from artesian.policy.rights import parting
from artesian.policy.room import Holders, Limits, Maker, Room

_DURATIONS_S = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 4 * 3600.0, 8 * 3600.0, 86400.0, 2 * 86400.0)
_MOST_MODELS = 8
_MOST_RETURNS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """``start_s``: when it is likely to start (None: nobody can tell). ``would_start``: changes that would
    let it start now, each in words that go on after "would start now"."""

    start_s: float | None
    would_start: tuple[str, ...]


def outlook(policy: Policy, snapshot: Snapshot, job_id: str, teams: Teams | None = None) -> Outlook:
    """Return what the job can look forward to. ``teams`` tell what is borrowed.

    It plans some dozens of times: for when somebody asks. Raises KeyError for a job that does not wait.
    """
    asked = _Asked(policy, snapshot, job_id)
    found = [
        asked.with_fewer_devices(),
        *asked.with_other_devices(),
        asked.with_less_of_the_host(),
        asked.if_it_was_short(),
        *asked.if_teams_returned_devices(teams or Teams()),
        asked.if_nodes_came_back(),
        asked.if_others_moved(),
    ]
    return Outlook(
        start_s=nearest_start_s(policy, snapshot, job_id),
        would_start=tuple(text for text in found if text is not None),
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    policy: Policy
    snapshot: Snapshot
    job_id: str

    @property
    def job(self) -> Job:
        return self.snapshot.waiting[self.job_id].job

    def with_fewer_devices(self) -> str | None:
        """The most devices, fewer than it needs, with which it would start."""
        request = self.job.devices[0]
        if request.is_fraction or request.min_devices <= 1:
            return None

        def starts(devices: int) -> bool:
            fewer = replace(request, min_milli=devices * MILLI, max_milli=devices * MILLI)
            return self._starts(replace(self.job, devices=(fewer, *self.job.devices[1:])))

        most = _most(range(1, request.min_devices), starts)
        return None if most is None else f"with {most} instead of {_least(request)} devices"

    def with_other_devices(self) -> Iterator[str]:
        """Other models of device on which it would start, as many of them."""
        capacity, request = self.snapshot.capacity, self.job.devices[0]
        if request.is_host_only:
            return
        wanted = wanted_nodes(self.job, capacity)
        models = sorted(
            {
                (node.accelerator, node.vendor)
                for row, node in enumerate(capacity.nodes)
                if capacity.is_up[row] and not wanted[row]
            },
            key=lambda model: (model[0], model[1] or ""),
        )
        for accelerator, _ in models[:_MOST_MODELS]:
            other = DeviceRequest(
                min_milli=request.min_milli, max_milli=request.max_milli, accelerator=accelerator
            )
            if self._starts(replace(self.job, devices=(other,))):
                yield f"with {other}"

    def with_less_of_the_host(self) -> str | None:
        """Whether it is CPUs or memory that it waits for."""
        if self.job.cpus_per_device is None and self.job.memory_bytes_per_device is None:
            return None
        if self.job.devices[0].is_host_only:
            return None
        bare = replace(self.job, cpus_per_device=None, memory_bytes_per_device=None)
        return "with less CPU and memory for each device" if self._starts(bare) else None

    def if_it_was_short(self) -> str | None:
        """The longest duration with which it would fit into a gap before others."""
        own_s = self.job.estimated_duration_s
        shorter = [duration_s for duration_s in _DURATIONS_S if own_s is None or duration_s < own_s]
        most = _most(
            range(len(shorter)),
            lambda number: self._starts(replace(self.job, estimated_duration_s=shorter[number])),
        )
        if most is None:
            return None
        said = (
            "it does not say how long it takes" if own_s is None else f"instead of {format_duration(own_s)}"
        )
        return f"with an estimated duration of {format_duration(shorter[most])}: {said}"

    def if_teams_returned_devices(self, teams: Teams) -> Iterator[str]:
        """How many devices each other team would have to return, of those that it borrows if it is known what those are."""
        capacity = self.snapshot.capacity
        wanted = wanted_nodes(self.job, capacity)
        holders: dict[str, list[RunningJob]] = {}
        for entry in self.snapshot.running.values():
            is_in_the_way = any(wanted[capacity.row[share.node_id]] for share in entry.placement.shares)
            if is_in_the_way and not entry.is_stopping and entry.job.team != self.job.team:
                holders.setdefault(entry.job.team, []).append(entry)
        for team in sorted(holders):
            latest_first = sorted(holders[team], key=lambda entry: (-entry.since_s, entry.job.id))
            found = self._returns(latest_first, teams)
            if found is not None:
                returned, borrowed = found
                # Gangs are whole: who returns what it borrows may have to return more.
                which = " borrowed" if borrowed == returned and not teams.is_plain else ""
                part = "" if which or teams.is_plain else f", {borrowed:g} of them borrowed"
                devices = "device" if returned == 1 else "devices"
                yield f"if team {team} returned {returned}{which} {devices}{part}"

    def if_nodes_came_back(self) -> str | None:
        """Which nodes, of those that are gone or excluded, would have to be in use again."""
        capacity = self.snapshot.capacity
        shut = [node.id for row, node in enumerate(capacity.nodes) if not capacity.is_up[row]]
        opened: list[str] = []
        try:
            for node_id in shut[:_MOST_RETURNS]:
                capacity.set_up(node_id, True)
                if not wanted_nodes(self.job, capacity)[capacity.row[node_id]]:
                    capacity.set_up(node_id, False)
                    continue
                opened.append(node_id)
                if self._starts(self.job):
                    return f"if {_listed(opened)} came back"
        finally:
            for node_id in opened:
                capacity.set_up(node_id, False)
        return None

    def if_others_moved(self) -> str | None:
        """Whether it would fit if those in its way went on elsewhere or with fewer devices, and what that costs."""
        limits = Limits(min_runtime_s=0.0, most_lost_s=math.inf)
        place, capacity = Pack(), self.snapshot.capacity
        if place.place(self.job, capacity, capacity.is_up) is not None:
            return None
        with closing(parts_of(self.policy, self.snapshot)) as parts:
            rooms = (self._room(part, place, Holders(self.snapshot, limits)) for part in parts)
            room = next((room for room in rooms if room is not None), None)
        if room is None:
            return None
        moved = {
            victim.entry.job.id: replace(victim.entry, placement=victim.to)
            for victim in room.victims
            if victim.to is not None
        }
        with capacity.trial() as trial:
            for victim in room.victims:
                trial.give(victim.entry.job, victim.entry.placement)
            for entry in moved.values():
                trial.take(entry.job, entry.placement)
                capacity.expect(entry.job, entry.placement, entry.since_s)
            if not self._starts(self.job, running={**self.snapshot.running, **moved}):
                return None  # it would fit, and yet not be next
        moves = ", ".join(f"{victim.entry.job.name} to {victim.to}" for victim in room.victims)
        return f"if {moves} moved, at a cost of {format_duration(room.cost_device_s)} of a device"

    def _room(self, policy: Policy | None, place: Place, holders: Holders) -> Room | None:
        """Return the room that moves would make on the nodes that the policy decides about."""
        assert policy is not None
        return Maker(self.job, self.snapshot, place, holders, order_of(policy)).by_moving()

    def _returns(self, holders: list[RunningJob], teams: Teams) -> tuple[int, float] | None:
        """Return how many devices the team would have to return, and how many of them it borrows."""
        returned, borrowed_milli = 0, 0
        accounts = Accounts(teams, self.snapshot.capacity)
        running = dict(self.snapshot.running)
        # What it borrows shows where its path parts from the job's: within a guarantee above that, siblings lend.
        _, parted = parting(teams.path(self.job.team), teams.path(holders[0].job.team))
        team = parted or teams.path(holders[0].job.team)[-1]
        with self.snapshot.capacity.trial() as trial:
            for entry in holders[:_MOST_RETURNS]:
                row = trial.capacity.row[entry.placement.shares[0].node_id]
                beyond_milli = -accounts.within(team, int(trial.capacity.kind[row]))
                if beyond_milli <= 0:
                    continue  # it is guaranteed these
                trial.give(entry.job, entry.placement)
                accounts.add(entry.job, entry.placement, -1)
                del running[entry.job.id]
                returned += entry.placement.devices
                borrowed_milli += min(beyond_milli, entry.placement.devices * MILLI)
                if self._starts(self.job, running=running):
                    return returned, borrowed_milli / MILLI
        return None

    def _starts(self, job: Job, *, running: Mapping[str, RunningJob] | None = None) -> bool:
        """Return whether the job would start now if it was like this, and if these ran."""
        snapshot = self.snapshot if running is None else replace(self.snapshot, running=running)
        with self._instead(job):
            return any(start.job_id == job.id for start in self.policy.plan(snapshot).starts)

    @contextmanager
    def _instead(self, job: Job) -> Iterator[None]:
        waiting = self.snapshot.waiting
        entry = waiting[self.job_id]
        with waiting.without([self.job_id]):
            # What was kept for it was for what it asked for.
            waiting.add(entry if job is entry.job else replace(entry, job=job, claim=None))
            try:
                yield
            finally:
                waiting.discard(self.job_id)


def _most(candidates: range, starts: Callable[[int], bool]) -> int | None:
    """Return the largest candidate that starts, taking it that with less each would too."""
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if starts(candidates[middle]):
            low = middle + 1
        else:
            high = middle
    return candidates[low - 1] if low else None


def _listed(nodes: list[str]) -> str:
    return f"node {nodes[0]}" if len(nodes) == 1 else f"nodes {', '.join(nodes)}"


def _least(request: DeviceRequest) -> str:
    is_elastic = request.max_devices > request.min_devices
    return f"at least {request.min_devices}" if is_elastic else str(request.min_devices)
