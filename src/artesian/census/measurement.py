"""What was measured on a device, and whether the measurement is to be believed."""

from dataclasses import dataclass, field

DTYPES = ("fp32", "bf16")


def check_dtype(dtype: str) -> None:
    """Raise ValueError unless ``dtype`` is one that the benchmark measures."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be {' or '.join(DTYPES)}, got {dtype!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One kernel's rate: FLOP/s, or bytes/s for a memory kernel.

    ``best`` is the fastest of the ``valid_runs`` during which nothing else took the device's time, of all
    ``runs`` if there is no such run; ``median`` is over the same runs. Both count all devices that were
    measured together. ``is_correct`` says whether the result agreed with a float64 reference on sampled
    entries; ``worst_error`` is the largest deviation, in units of what rounding explains (None: not a number).
    """

    kernel: str
    best: float
    median: float
    runs: int
    valid_runs: int
    is_correct: bool
    worst_error: float | None

    @property
    def is_valid(self) -> bool:
        """Whether ``best`` may be published: correct, and not slowed down by others."""
        return self.is_correct and self.valid_runs > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The benchmark of one device, or of all CPU cores of a machine together.

    ``index`` and ``uuid`` are the device's, None for CPU cores; ``devices`` counts what was measured
    together. A figure that is None has its reason in ``missing``, by the figure's name.
    ``load_average`` is the one-minute figure before the start. ``cpu_share`` is the CPU time used over
    the CPU time asked for, ``others_share`` what other processes used of these CPUs, ``steal_share`` what
    the hypervisor took, each 0 to 1 over the timed runs and None where it is not known.
    ``problem`` is why there is no measurement at all.
    """

    accelerator: str
    index: int | None
    uuid: str | None
    devices: int
    backend: str | None = None
    fp32_flops: Figure | None = None
    bf16_flops: Figure | None = None
    memory_bytes_per_s: Figure | None = None
    missing: dict[str, str] = field(default_factory=dict)
    load_average: float | None = None
    cpu_share: float | None = None
    others_share: float | None = None
    steal_share: float | None = None
    is_contended: bool | None = None
    contention: str | None = None
    problem: str | None = None
    wall_s: float | None = None

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures that were measured."""
        named = (self.fp32_flops, self.bf16_flops, self.memory_bytes_per_s)
        return tuple(figure for figure in named if figure is not None)

    def flops(self, dtype: str) -> float | None:
        """Return the FLOP/s of one device in ``dtype`` (``fp32`` or ``bf16``); None unless it is valid.

        Raises ValueError for another dtype.
        """
        check_dtype(dtype)
        return self._per_device(self.fp32_flops if dtype == "fp32" else self.bf16_flops)

    @property
    def bandwidth_bytes_per_s(self) -> float | None:
        """Memory bandwidth of one device in bytes/s; None unless it is valid."""
        return self._per_device(self.memory_bytes_per_s)

    def _per_device(self, figure: Figure | None) -> float | None:
        if figure is None or not figure.is_valid:
            return None
        return figure.best / self.devices
