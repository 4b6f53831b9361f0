"""The report: what was found and measured, against the nameplate, with a verdict per device."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from artesian import __version__
from artesian.catalog import Accelerator
from artesian.census.errors import CensusError
from artesian.census.machine import FoundDevice, Machine
from artesian.census.measurement import Figure, Measurement, check_dtype
from artesian.model.ledger import Ceiling

MAX_SLOWDOWN = 0.05
"""More than this below the SKU's baseline is a defect (SuperBench, ATC 2024)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What healthy devices of one SKU reach in this benchmark, per device: FLOP/s and bytes/s."""

    bf16_flops: float | None = None
    fp32_flops: float | None = None
    memory_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a device works, and whether it is as fast as its like. None is not known.

    It speaks of ``devices`` devices: one, or all CPU cores of a machine, which have no ``index``.
    ``is_functional`` is False when it computed wrong results, None when it was not measured, by whoever's
    fault; ``is_slow`` is True when a valid figure is more than 5% below the SKU's baseline. ``reason`` says why.
    The ratios are measured over nameplate, 0 to 1.
    """

    accelerator: str
    index: int | None
    devices: int
    is_functional: bool | None
    is_slow: bool | None
    reason: str
    nameplate_ratio: float | None
    bandwidth_ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """One machine at one time: what it is and what its devices do.

    ``at_s`` is in seconds since the Unix epoch, ``artesian`` the version that took the census.
    """

    machine: Machine
    measurements: tuple[Measurement, ...]
    at_s: float
    artesian: str = __version__

    @property
    def is_good(self) -> bool:
        """Whether every device was measured, correctly, and nobody disturbed it."""
        return bool(self.measurements) and all(
            measurement.figures and all(figure.is_valid for figure in measurement.figures)
            for measurement in self.measurements
        )

    def verdicts(self, baselines: Mapping[str, Baseline] | None = None) -> tuple[Verdict, ...]:
        """Return a verdict for each measurement; ``baselines`` are by accelerator name."""
        known = baselines or {}
        return tuple(
            _verdict(measurement, self._entry(measurement), known.get(measurement.accelerator))
            for measurement in self.measurements
        )

    def ceiling_flops(self, dtype: str, *, index: int | None = None) -> Ceiling | None:
        """Return the ceiling of device ``index``; without one, of a CPU core of a machine of such devices.

        It is the nameplate where ``dtype`` is ``bf16`` and the catalogue's figure is trusted; else the
        measured figure where that is valid; else None. Raises ValueError for a dtype other than
        fp32 and bf16.
        """
        check_dtype(dtype)
        measurement = next((m for m in self.measurements if m.index == index), None)
        measured = None if measurement is None else measurement.flops(dtype)
        device = self._device(index)
        entry = None if device is None else device.accelerator
        if dtype == "bf16" and entry is not None and entry.trusted_peak_flops is not None:
            return Ceiling(flops=entry.trusted_peak_flops, basis="nameplate bf16")
        return None if measured is None else Ceiling(flops=measured, basis=f"measured {dtype}")

    def summary(self, baselines: Mapping[str, Baseline] | None = None) -> dict[str, Any]:
        """Return the census as plain JSON types, compact: for ``-o json`` and for rendering."""
        host = self.machine.host
        return {
            "at_s": self.at_s,
            "artesian": self.artesian,
            "host": {
                "hostname": host.hostname,
                "architecture": host.architecture,
                "cpu_model": host.cpu_model,
                "sockets": host.sockets,
                "physical_cores": host.physical_cores,
                "usable_cores": host.usable_cores,
                "logical_cpus": host.logical_cpus,
                "usable_logical_cpus": len(host.usable_cpus),
                "memory_bytes": host.memory_bytes,
                "usable_memory_bytes": host.usable_memory_bytes,
                "numa_nodes": [msgspec.to_builtins(node) for node in host.numa_nodes],
            },
            "devices": self.machine.device_counts,
            "measurements": [
                _summary(measurement, verdict)
                for measurement, verdict in zip(self.measurements, self.verdicts(baselines), strict=True)
            ],
            "problems": list(self.machine.problems),
        }

    def to_json(self) -> bytes:
        """Return the whole census as JSON, for ``from_json``."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, text: bytes) -> "Census":
        """Return the census that ``to_json`` wrote. Raises CensusError where it is not one."""
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise CensusError(f"not a census: {error}", hint="take a new one: artesian census") from error

    def save(self, path: Path) -> None:
        """Write the census to ``path``, whole or not at all, readable by the user only."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.to_json())
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: Path) -> "Census":
        """Return the census in ``path``. Raises CensusError, or FileNotFoundError where there is none."""
        try:
            return cls.from_json(path.read_bytes())
        except CensusError as error:
            raise CensusError(f"{path}: {error}", hint=error.hint) from error

    def _device(self, index: int | None) -> FoundDevice | None:
        return next((device for device in self.machine.accelerators if device.index == index), None)

    def _entry(self, measurement: Measurement) -> Accelerator | None:
        device = self._device(measurement.index)
        is_same = device is not None and device.name == measurement.accelerator
        return device.accelerator if device is not None and is_same else None


def _verdict(measurement: Measurement, entry: Accelerator | None, baseline: Baseline | None) -> Verdict:
    peak = None if entry is None else entry.trusted_peak_flops
    bandwidth = None if entry is None else entry.trusted_memory_bytes_per_s
    is_functional, function = _functional(measurement)
    is_slow, slowness = _slow(measurement, baseline)
    return Verdict(
        accelerator=measurement.accelerator,
        index=measurement.index,
        devices=measurement.devices,
        is_functional=is_functional,
        is_slow=is_slow,
        reason=f"{function}; {slowness}",
        nameplate_ratio=_ratio(measurement.flops("bf16"), peak),
        bandwidth_ratio=_ratio(measurement.bandwidth_bytes_per_s, bandwidth),
    )


def _functional(measurement: Measurement) -> tuple[bool | None, str]:
    wrong = [figure.kernel for figure in measurement.figures if not figure.is_correct]
    if wrong:
        return False, f"wrong results in {', '.join(wrong)}"
    if measurement.problem is not None:
        return None, f"not measured: {measurement.problem}"
    if not measurement.figures:
        return None, f"not measured: {'; '.join(measurement.missing.values())}"
    return True, "correct results"


def _slow(measurement: Measurement, baseline: Baseline | None) -> tuple[bool | None, str]:
    if baseline is None:
        return None, "no baseline for this SKU"
    compared = {
        "bf16": (measurement.flops("bf16"), baseline.bf16_flops),
        "fp32": (measurement.flops("fp32"), baseline.fp32_flops),
        "memory bandwidth": (measurement.bandwidth_bytes_per_s, baseline.memory_bytes_per_s),
    }
    ratios = {name: ratio for name, pair in compared.items() if (ratio := _ratio(*pair)) is not None}
    if not ratios:
        return None, "no valid figure to compare with the SKU's baseline"
    slow = [f"{name} at {ratio:.0%}" for name, ratio in ratios.items() if ratio < 1 - MAX_SLOWDOWN]
    if slow:
        return True, f"{', '.join(slow)} of the SKU's baseline"
    return False, "within 5% of the SKU's baseline"


def _ratio(measured: float | None, reference: float | None) -> float | None:
    return None if measured is None or reference is None else measured / reference


def _summary(measurement: Measurement, verdict: Verdict) -> dict[str, Any]:
    return {
        "accelerator": measurement.accelerator,
        "index": measurement.index,
        "devices": measurement.devices,
        "backend": measurement.backend,
        "fp32_flops": _figure(measurement.fp32_flops, measurement.devices),
        "bf16_flops": _figure(measurement.bf16_flops, measurement.devices),
        "memory_bytes_per_s": _figure(measurement.memory_bytes_per_s, measurement.devices),
        "missing": measurement.missing,
        "load_average": measurement.load_average,
        "cpu_share": measurement.cpu_share,
        "others_share": measurement.others_share,
        "steal_share": measurement.steal_share,
        "is_contended": measurement.is_contended,
        "contention": measurement.contention,
        "nameplate_ratio": verdict.nameplate_ratio,
        "bandwidth_ratio": verdict.bandwidth_ratio,
        "is_functional": verdict.is_functional,
        "is_slow": verdict.is_slow,
        "reason": verdict.reason,
        "problem": measurement.problem,
    }


def _figure(figure: Figure | None, devices: int) -> dict[str, Any] | None:
    if figure is None:
        return None
    return {
        "total": figure.best,
        "per_device": figure.best / devices,
        "is_valid": figure.is_valid,
        "kernel": figure.kernel,
        "runs": figure.runs,
        "valid_runs": figure.valid_runs,
    }
