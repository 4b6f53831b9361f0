"""Measurements of a census as rows of a table."""

from collections.abc import Iterator, Mapping, Sequence

from rich.table import Table
from rich.text import Text

from artesian.census import Baseline, Census, Figure, Measurement, Verdict
from artesian.model.units import format_flops

COLUMNS = ("device", "fp32", "bf16", "of nameplate", "memory", "of nameplate", "verdict")


def measured_table(columns: Sequence[str] = COLUMNS) -> Table:
    """Return a table for rows of measurements; figures are aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="left" if name in ("node", "device", "verdict") else "right")
    return table


def measured_rows(
    found: Census, baselines: Mapping[str, Baseline] | None = None
) -> Iterator[Sequence[str | Text]]:
    """Yield the cells of each measurement, as COLUMNS has them; ``baselines`` are by model of device."""
    for measurement, verdict in zip(found.measurements, found.verdicts(baselines), strict=True):
        yield (
            device_name(measurement),
            _flops(measurement.fp32_flops, measurement.devices),
            _flops(measurement.bf16_flops, measurement.devices),
            _share(verdict.nameplate_ratio),
            _bandwidth(measurement.memory_bytes_per_s, measurement.devices),
            _share(verdict.bandwidth_ratio),
            _verdict(measurement, verdict),
        )


def device_name(measurement: Measurement) -> str:
    """Return which device it is, or how many cores together."""
    if measurement.index is None:
        return f"{measurement.accelerator}, each of {measurement.devices} together"
    return f"{measurement.index} {measurement.accelerator}"


def _flops(figure: Figure | None, devices: int) -> str:
    return "unknown" if figure is None else format_flops(figure.best / devices) + _mark(figure)


def _bandwidth(figure: Figure | None, devices: int) -> str:
    return "unknown" if figure is None else f"{figure.best / devices / 1e9:.3g} GB/s" + _mark(figure)


def _mark(figure: Figure) -> str:
    return "" if figure.is_valid else " (invalid)"


def _share(ratio: float | None) -> str:
    return "unknown" if ratio is None else f"{ratio:.0%}"


def _verdict(measurement: Measurement, verdict: Verdict) -> Text:
    if verdict.is_functional is False:
        return Text("defective", style="red")
    if verdict.is_slow:
        return Text("slow", style="red")
    if measurement.is_contended:
        return Text("contended", style="yellow")
    return Text(
        "unknown" if verdict.is_functional is None else "works",
        style="green" if verdict.is_functional else "",
    )
