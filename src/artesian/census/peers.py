"""What healthy devices of a kind reach, from the censuses of many machines: a device is compared with its like.

The baseline is the median. So it stands as long as fewer than half of a kind are slow, and it needs no
list of figures that somebody would have to keep for each model, driver and cooling.
"""

from collections.abc import Iterable
from statistics import median

from artesian.census.machine import CPU
from artesian.census.measurement import Measurement
from artesian.census.report import Baseline, Census

MIN_MACHINES = 3
"""So many machines make a baseline: with two, nobody could tell which of them is slow."""

Sku = tuple[str, str | None, int]
"""Model of device; for CPU cores also the model of the CPU, and how many of them were measured together."""


class Peers:
    """The baselines of all kinds of device that enough machines have."""

    def __init__(self, censuses: Iterable[Census]) -> None:
        figures: dict[Sku, dict[str, list[float]]] = {}
        machines: dict[Sku, set[int]] = {}
        for number, census in enumerate(censuses):
            for measurement in census.measurements:
                sku = _sku(census, measurement)
                machines.setdefault(sku, set()).add(number)
                found = figures.setdefault(sku, {"bf16": [], "fp32": [], "memory": []})
                for name, figure in (
                    ("bf16", measurement.flops("bf16")),
                    ("fp32", measurement.flops("fp32")),
                    ("memory", measurement.bandwidth_bytes_per_s),
                ):
                    if figure is not None:
                        found[name].append(figure)
        self._baselines = {
            sku: Baseline(
                bf16_flops=_median(found["bf16"]),
                fp32_flops=_median(found["fp32"]),
                memory_bytes_per_s=_median(found["memory"]),
            )
            for sku, found in figures.items()
            if len(machines[sku]) >= MIN_MACHINES
        }

    def baselines(self, census: Census) -> dict[str, Baseline]:
        """Return the baseline of each of the machine's models of device that has one."""
        return {
            measurement.accelerator: baseline
            for measurement in census.measurements
            if (baseline := self._baselines.get(_sku(census, measurement))) is not None
        }

    def unfit(self, census: Census) -> str | None:
        """Return why jobs had better not run on the machine: which devices are slow, or compute wrong results.

        None where nothing says so.
        """
        faults = [
            f"{verdict.accelerator if verdict.index is None else f'device {verdict.index}'}: {verdict.reason}"
            for verdict in census.verdicts(self.baselines(census))
            if verdict.is_slow or verdict.is_functional is False
        ]
        return "; ".join(faults) or None


def _sku(census: Census, measurement: Measurement) -> Sku:
    if measurement.accelerator == CPU:
        return (CPU, census.machine.host.cpu_model, measurement.devices)
    return (measurement.accelerator, None, 1)


def _median(figures: list[float]) -> float | None:
    return median(figures) if len(figures) >= MIN_MACHINES else None
