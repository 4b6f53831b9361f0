"""Charts of simulations: allocation over time, completion times, who ran where. Through matplotlib."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from artesian.kernel.lifecycle import JobRecord
from artesian.model.fleet import Fleet
from artesian.model.resources import MILLI
from artesian.sim.report import Level, Report

INK, FAINT = "#222222", "#8a8a8a"
_COLOURS = ("#2f6f8f", "#d6604d", "#8fb573", "#7b68a6", "#e6b450", "#8e2f5a", "#5b8ff9", "#3d3d3d")
_GANTT_COLOURS = (
    "#2f6f8f",
    "#5fa3c4",
    "#8fb573",
    "#b8cf95",
    "#e6b450",
    "#d98b3a",
    "#d6604d",
    "#b79bd1",
    "#7b68a6",
    "#c79a8b",
)
_WIDTH_IN = 10.5
_POINTS = 1500
"""Steps of a line: more than a screen has columns."""
_TICKS = (
    (1, "1 s"),
    (10, "10 s"),
    (60, "1 min"),
    (600, "10 min"),
    (3600, "1 h"),
    (36_000, "10 h"),
    (86_400, "1 d"),
    (864_000, "10 d"),
    (8_640_000, "100 d"),
)
_ROWS = 48
"""Nodes of a Gantt chart: more are not told apart."""
_BARS = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A policy's name and its report."""

    name: str
    figures: Report


def allocation(curves: Sequence[Curve], devices: int) -> Any:
    """Return a figure: devices allocated over time, one line a policy, and what the fleet has."""
    figure, axes = _axes(3.4)
    span_s = max((c.figures.allocation[-1].at_s for c in curves if c.figures.allocation), default=0.0)
    unit, unit_s = time_unit(span_s)
    for curve, colour in _coloured(curves):
        levels = _thinned(curve.figures.allocation)
        axes.step(
            [level.at_s / unit_s for level in levels],
            [level.milli / MILLI for level in levels],
            where="post",
            color=colour,
            linewidth=1.1,
            label=curve.name,
        )
    axes.axhline(devices, color=FAINT, linewidth=0.8, linestyle=":")
    axes.annotate(
        f"{devices:,} devices", (0, devices), (4, -10), textcoords="offset points", fontsize=8, color=FAINT
    )
    axes.set_ylim(0, devices * 1.05 or 1)
    axes.set_xlim(left=0)
    axes.set_xlabel(unit)
    axes.set_ylabel("devices allocated")
    _legend(axes, curves)
    return figure


def completion(curves: Sequence[Curve]) -> Any:
    """Return a figure: the share of jobs by completion time, on a logarithmic axis."""
    figure, axes = _axes(3.4)
    for curve, colour in _coloured(curves):
        times = np.sort([job.jct_s for job in curve.figures.jobs if job.jct_s is not None and job.jct_s > 0])
        if not times.size:
            continue
        shares = np.arange(1, times.size + 1) / times.size
        kept = np.unique(np.linspace(0, times.size - 1, min(_POINTS, times.size)).astype(int))
        axes.step(times[kept], shares[kept], where="post", color=colour, linewidth=1.3, label=curve.name)
    axes.set_xscale("log")
    axes.set_xticks([seconds for seconds, _ in _TICKS], [text for _, text in _TICKS])
    axes.set_xticks([], minor=True)
    every = [job.jct_s for c in curves for job in c.figures.jobs if job.jct_s]
    axes.set_xlim(min(every, default=1.0) * 0.9, max(every, default=10.0) * 1.1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("completion time")
    axes.set_ylabel("share of jobs")
    _legend(axes, curves)
    return figure


def gantt(records: Iterable[JobRecord], fleet: Fleet, end_s: float) -> tuple[Any, str]:
    """Return a figure of who ran where, a row for each node, a line in it for each device; and what it leaves out."""
    from matplotlib.collections import PolyCollection

    nodes = fleet.nodes[:_ROWS]
    row = {node.id: number for number, node in enumerate(nodes)}
    height = {node.id: 0.84 / max(1, node.devices) for node in nodes}
    unit, unit_s = time_unit(end_s)
    bars: list[list[tuple[float, float]]] = []
    colours: list[str] = []
    left_out = 0
    for record in records:
        colour = _GANTT_COLOURS[zlib.crc32(record.job.id.encode()) % len(_GANTT_COLOURS)]
        for attempt in record.attempts:
            begin, end = (
                attempt.decided_s / unit_s,
                (attempt.ended_s if attempt.ended_s is not None else end_s) / unit_s,
            )
            for share in attempt.placement.shares:
                if share.node_id not in row:
                    continue
                if len(bars) >= _BARS:
                    left_out += 1
                    continue
                for device in share.devices:
                    low = row[share.node_id] + 0.08 + device * height[share.node_id]
                    high = low + height[share.node_id] * share.milli / MILLI
                    bars.append([(begin, low), (end, low), (end, high), (begin, high)])
                    colours.append(colour)
    figure, axes = _axes(min(9.0, 1.2 + 0.17 * len(nodes)))
    axes.add_collection(PolyCollection(bars, facecolors=colours, edgecolors="none", rasterized=True))
    axes.set_xlim(0, max(end_s / unit_s, 1e-9))
    axes.set_ylim(len(nodes), 0)
    axes.set_yticks([number + 0.5 for number in range(len(nodes))], [node.id for node in nodes], fontsize=6)
    axes.set_xlabel(unit)
    notes = []
    if len(fleet.nodes) > len(nodes):
        notes.append(f"the first {len(nodes)} of {len(fleet.nodes):,} nodes")
    if left_out:
        notes.append(f"{left_out:,} attempts that came last are left out")
    return figure, "; ".join(notes)


def time_unit(span_s: float) -> tuple[str, float]:
    """Return the unit that suits times of up to ``span_s``, and its seconds."""
    if span_s >= 3 * 86_400:
        return "days", 86_400.0
    return ("hours", 3600.0) if span_s >= 3 * 3600 else ("minutes", 60.0)


def _thinned(levels: Sequence[Level]) -> Sequence[Level]:
    """Return so few of the levels that a line of them can be drawn; each stands for those that follow it."""
    step = -(-len(levels) // _POINTS)
    return levels if step <= 1 else [*levels[::step], levels[-1]]


def _coloured(curves: Sequence[Curve]) -> Iterable[tuple[Curve, str]]:
    return ((curve, _COLOURS[number % len(_COLOURS)]) for number, curve in enumerate(curves))


def _axes(height_in: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, height_in), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(length=0, labelcolor=INK, labelsize=8)
    axes.grid(color="#ececec", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _legend(axes: Any, curves: Sequence[Curve]) -> None:
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
