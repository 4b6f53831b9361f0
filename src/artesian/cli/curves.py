"""Curves side by side as an SVG or PNG file, through matplotlib (the extra ``plot``)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artesian.cli.plot import FAINT, INK, LEFT, save

_PANEL_IN, _HEIGHT_IN = 5.2, 3.9
_MOST_TICKS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A curve of shares (0 to 1) against ``x_label``, on a logarithmic axis; ``marked`` is one of its points.

    ``x_text`` writes a number of that axis.
    """

    x_label: str
    x_text: Callable[[float], str]
    points: Sequence[tuple[float, float]]
    marked: tuple[float, float]


def plot(path: Path, *, title: str, panels: Sequence[Panel]) -> None:
    """Write the panels to ``path``; the same panels give the same SVG, byte for byte.

    Raises PlotError as ``artesian.cli.plot.check_path`` does, and where the file cannot be written.
    """
    save(path, lambda: _figure(title, panels))


def _figure(title: str, panels: Sequence[Panel]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_PANEL_IN * len(panels), _HEIGHT_IN), facecolor="white", layout="constrained")
    figure.suptitle(title, x=0.02, ha="left", fontsize=13, color=INK, weight="bold")
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        axes.set_xscale("log")
        xs, ys = zip(*panel.points, strict=True)
        axes.plot(xs, [100 * y for y in ys], color=LEFT, marker="o", markersize=3.5)
        ticks = xs[:: 2 if len(xs) > _MOST_TICKS else 1]
        axes.set_xticks(ticks, [panel.x_text(tick) for tick in ticks])
        axes.minorticks_off()
        x, y = panel.marked
        axes.plot([x], [100 * y], color=LEFT, marker="o", markersize=8)
        axes.annotate(f"{y:.2%}", (x, 100 * y), xytext=(4, -14), textcoords="offset points", color=INK)
        axes.set_xlabel(panel.x_label, color=INK)
        axes.set_ylabel("goodput in %", color=INK)
        axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
        axes.tick_params(axis="both", color=FAINT, labelcolor=INK, labelsize=8.5)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure
