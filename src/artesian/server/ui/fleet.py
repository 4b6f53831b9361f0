"""The nodes as a heat map, and what is known of one of them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from artesian.kernel.state import State
from artesian.model.capacity import Capacity
from artesian.model.resources import MILLI
from artesian.model.units import format_flops, format_size
from artesian.model.views import FleetView, NodeView
from artesian.server.fleet_board import held_milli
from artesian.server.tokens import Principal
from artesian.server.ui.markup import Markup, join, table, tag
from artesian.server.ui.phrases import phrase
from artesian.server.ui.texts import Texts
from artesian.server.ui.visit import Visit
from artesian.server.ui.words import job_link

_EVERY_S = 3.0
_GONE, _EXCLUDED = "x", "e"


class HeatMap(Element, component=Path(__file__).parent / "static" / "heatmap.js"):
    """A canvas with one square for each node. ``pools`` are headings, names and cells: one character for each node.

    A heading that is not empty stands above the pool, and above those that follow without one.
    """

    def __init__(self, label: str) -> None:
        super().__init__()
        self._props["label"] = label
        self._props["pools"] = []

    def show(self, pools: list[tuple[str, str, str]]) -> None:
        """Draw the pools, unless they are drawn already."""
        told = [list(pool) for pool in pools]
        if self._props["pools"] != told:
            self._props["pools"] = told
            self.update()


@dataclass(frozen=True, slots=True)
class Cells:
    """The center, name and rows of each pool: those of its nodes in the fleet's capacity, in the order of their ids.

    The pools are in the order of their centers, and then of their names.
    """

    pools: tuple[tuple[str, str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, state: State, center: Callable[[str], str]) -> "Cells":
        """Return those of a state; ``center`` is that of a pool."""
        pools: dict[str, list[tuple[str, int]]] = {}
        for row, node in enumerate(state.capacity.nodes):
            pools.setdefault(node.pool, []).append((node.id, row))
        places = sorted((center(name), name) for name in pools)
        return cls(
            tuple((where, name, tuple(row for _, row in sorted(pools[name]))) for where, name in places)
        )

    @property
    def has_centers(self) -> bool:
        """Whether it matters in which center a node is."""
        return len({where for where, _, _ in self.pools}) > 1

    def drawn(self, state: State, texts: Texts) -> list[tuple[str, str, str]]:
        """Return heading, name and cells of each pool: how full a node is in ninths, or that it is gone or excluded.

        The first pool of each center has a heading, where there are several.
        """
        capacity = state.capacity
        whole = np.maximum(1, capacity.devices * MILLI)
        # A node that is held at all is no 0, one that has anything free is no 9.
        held = held_milli(capacity)
        ninths = np.clip(held * 9 // whole, (held > 0).astype(int), 9)
        marks = np.where(capacity.is_up, ninths.astype("U1"), _GONE)
        marks[[capacity.row[record.node.id] for record in state.excluded]] = _EXCLUDED
        nodes: Counter[str] = Counter()
        for where, _, rows in self.pools:
            nodes[where] += len(rows)
        headings = {
            where: texts("center_of", center=where, count=f"{count:,}")
            for where, count in (nodes.items() if len(nodes) > 1 else ())
        }
        return [
            (headings.pop(where, ""), name, "".join(marks[list(rows)])) for where, name, rows in self.pools
        ]


@dataclass(slots=True)
class _Known:
    """The cells of what the fleet has."""

    capacity: Capacity
    cells: Cells


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
    center = visit.service.fleet.center
    known = _Known(state.capacity, Cells.of(state, center))
    label = "map_centers" if known.cells.has_centers else "map"
    picture = HeatMap(texts(label, count=f"{len(state.nodes):,}"))
    detail = ui.html("", sanitize=False).props("aria-live=polite")

    async def draw() -> None:
        with visit.trying():
            await visit.principal()
            now = mirror.state
            if known.capacity is not now.capacity:
                known.capacity, known.cells = now.capacity, Cells.of(now, center)
            picture.show(known.cells.drawn(now, texts))

    async def choose(event: GenericEventArguments) -> None:
        with visit.trying():
            who = await visit.principal()
            pool, place = (int(number) for number in event.args)
            cells = known.cells
            node = mirror.state.capacity.nodes[cells.pools[pool][2][place]]
            found = await visit.service.node(node.id, who)
            detail.set_content(node_detail(found, texts, has_centers=cells.has_centers))

    async def kinds(who: Principal) -> Markup:
        del who
        return by_kind(visit.service.fleet.view(), texts)

    picture.on("choose", choose)
    await draw()
    ui.timer(_EVERY_S, draw, immediate=False)
    await visit.live(_EVERY_S, kinds)


def node_detail(node: NodeView | None, texts: Texts, *, has_centers: bool = False) -> Markup:
    """Return what is known of a node; its center, where there are several."""
    if node is None:
        return tag("p", texts("node_gone"), class_="failure")
    jobs = join(tag("li", job_link(job)) for job in node.jobs)
    unknown = texts("unknown")
    rows: list[tuple[str, Markup | str]] = [
        ("state", _state(node, texts)),
        ("model", node.accelerator),
        *([("center", node.center)] if has_centers else []),
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
        (f"ceiling.{dtype}", join((format_flops(of.flops), " (", phrase(of.basis, texts, "basis"), ")")))
        for dtype, of in node.ceilings.items()
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
    """Return the devices by model and pool, and center where there are several."""
    has_centers = len({kind.center for kind in view.kinds}) > 1
    where = ("center", "pool") if has_centers else ("pool",)
    counts = ("nodes", "devices", "held", "free", "lost", "excluded")
    heads = [texts(key) for key in ("model", *where, *counts)]
    rows = (
        (
            kind.accelerator,
            *((kind.center, kind.pool) if has_centers else (kind.pool,)),
            f"{kind.nodes:,}",
            f"{kind.devices:,}",
            f"{kind.held:,g}",
            f"{kind.free:,g}",
            f"{kind.lost:,g}",
            f"{kind.excluded:,g}",
        )
        for kind in view.kinds
    )
    return tag("section", table(heads, rows, caption=texts("kinds_centers" if has_centers else "kinds")))
