"""A waterfall as an SVG or PNG file, through matplotlib (the extra ``plot``)."""

import io
import textwrap
from collections.abc import Callable
from importlib.util import find_spec
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
_WIDTH_IN, _PICTURE_IN, _NOTE_IN, _DPI = 11.0, 5.4, 0.16, 150
_NOTE_CHARACTERS = 150
_BAR, _PITCH = 0.66, 2.0
"""Width of a bar, and from one bar to the next: the room between is for labels."""
_LABEL_PT = 7.5
_LABEL_SPACE = 0.036
"""Height of a label, as a share of the axis."""
LEFT, INK, FAINT = "#2f6f8f", "#222222", "#8a8a8a"
_COLOURS = {
    Loss.NODE_LOST: "#b2182b",
    Loss.EXCLUDED: "#7f3b08",
    Loss.IDLE: "#c7c7c7",
    Loss.WAITING: "#a39b8b",
    Loss.START_UP: "#e6b450",
    Loss.DETECTION: "#e08214",
    Loss.RECOVERY: "#d6604d",
    Loss.RESTORE: "#f0957c",
    Loss.DATA_WAIT: "#8fb573",
    Loss.CHECKPOINT_STALL: "#7b68a6",
    Loss.EVALUATION: "#b7a5d6",
    Loss.STRAGGLER: "#4d8f8b",
    Loss.LOST_WORK: "#8e2f5a",
    Loss.WIND_DOWN: "#d9c89e",
    Loss.BETWEEN_STEPS: "#9ecae1",
    Loss.UNMEASURED: "#e2e2e2",
    Loss.BELOW_CEILING: "#b9cfd9",
}


class PlotError(ArtesianError):
    """The picture cannot be drawn, or not be written."""


def check_path(path: Path) -> str:
    """Return the form that the path's suffix asks for, ``svg`` or ``png``.

    Raises PlotError for another suffix, for a folder that is not there, and where matplotlib is not
    installed: to be called before the work whose waterfall is to be drawn.
    """
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise PlotError(
            f"plot: expected a file that ends in {' or '.join(_FORMATS)}, got {path.name!r}",
            hint="such as waterfall.svg",
        )
    if not path.absolute().parent.is_dir():
        raise PlotError(f"plot: no folder {path.parent} to write to", hint="make it, or choose another one")
    if find_spec("matplotlib") is None:
        raise PlotError(
            "plot: expected matplotlib, and it is not installed", hint="pip install 'artesian[plot]'"
        )
    return form


def plot(waterfall: Waterfall, path: Path) -> None:
    """Write the waterfall to ``path``, as what its suffix says: ``.svg`` or ``.png``.

    The same waterfall gives the same SVG, byte for byte. Raises PlotError as ``check_path`` does, and
    where the file cannot be written.
    """
    save(path, lambda: _figure(waterfall))


def save(path: Path, draw: Callable[[], Any]) -> None:
    """Write the figure that ``draw`` returns to ``path``, as what its suffix says, without a date in it.

    Raises PlotError as ``check_path`` does, and where the file cannot be written.
    """
    image = _drawn(draw, check_path(path))
    try:
        path.write_bytes(image)
    except OSError as error:
        raise PlotError(
            f"plot: cannot write {path}: {error.strerror}", hint="choose a folder that you can write to"
        ) from error


def svg(draw: Callable[[], Any]) -> str:
    """Return the figure that ``draw`` returns as an SVG element, to be put into a page."""
    text = _drawn(draw, "svg").decode()
    return text[text.index("<svg") :]


def _drawn(draw: Callable[[], Any], form: str) -> bytes:
    import matplotlib

    settings: Any = {"svg.hashsalt": "artesian", "svg.fonttype": "none", "text.parse_math": False}
    image = io.BytesIO()
    with matplotlib.rc_context(settings):
        metadata = {"Date": None, "Creator": "artesian"} if form == "svg" else {"Software": "artesian"}
        draw().savefig(image, format=form, dpi=_DPI, metadata=metadata)
    return image.getvalue()


