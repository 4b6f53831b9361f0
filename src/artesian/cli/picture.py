"""A waterfall and a training summary as pictures in the terminal.

Both fit any width, need no colour, and fall back to ASCII where the terminal's encoding has no blocks.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from artesian.kernel.training import Recovery, TrainingSummary
from artesian.model.ledger import US, Stage, StageResult, Waterfall
from artesian.model.units import format_duration, format_flops

_HOURS_FROM_US = 2 * 3600 * US
"""From here on device time is given in device-hours."""
_MAX_WIDTH = 120
_MIN_BAR = 8
_LABELS = {Stage.MODEL_FLOPS: "model FLOPs"}
_NAMEPLATE = "nameplate"
_INDENT = "  "


@dataclass(frozen=True, slots=True)
class _Glyphs:
    left: str
    lost: str
    line: str


_BLOCKS = _Glyphs("█", "░", "▁▂▃▄▅▆▇█")
_ASCII = _Glyphs("#", ":", ".:-=+*%#")


def stage_label(stage: Stage) -> str:
    """Return the name of a stage for people."""
    return _LABELS.get(stage, stage.value)


def cause_label(cause: str) -> str:
    """Return the name of a cause for people: ``checkpoint stall``."""
    return cause.replace("_", " ")


def by_amount(result: StageResult) -> list[tuple[str, int]]:
    """Return the losses of a stage, the largest first."""
    return sorted(result.lost_us.items(), key=lambda item: (-item[1], item[0]))


def device_time_unit(nameplate_us: int) -> tuple[str, int]:
    """Return the unit that device time is given in, and how many microseconds it has."""
    if nameplate_us >= _HOURS_FROM_US:
        return "device-hours", 3600 * US
    return "device-seconds", US


def amount_text(us: int, unit_us: int) -> str:
    """Return an amount without its unit; what is not nothing never reads as 0."""
    if 0 < us < unit_us / 20:
        return "<0.1"
    return f"{us / unit_us:,.1f}"


def percent_text(us: int, nameplate_us: int) -> str:
    """Return a share of nameplate: ``93.2%``; what is not nothing never reads as 0."""
    if nameplate_us == 0:
        return "-"
    percent = 100 * us / nameplate_us
    return "<0.1%" if 0 < percent < 0.05 else f"{percent:.1f}%"


class WaterfallPicture:
    """A waterfall for ``rich``: bars that step down from nameplate, and under each what was lost, by cause."""

    def __init__(self, waterfall: Waterfall) -> None:
        self._waterfall = waterfall

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console
        waterfall = self._waterfall
        glyphs = _glyphs(options)
        unit, unit_us = device_time_unit(waterfall.nameplate_us)
        rows = list(_rows(waterfall))
        amounts = ["unknown" if row.us is None else amount_text(row.us, unit_us) for row in rows]
        shares = ["" if row.us is None else percent_text(row.us, waterfall.nameplate_us) for row in rows]
        label_width = max(len(row.label) for row in rows)
        amount_width, share_width = max(map(len, amounts)), max(map(len, shares))
        text_width = label_width + amount_width + share_width + 6
        bar_width = min(options.max_width, _MAX_WIDTH) - text_width
        has_shares = text_width - 2 <= options.max_width

        title = Text("Waterfall", style="bold")
        title.append(f" in {unit}", style="not bold")
        if waterfall.is_simulated:
            title.append(" (simulated)", style="bold yellow")
        yield title
        for row, amount, share in zip(rows, amounts, shares, strict=True):
            line = Text(no_wrap=True, overflow="crop")
            line.append(row.label.ljust(label_width), style=row.style)
            if bar_width >= _MIN_BAR:
                line.append("  ").append_text(_bar(row, waterfall.nameplate_us, bar_width, glyphs))
            line.append(f"  {amount.rjust(amount_width)}", style=row.style)
            if has_shares:
                line.append(f"  {share.rjust(share_width)}", style=row.style)
            line.rstrip()
            yield line
        for note in waterfall.notes:
            yield Text(f"- {note}", style="dim")


class TrainingPicture:
    """The body of the training panel for ``rich``."""

    def __init__(self, summary: TrainingSummary) -> None:
        self._summary = summary

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console
        yield self._table(options)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self._table(options))

    def _table(self, options: ConsoleOptions) -> Table:
        summary = self._summary
        glyphs = _glyphs(options)
        table = Table.grid(padding=(0, 2), expand=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row("steps", _or_unknown(summary.steps))
        table.add_row("final loss", _loss_text(summary))
        if len(summary.losses) > 1:
            width = max(1, min(options.max_width, _MAX_WIDTH // 2) // 2)
            line = sparkline([loss for _, loss in summary.losses], width, glyphs.line)
            table.add_row("loss", Text(line, style="cyan", no_wrap=True))
        table.add_row("tokens/s", _tokens_text(summary))
        if summary.model_flops_per_s is not None:
            table.add_row("model FLOP/s", format_flops(summary.model_flops_per_s))
        table.add_row("MFU", _mfu_text(summary))
        table.add_row("recoveries", "\n".join(map(_recovery_text, summary.recoveries)) or "none")
        if summary.stragglers is not None:
            table.add_row("stragglers", Text("\n".join(map(str, summary.stragglers)) or "none"))
        if summary.divergences is not None:
            table.add_row("replicas", Text("\n".join(map(str, summary.divergences)) or "alike"))
        return table


def training_panel(summary: TrainingSummary) -> Panel:
    """Return the summary of a training job as a panel: loss, tokens/s, MFU and what it rests on, recoveries."""
    return Panel(
        TrainingPicture(summary), title=Text(f"training: {summary.job_id}"), title_align="left", expand=False
    )


def sparkline(values: Sequence[float], width: int, levels: str) -> str:
    """Return a curve of at most ``width`` characters, each the mean of its share of ``values``.

    ``levels`` are the characters from low to high; what is not finite shows as ``x``.
    """
    count = min(width, len(values))
    bins = [values[len(values) * n // count : len(values) * (n + 1) // count] for n in range(count)]
    means = [sum(group) / len(group) for group in bins]
    finite = [mean for mean in means if math.isfinite(mean)]
    # Halves, and a quotient before the product: the difference of the largest floats is none, nor 1 over the least.
    low, high = min(finite, default=0.0) / 2, max(finite, default=0.0) / 2

    def level(mean: float) -> int:
        return round((mean / 2 - low) / (high - low) * (len(levels) - 1)) if high > low else 0

    return "".join(levels[level(mean)] if math.isfinite(mean) else "x" for mean in means)


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the picture: a bar from 0 to ``full_us``, then shaded to ``shaded_us``."""

    label: str
    us: int | None
    full_us: int
    shaded_us: int
    style: str = ""
    is_cause: bool = False


