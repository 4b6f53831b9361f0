"""The measuring loop and the reference: what every kernel is timed and checked with.

Arrays arrive as numpy float64, so that the reference is computed by other code than the kernel under
test, on the CPU, whatever device ran the kernel.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from artesian.census.measurement import Figure

FloatArray = npt.NDArray[np.float64]

RUN_S = 0.2
"""A timed run repeats the kernel for at least this long: twenty ticks of the kernel's CPU accounting."""
MIN_RUNS = 3
SAMPLES = 16
"""Rows and columns of a matrix product that are compared with the reference."""

_EPS = {"fp32": 2.0**-24, "bf16": 2.0**-9}


class Stopwatch(Protocol):
    """Times work on one kind of device."""

    def time(self, run: Callable[[], None], repeats: int) -> tuple[float, bool]:
        """Return the seconds that ``repeats`` calls took, and whether nothing disturbed them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """Something to time: ``run`` does ``work`` FLOPs or bytes; ``error`` compares its latest result.

    ``error`` returns the largest deviation in units of what rounding explains (above 1 is wrong), and clears
    the result, so that a later check cannot be satisfied by an earlier run.
    """

    name: str
    work: float
    run: Callable[[], None]
    error: Callable[[], float]


def measure(kernel: Kernel, stopwatch: Stopwatch, *, budget_s: float) -> Figure:
    """Return the best rate of the kernel in about ``budget_s`` seconds of timed runs.

    Warm-up runs come first. Disturbed runs are repeated, for as long again at most. The result is
    checked before and after the timed runs: on a cold device, and on a hot one.
    """
    kernel.run()
    errors = [kernel.error()]
    once_s, _ = stopwatch.time(kernel.run, 1)
    repeats = max(1, math.ceil(min(RUN_S, budget_s / MIN_RUNS) / once_s))
    rates: list[tuple[float, bool]] = []
    start_s = time.perf_counter()
    while True:
        seconds, is_undisturbed = stopwatch.time(kernel.run, repeats)
        rates.append((kernel.work * repeats / seconds, is_undisturbed))
        valid = sum(is_undisturbed for _, is_undisturbed in rates)
        elapsed_s = time.perf_counter() - start_s
        if len(rates) >= MIN_RUNS and elapsed_s >= budget_s * (1 if valid >= MIN_RUNS else 2):
            break
    errors.append(kernel.error())
    counted = [rate for rate, is_undisturbed in rates if is_undisturbed] or [rate for rate, _ in rates]
    worst = max(errors, key=lambda error: math.inf if math.isnan(error) else error)
    return Figure(
        kernel=kernel.name,
        best=max(counted),
        median=statistics.median(counted),
        runs=len(rates),
        valid_runs=valid,
        is_correct=worst <= 1,
        worst_error=worst if math.isfinite(worst) else None,
    )


def product_error(rows: FloatArray, columns: FloatArray, block: FloatArray, dtype: str) -> float:
    """Return how far ``block`` is from ``rows @ columns``, in units of what rounding explains.

    ``rows`` [r, k] and ``columns`` [k, c] are the exact inputs, ``block`` [r, c] the device's result.
    Accumulation in fp32 is expected, and that a bf16 kernel may round partial sums to bf16.
    """
    terms = rows[:, None, :] * columns.T[None, :, :]
    exact = terms.sum(axis=-1)
    # Rounding errors add up like a random walk over the k terms, whose length is this:
    spread = np.sqrt((terms**2).sum(axis=-1))
    accumulated = 8 * _EPS["fp32"] * math.sqrt(rows.shape[1]) * spread
    if dtype == "bf16":
        accumulated = accumulated + 8 * _EPS["bf16"] * spread
    tolerance = accumulated + 2 * _EPS[dtype] * np.abs(exact)
    return float(np.max(np.abs(block - exact) / tolerance))


def sampled(length: int, count: int = SAMPLES) -> npt.NDArray[np.int64]:
    """Return ``count`` random places below ``length`` (all of them where there are fewer)."""
    return np.random.default_rng().choice(length, size=min(count, length), replace=False)


def triad_error(a: FloatArray, b: FloatArray, c: FloatArray, scale: float) -> float:
    """Return how far ``a`` is from ``b + scale * c``, in units of fp32 rounding."""
    tolerance = 4 * _EPS["fp32"] * (np.abs(b) + np.abs(scale * c))
    return float(np.max(np.abs(a - (b + scale * c)) / tolerance))


def matmul_name(size: int, dtype: str) -> str:
    """Return what a square matrix product is called in a report."""
    return f"matmul {size}x{size}x{size} {dtype}"
