"""Nodes, devices and teams, as they are told."""

import base64
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace

from artesian.kernel.nodes import NodeRecord
from artesian.kernel.state import State
from artesian.kernel.told import node_view
from artesian.model.capacity import Capacity, IntArray
from artesian.model.fleet import NO_CENTER
from artesian.model.quota import Teams
from artesian.model.resources import MILLI
from artesian.model.views import DeviceView, FleetView, KindView, NodePage, NodeView, TeamView
from artesian.policy.accounts import Accounts
from artesian.server.board import BadCursor
from artesian.server.mirror import Mirror


@dataclass(slots=True)
class FleetBoard:
    """Answers about the mirror's nodes, the ``centers`` that pools are in, and what ``quotas`` teams have."""

    mirror: Mirror
    quotas: Teams = field(default_factory=Teams)
    centers: Mapping[str, str] = field(default_factory=dict)
    _kinds: "_Kinds | None" = None
    _ids: list[str] = field(default_factory=list)

    def view(self) -> FleetView:
        """Return the fleet by model of device and pool."""
        state = self.mirror.state
        if self._kinds is None or self._kinds.capacity is not state.capacity:
            self._kinds = _Kinds(state.capacity)
        excluded = [state.capacity.row[record.node.id] for record in state.excluded]
        return FleetView(at_s=state.at_s, kinds=self._kinds.views(excluded, self.center))

    def center(self, pool: str) -> str:
        """Return the center that the pool is in."""
        return self.centers.get(pool, NO_CENTER)

    def page(
        self,
        *,
        pool: str | None,
        is_up: bool | None,
        limit: int,
        cursor: str | None,
        center: str | None = None,
    ) -> NodePage:
        """Return nodes in the order of their ids. Raises BadCursor."""
        state = self.mirror.state
        if len(self._ids) != len(state.nodes):
            self._ids = sorted(state.nodes)
        held = held_milli(state.capacity)
        found: list[NodeView] = []
        last = ""
        start = 0 if cursor is None else bisect_right(self._ids, _decoded(cursor))
        for id_ in self._ids[start:]:
            if len(found) == limit:
                return NodePage(nodes=tuple(found), next=base64.urlsafe_b64encode(last.encode()).decode())
            last, record = id_, state.nodes[id_]
            if (
                pool in (None, record.node.pool)
                and is_up in (None, record.is_up)
                and center in (None, self.center(record.node.pool))
            ):
                found.append(self._told(record, held))
        return NodePage(nodes=tuple(found), next=None)

    def node(self, id_: str, *, team: str | None) -> NodeView | None:
        """Return a node with the jobs on it, of the team if one is given; None where it is not known."""
        state = self.mirror.state
        record = state.nodes.get(id_)
        if record is None:
            return None
        held: Counter[int] = Counter()
        by_device: dict[int, list[str]] = {}
        jobs: list[str] = []
        for entry in state.running.values():
            for share in entry.placement.shares:
                if share.node_id != id_:
                    continue
                held.update(dict.fromkeys(share.devices, share.milli))
                if team in (None, entry.job.team):
                    jobs.append(entry.job.id)
                    for device in share.devices:
                        by_device.setdefault(device, []).append(entry.job.id)
        each = tuple(
            DeviceView(
                index=index,
                held=held[index] / MILLI,
                is_occupied=index in record.node.occupied,
                jobs=tuple(by_device.get(index, ())),
            )
            for index in range(record.node.devices)
        )
        return replace(self._told(record, held_milli(state.capacity), tuple(jobs)), each=each)

    def _told(self, record: NodeRecord, held: IntArray, jobs: tuple[str, ...] = ()) -> NodeView:
        row = self.mirror.state.capacity.row[record.node.id]
        return node_view(record, held_milli=int(held[row]), jobs=jobs, center=self.center(record.node.pool))

    def teams(self, *, only: str | None) -> Sequence[TeamView]:
        """Return what each team has and is entitled to, or only one of them."""
        held: Counter[str] = Counter()
        for entry in self.mirror.state.running.values():
            for above in self.quotas.path(entry.job.team):
                held[above.name] += entry.placement.milli
        jobs = self.mirror.board.active_by_team()
        accounts = Accounts(self.quotas, self.mirror.state.capacity)
        names = sorted({*jobs, *(team.name for team in self.quotas.teams)}) if only is None else [only]
        return [
            TeamView(
                team=team.name,
                jobs=jobs.get(team.name, Counter()),
                held=held[team.name] / MILLI,
                borrowed=accounts.borrowed(team) / MILLI,
                parent=team.parent,
                weight=team.weight,
                guaranteed=dict(team.guaranteed),
                borrow_limit=team.borrow_limit,
                lends=team.lends,
            )
            for team in (self.quotas.path(name)[-1] for name in names)
        ]


def jobs_by_node(state: State) -> dict[str, list[str]]:
    """Return the jobs that hold something of each node, by its id."""
    found: dict[str, list[str]] = {}
    for entry in state.running.values():
        for share in entry.placement.shares:
            found.setdefault(share.node_id, []).append(entry.job.id)
    return found


def held_milli(capacity: Capacity) -> IntArray:
    """Return the thousandths of devices that are held of each node, by its row."""
    free = np.where(capacity.free_milli > 0, capacity.free_milli, 0).sum(axis=1, dtype=np.int64)
    held: IntArray = capacity.devices * MILLI - free
    return held


class _Kinds:
    """The models and pools of one fleet, and which of them each row of its capacity is of."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        numbers: dict[tuple[str, str], int] = {}
        self._of_row = np.array(
            [numbers.setdefault((node.accelerator, node.pool), len(numbers)) for node in capacity.nodes],
            dtype=np.int64,
        )
        self._names = sorted((name, number) for name, number in numbers.items())

    def views(self, excluded_rows: Sequence[int], center: Callable[[str], str]) -> tuple[KindView, ...]:
        capacity = self.capacity
        held = held_milli(capacity)
        lost = np.where(capacity.is_up, 0, capacity.devices * MILLI - held)
        excluded = np.zeros_like(lost)
        excluded[excluded_rows], lost[excluded_rows] = lost[excluded_rows], 0
        nodes, devices, held_sums, lost_sums, excluded_sums = (
            np.bincount(self._of_row, weights=weights, minlength=len(self._names))
            for weights in (None, capacity.devices, held, lost, excluded)
        )
        free_sums = devices * MILLI - held_sums - lost_sums - excluded_sums
        return tuple(
            KindView(
                accelerator=accelerator,
                pool=pool,
                nodes=int(nodes[number]),
                devices=int(devices[number]),
                held=float(held_sums[number]) / MILLI,
                free=float(free_sums[number]) / MILLI,
                lost=float(lost_sums[number]) / MILLI,
                excluded=float(excluded_sums[number]) / MILLI,
                center=center(pool),
            )
            for (accelerator, pool), number in self._names
        )


def _decoded(cursor: str) -> str:
    try:
        return base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except ValueError as error:
        raise BadCursor(
            f"cursor: expected the next of a page, got {cursor!r}", hint="leave it out for the first page"
        ) from error
