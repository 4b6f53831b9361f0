"""A waterfall as an SVG or PNG file, through matplotlib (the extra ``plot``)."""

import io
from pathlib import Path
from typing import Any

from artesian.cli.picture import (
    amount_text,
    by_amount,
    cause_label,
    device_time_unit,
    percent_text,
    stage_label,
)
from artesian.model.errors import ArtesianError
from artesian.model.ledger import Loss, Waterfall

_FORMATS = {".svg": "svg", ".png": "png"}
_WIDTH_IN, _HEIGHT_IN, _DPI = 11.0, 5.6, 150
_BAR, _PITCH = 0.8, 2.0
"""Width of a bar, and from one bar to the next: the room between is for labels."""
_LABEL_PT = 7.5
_LABEL_SPACE = 0.036
"""Height of a label, as a share of the axis."""
_LEFT, _INK, _FAINT = "#2f6f8f", "#222222", "#8a8a8a"
_COLOURS = {
    Loss.NODE_LOST: "#b2182b",
    Loss.IDLE: "#c7c7c7",
    Loss.WAITING: "#a39b8b",
    Loss.START_UP: "#e6b450",
    Loss.RECOVERY: "#d6604d",
    Loss.RESTORE: "#f0957c",
    Loss.DATA_WAIT: "#8fb573",
    Loss.CHECKPOINT_STALL: "#7b68a6",
    Loss.EVALUATION: "#b7a5d6",
    Loss.LOST_WORK: "#8e2f5a",
    Loss.WIND_DOWN: "#d9c89e",
    Loss.BETWEEN_STEPS: "#9ecae1",
    Loss.UNMEASURED: "#e2e2e2",
    Loss.BELOW_CEILING: "#b9cfd9",
}


def plot(waterfall: Waterfall, path: Path) -> None:
    """Write the waterfall to ``path``, as what its suffix says: ``.svg`` or ``.png``.

    The same waterfall gives the same SVG, byte for byte. Raises ArtesianError for another suffix, where
    matplotlib is not installed, and where the file cannot be written.
    """
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise ArtesianError(
            f"plot: expected a file that ends in {' or '.join(_FORMATS)}, got {path.name!r}",
            hint="such as waterfall.svg",
        )
    try:
        import matplotlib
    except ImportError as error:
        raise ArtesianError(
            "plot: expected matplotlib, and it is not installed", hint="pip install 'artesian[plot]'"
        ) from error
    settings: Any = {"svg.hashsalt": "artesian", "svg.fonttype": "none", "text.parse_math": False}
    image = io.BytesIO()
    with matplotlib.rc_context(settings):
        metadata = {"Date": None, "Creator": "artesian"} if form == "svg" else {"Software": "artesian"}
        _figure(waterfall).savefig(image, format=form, dpi=_DPI, metadata=metadata)
    try:
        path.write_bytes(image.getvalue())
    except OSError as error:
        raise ArtesianError(
            f"plot: cannot write {path}: {error.strerror}", hint="choose a folder that you can write to"
        ) from error