def _figure(waterfall: Waterfall) -> Any:
    from matplotlib.figure import Figure

    notes = [line for note in waterfall.notes for line in textwrap.wrap(note, _NOTE_CHARACTERS)]
    height_in = _PICTURE_IN + _NOTE_IN * len(notes)
    figure = Figure(figsize=(_WIDTH_IN, height_in), facecolor="white")
    bottom = (_NOTE_IN * len(notes) + 0.75) / height_in
    axes = figure.add_axes((0.06, bottom, 0.93, 1 - 0.55 / height_in - bottom))
    unit, unit_us = device_time_unit(waterfall.nameplate_us)
    nameplate = max(waterfall.nameplate_us, 1) / unit_us
    lefts: list[tuple[str, int | None]] = [("nameplate", waterfall.nameplate_us)]
    lefts += [(stage_label(result.stage), result.left_us) for result in waterfall.stages]
    axes.set_ylim(0, nameplate * 1.03)
    _bar(axes, 0.0, 0.0, waterfall.nameplate_us / unit_us, LEFT)
    came_in = waterfall.nameplate_us
    for number, result in enumerate(waterfall.stages, start=1):
        x = number * _PITCH
        if result.left_us is None:
            _unknown(axes, x, came_in / unit_us, nameplate)
            continue
        _step(axes, x, came_in / unit_us)
        _bar(axes, x, 0.0, result.left_us / unit_us, LEFT)
        edge = came_in
        labels = []
        for cause, amount in by_amount(result):
            _bar(axes, x, (edge - amount) / unit_us, edge / unit_us, _colour(cause))
            text = f"{cause_label(cause)} {percent_text(amount, waterfall.nameplate_us)}"
            labels.append(((edge - amount / 2) / unit_us, text))
            edge -= amount
        _labels(axes, x, labels, nameplate)
        came_in = result.left_us
    axes.set_xlim(-0.6, len(lefts) * _PITCH - _BAR / 2)
    names = [f"{name}\n{_left_text(us, waterfall.nameplate_us, unit_us)}" for name, us in lefts]
    axes.set_xticks([number * _PITCH for number in range(len(names))], names, fontsize=9.5, color=INK)
    axes.set_ylabel(unit, color=INK)
    axes.tick_params(axis="both", length=0, labelcolor=INK)
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    simulated = " (simulated)" if waterfall.is_simulated else ""
    title = f"Waterfall in {unit}{simulated}"
    figure.text(0.06, 1 - 0.36 / height_in, title, fontsize=13, color=INK, weight="bold")
    for row, note in enumerate(reversed(notes)):
        figure.text(0.06, (0.12 + _NOTE_IN * row) / height_in, note, fontsize=7.5, color="#555555")
    return figure


def _left_text(us: int | None, nameplate_us: int, unit_us: int) -> str:
    return "unknown" if us is None else f"{amount_text(us, unit_us)}   {percent_text(us, nameplate_us)}"


def _colour(cause: str) -> str:
    return _COLOURS[Loss(cause)] if cause in set(Loss) else FAINT


def _bar(axes: Any, x: float, bottom: float, top: float, colour: str) -> None:
    height = top - bottom
    edge = 0.6 if height > 0.01 * axes.get_ylim()[1] else 0.0  # a white edge would cover a thin bar
    axes.bar(x, height, _BAR, bottom=bottom, color=colour, edgecolor="white", linewidth=edge)


def _step(axes: Any, x: float, came_in: float) -> None:
    """Draw the line from the bar before to where this one begins."""
    axes.plot(
        [x - _PITCH + _BAR / 2, x - _BAR / 2], [came_in, came_in], color=FAINT, linewidth=0.8, linestyle=":"
    )


def _unknown(axes: Any, x: float, came_in: float, nameplate: float) -> None:
    axes.bar(x, came_in, _BAR, color="white", edgecolor=FAINT, linewidth=1.0, linestyle="--")
    axes.text(x, max(came_in / 2, nameplate * 0.03), "?", ha="center", va="center", fontsize=13, color=INK)


def _labels(axes: Any, x: float, labels: list[tuple[float, str]], nameplate: float) -> None:
    """Write labels to the right of a bar, each as near to its segment as the others let it."""
    heights = _spread([height for height, _ in labels], nameplate * _LABEL_SPACE, nameplate)
    edge = x + _BAR / 2
    for (height, text), shown in zip(labels, heights, strict=True):
        axes.plot([edge, edge + 0.1], [height, shown], color=FAINT, linewidth=0.6)
        axes.text(
            edge + 0.12,
            shown,
            text,
            va="center",
            ha="left",
            fontsize=_LABEL_PT,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )


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