def _rows(waterfall: Waterfall) -> Iterator[_Row]:
    came_in = waterfall.nameplate_us
    yield _Row(_NAMEPLATE, came_in, came_in, came_in, "bold")
    for result in waterfall.stages:
        label = stage_label(result.stage)
        if result.left_us is None:
            yield _Row(label, None, 0, 0, "bold")
            continue
        yield _Row(label, result.left_us, result.left_us, came_in, "bold")
        edge = came_in
        for cause, amount in by_amount(result):
            yield _Row(f"{_INDENT}{cause_label(cause)}", amount, edge - amount, edge, "dim", is_cause=True)
            edge -= amount
        came_in = result.left_us


def _bar(row: _Row, nameplate_us: int, width: int, glyphs: _Glyphs) -> Text:
    """Return ``width`` characters. A loss shows as one character at least, unless nothing else would be left."""
    if nameplate_us == 0:
        return Text(" " * width)
    full = row.full_us * width // nameplate_us
    end = -(-row.shaded_us * width // nameplate_us)
    bar = Text()
    if row.is_cause:
        full = min(full, width - 1)
        bar.append(" " * full)
    else:
        full = round(row.full_us * width / nameplate_us)
        bar.append(glyphs.left * full, style="cyan")
    bar.append(glyphs.lost * max(0, end - full), style="red")
    bar.append(" " * (width - max(full, end)))
    return bar


def _glyphs(options: ConsoleOptions) -> _Glyphs:
    try:
        "".join((_BLOCKS.left, _BLOCKS.lost, _BLOCKS.line)).encode(options.encoding)
    except (UnicodeEncodeError, LookupError):
        return _ASCII
    return _ASCII if options.legacy_windows else _BLOCKS


def _or_unknown(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _loss_text(summary: TrainingSummary) -> str:
    if summary.final_loss is None:
        return "unknown"
    text = f"{summary.final_loss:.4f}"
    if summary.first_loss is not None and len(summary.losses) > 1:
        text += f", from {summary.first_loss:.4f}"
    return text


def _tokens_text(summary: TrainingSummary) -> str:
    if summary.tokens_per_s is None:
        return "unknown"
    text = f"{summary.tokens_per_s:,.0f} in steps"
    if summary.tokens_per_s_overall is not None:
        text += f", {summary.tokens_per_s_overall:,.0f} from submit to end"
    return text


def _mfu_text(summary: TrainingSummary) -> str:
    if summary.mfu is None:
        return "unknown"
    return f"{summary.mfu:.1%} of {summary.mfu_basis}; causal attention counted half"


def _recovery_text(recovery: Recovery) -> str:
    who = "" if recovery.worker is None else f"worker {recovery.worker}: "
    text = f"{who}{cause_label(recovery.cause.value)}"
    if recovery.layer is not None:
        text += f", within the attempt ({cause_label(recovery.layer.value)})"
    if recovery.seconds is None:
        return f"{text}; no step since"
    text += f"; {format_duration(recovery.seconds)} from the failure to the next step"
    if recovery.resumed_from_step is not None:
        text += f", from step {recovery.resumed_from_step:,} on"
    return text