def _figure(waterfall: Waterfall) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), facecolor="white")
    axes = figure.add_axes((0.06, 0.17, 0.93, 0.72))
    unit, unit_us = device_time_unit(waterfall.nameplate_us)
    nameplate = max(waterfall.nameplate_us, 1) / unit_us
    names = ["nameplate", *(stage_label(result.stage) for result in waterfall.stages)]
    _bar(axes, 0.0, 0.0, nameplate if waterfall.nameplate_us else 0.0, _LEFT)
    _total(axes, 0.0, waterfall.nameplate_us, waterfall, unit_us)
    came_in = waterfall.nameplate_us
    for number, result in enumerate(waterfall.stages, start=1):
        x = number * _PITCH
        if result.left_us is None:
            _unknown(axes, x, came_in / unit_us, nameplate)
            continue
        _step(axes, x, came_in / unit_us)
        _bar(axes, x, 0.0, result.left_us / unit_us, _LEFT)
        _total(axes, x, result.left_us, waterfall, unit_us)
        edge = came_in
        labels = []
        for cause, amount in by_amount(result):
            _bar(axes, x, (edge - amount) / unit_us, edge / unit_us, _colour(cause))
            text = f"{cause_label(cause)} {percent_text(amount, waterfall.nameplate_us)}"
            labels.append(((edge - amount / 2) / unit_us, text))
            edge -= amount
        _labels(axes, x, labels, nameplate)
        came_in = result.left_us
    axes.set_xlim(-0.6, (len(names) - 1) * _PITCH + _PITCH - 0.35)
    axes.set_ylim(0, nameplate * 1.03)
    axes.set_xticks([number * _PITCH for number in range(len(names))], names, fontsize=10, color=_INK)
    axes.set_ylabel(unit, color=_INK)
    axes.tick_params(axis="both", length=0, labelcolor=_INK)
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    simulated = " (simulated)" if waterfall.is_simulated else ""
    figure.text(0.06, 0.94, f"Waterfall of {unit}{simulated}", fontsize=13, color=_INK, weight="bold")
    for row, note in enumerate(waterfall.notes):
        figure.text(0.06, 0.075 - 0.028 * row, note, fontsize=7.5, color="#555555")
    return figure


def _colour(cause: str) -> str:
    return _COLOURS[Loss(cause)] if cause in set(Loss) else _FAINT


def _bar(axes: Any, x: float, bottom: float, top: float, colour: str) -> None:
    axes.bar(x, top - bottom, _BAR, bottom=bottom, color=colour, edgecolor="white", linewidth=0.6)


def _step(axes: Any, x: float, came_in: float) -> None:
    """Draw the line from the bar before to where this one begins."""
    axes.plot(
        [x - _PITCH + _BAR / 2, x - _BAR / 2], [came_in, came_in], color=_FAINT, linewidth=0.8, linestyle=":"
    )


def _unknown(axes: Any, x: float, came_in: float, nameplate: float) -> None:
    axes.bar(x, came_in, _BAR, color="none", edgecolor=_FAINT, linewidth=1.0, linestyle="--")
    axes.text(x, max(came_in / 2, nameplate * 0.03), "unknown", ha="center", va="center", color=_INK)


def _total(axes: Any, x: float, us: int, waterfall: Waterfall, unit_us: int) -> None:
    """Write what is left into the bar's foot, or above it where it is too low for that."""
    text = f"{amount_text(us, unit_us)}\n{percent_text(us, waterfall.nameplate_us)}"
    is_low = us < 0.12 * waterfall.nameplate_us
    top = us / unit_us
    axes.text(
        x,
        0.0 if not is_low else top,
        text,
        ha="center",
        va="bottom",
        fontsize=9,
        color=_INK if is_low else "white",
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.0} if is_low else None,
    )


def _labels(axes: Any, x: float, labels: list[tuple[float, str]], nameplate: float) -> None:
    """Write labels to the right of a bar, each as near to its segment as the others let it."""
    heights = _spread([height for height, _ in labels], nameplate * _LABEL_SPACE, nameplate)
    edge = x + _BAR / 2
    for (height, text), shown in zip(labels, heights, strict=True):
        axes.plot([edge, edge + 0.1], [height, shown], color=_FAINT, linewidth=0.6)
        axes.text(edge + 0.12, shown, text, va="center", ha="left", fontsize=_LABEL_PT, color=_INK)


def _spread(heights: list[float], space: float, top: float) -> list[float]:
    """Return ``heights``, which fall, moved apart to at least ``space``, between ``space`` / 2 and ``top``."""
    shown: list[float] = []
    for height in heights:
        shown.append(min(height, shown[-1] - space) if shown else min(height, top))
    floor = space / 2
    for index in range(len(shown) - 1, -1, -1):
        shown[index] = max(shown[index], floor)
        floor = shown[index] + space
    return shown
