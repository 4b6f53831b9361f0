"""The nodes as a heat map, and what is known of one of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from artesian.kernel.state import State
from artesian.model.resources import MILLI
from artesian.model.units import format_flops, format_size
from artesian.model.views import FleetView, NodeView
from artesian.server.fleet_board import held_milli
from artesian.server.tokens import Principal
from artesian.server.ui.markup import Markup, join, table, tag
from artesian.server.ui.texts import Texts
from artesian.server.ui.visit import Visit
from artesian.server.ui.words import job_link

_EVERY_S = 3.0
_GONE, _EXCLUDED = "x", "e"


class HeatMap(Element, component=Path(__file__).parent / "static" / "heatmap.js"):
    """A canvas with one square for each node. ``pools`` are names and cells: one character for each node."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self._props["label"] = label
        self._props["pools"] = []

    def show(self, pools: list[tuple[str, str]]) -> None:
        """Draw the pools, unless they are drawn already."""
        told = [list(pool) for pool in pools]
        if self._props["pools"] != told:
            self._props["pools"] = told
            self.update()


@dataclass(frozen=True, slots=True)
class Cells:
    """The pools of a fleet with the rows of their nodes in its capacity, in the order of names."""

    pools: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, state: State) -> "Cells":
        """Return those of a state."""
        pools: dict[str, list[tuple[str, int]]] = {}
        for row, node in enumerate(state.capacity.nodes):
            pools.setdefault(node.pool, []).append((node.id, row))
        return cls(tuple((name, tuple(row for _, row in sorted(pools[name]))) for name in sorted(pools)))

    def drawn(self, state: State) -> list[tuple[str, str]]:
        """Return name and cells of each pool: how full a node is in ninths, or that it is gone or excluded."""
        capacity = state.capacity
        whole = np.maximum(1, capacity.devices * MILLI)
        # A node that is held at all is no 0, one that has anything free is no 9.
        held = held_milli(capacity)
        ninths = np.clip(held * 9 // whole, (held > 0).astype(int), 9)
        marks = np.where(capacity.is_up, ninths.astype("U1"), _GONE)
        marks[[capacity.row[record.node.id] for record in state.excluded]] = _EXCLUDED
        return [(name, "".join(marks[list(rows)])) for name, rows in self.pools]


async def build(visit: Visit) -> None:
    """Build the page."""
    texts = visit.texts
    mirror = visit.service.mirror
    ui.html(tag("h1", texts("fleet")), sanitize=False)
    state = mirror.state
    if not state.nodes:
        ui.html(tag("p", texts("no_nodes"), class_="empty"), sanitize=False)
        return
    ui.html(tag("p", texts("fleet_how"), class_="faint"), sanitize=False)
    picture = HeatMap(texts("map", count=f"{len(state.nodes):,}"))
    detail = ui.html("", sanitize=False).props("aria-live=polite")
    known = [state.capacity, Cells.of(state)]

    async def draw() -> None:
        with visit.trying():
            await visit.principal()
            now = mirror.state
            if known[0] is not now.capacity:
                known[:] = [now.capacity, Cells.of(now)]
            cells = known[1]
            assert isinstance(cells, Cells)
            picture.show(cells.drawn(now))

    async def choose(event: GenericEventArguments) -> None:
        with visit.trying():
            who = await visit.principal()
            cells = known[1]
            assert isinstance(cells, Cells)
            pool, place = (int(number) for number in event.args)
            node = mirror.state.capacity.nodes[cells.pools[pool][1][place]]
            detail.set_content(node_detail(await visit.service.node(node.id, who), texts))

    async def kinds(who: Principal) -> Markup:
        del who
        return by_kind(visit.service.fleet.view(), texts)

    picture.on("choose", choose)
    await draw()
    ui.timer(_EVERY_S, draw, immediate=False)
    await visit.live(_EVERY_S, kinds)


def node_detail(node: NodeView | None, texts: Texts) -> Markup:
    """Return what is known of a node."""
    if node is None:
        return tag("p", texts("node_gone"), class_="failure")
    jobs = join(tag("li", job_link(job)) for job in node.jobs)
    unknown = texts("unknown")
    rows: list[tuple[str, Markup | str]] = [
        ("state", _state(node, texts)),
        ("model", node.accelerator),
        ("pool", node.pool),
        ("devices", f"{node.devices:,}"),
        ("held", f"{node.held:g}"),
        ("cpus", f"{node.cpus:,}"),
        ("memory", format_size(node.memory_bytes)),
        (
            "device_memory",
            unknown if node.device_memory_bytes is None else format_size(node.device_memory_bytes),
        ),
        ("peak", unknown if node.peak_flops is None else format_flops(node.peak_flops)),
        ("jobs_here", tag("ul", jobs, class_="plain") if node.jobs else texts("none")),
    ]
    rows += [
        (f"ceiling.{dtype}", f"{format_flops(of.flops)} ({of.basis})") for dtype, of in node.ceilings.items()
    ]
    items = join(join((tag("dt", texts(key)), tag("dd", value))) for key, value in rows)
    head = tag("h2", texts("node"), " ", node.id)
    return tag("section", head, tag("dl", items), _devices(node, texts), class_="card")


def _devices(node: NodeView, texts: Texts) -> Markup:
    """Return each device of the node, and who holds it."""
    rows = (
        (
            f"{device.index}",
            texts("occupied") if device.is_occupied else f"{device.held:g}",
            join(join((job_link(job), " ")) for job in device.jobs) if device.jobs else texts("none"),
        )
        for device in node.each
    )
    heads = [texts(key) for key in ("device", "held", "jobs_here")]
    return table(heads, rows, caption=texts("devices_of", node=node.id))


def _state(node: NodeView, texts: Texts) -> str:
    if node.excluded is None:
        return texts("up" if node.is_up else "down")
    by = f" ({node.excluded_by})" if node.excluded_by else ""
    return f"{texts('down')}; " * (not node.is_up) + f"{texts('excluded')}: {node.excluded}{by}"


def by_kind(view: FleetView, texts: Texts) -> Markup:
    """Return the devices by model and pool."""
    heads = [texts(key) for key in ("model", "pool", "nodes", "devices", "held", "free", "lost", "excluded")]
    rows = (
        (
            kind.accelerator,
            kind.pool,
            f"{kind.nodes:,}",
            f"{kind.devices:,}",
            f"{kind.held:,g}",
            f"{kind.free:,g}",
            f"{kind.lost:,g}",
            f"{kind.excluded:,g}",
        )
        for kind in view.kinds
    )
    return tag("section", table(heads, rows, caption=texts("kinds")))
