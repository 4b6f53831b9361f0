"""Measuring CPU cores, all together, in the probe's process."""

import os
import time
from collections.abc import Callable
from functools import partial

from artesian.census.contention import CpuClock, contention_of
from artesian.census.kernels import Kernel, measure
from artesian.census.measurement import Figure, Measurement
from artesian.census.request import ProbeRequest, Say

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class CpuStopwatch:
    """Times work on the CPU, and tells from CPU times whether the process had its cores to itself."""

    def __init__(self, threads: int, watched_cpus: tuple[int, ...]) -> None:
        self._threads = threads
        self._clock = CpuClock(watched_cpus)
        self.cpu_shares: list[float] = []
        self.others_shares: list[float] = []
        self.steal_shares: list[float] = []
        self.disturbance: str | None = None
        """What disturbed the latest run; None where nothing did."""

    def time(self, run: Callable[[], None], repeats: int) -> tuple[float, bool]:
        """Return the seconds that ``repeats`` calls took, and whether nothing disturbed them."""
        self._clock.lap()
        start_s = time.perf_counter()
        for _ in range(repeats):
            run()
        seconds = time.perf_counter() - start_s
        use = self._clock.lap()
        cpu = use.cpu_share(self._threads)
        others, steal = use.others_share(self._threads), use.steal_share(self._threads)
        self.cpu_shares.append(cpu)
        if others is not None and steal is not None:
            self.others_shares.append(others)
            self.steal_shares.append(steal)
        self.disturbance = contention_of(cpu, others, steal)
        return seconds, self.disturbance is None


def measure_cpu(request: ProbeRequest, say: Say) -> Measurement:
    """Return the measurement of ``request.threads`` cores together, with torch or else with numpy.

    It sets this process's CPU affinity and thread counts: it is meant for a process of its own.
    """
    load_average = os.getloadavg()[0]
    start_s = time.perf_counter()
    if request.pinned_cpus:
        os.sched_setaffinity(0, request.pinned_cpus)
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(request.threads)  # read once, when the library is loaded
    series = _Series(request, say)
    try:
        backend = _measure_with_torch(series)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        backend = None
    missing: dict[str, str] = {}
    if backend is None:
        backend = _measure_with_numpy(series)
        reason = "torch is not installed, and numpy does not use all cores for it"
        missing = {"bf16_flops": reason, "memory_bytes_per_s": reason}
    stopwatch = series.stopwatch
    return Measurement(
        accelerator="cpu",
        index=None,
        uuid=None,
        devices=request.threads,
        backend=backend,
        fp32_flops=series.figures.get("fp32_flops"),
        bf16_flops=series.figures.get("bf16_flops"),
        memory_bytes_per_s=series.figures.get("memory_bytes_per_s"),
        missing=missing,
        load_average=load_average,
        cpu_share=_mean(stopwatch.cpu_shares),
        others_share=_mean(stopwatch.others_shares),
        steal_share=_mean(stopwatch.steal_shares),
        is_contended=bool(series.disturbances),
        contention="; ".join(series.disturbances) or None,
        wall_s=time.perf_counter() - start_s,
    )


class _Series:
    """The figures of one request, as they come in."""

    def __init__(self, request: ProbeRequest, say: Say) -> None:
        self.request = request
        self.stopwatch = CpuStopwatch(request.threads, request.watched_cpus)
        self.figures: dict[str, Figure] = {}
        self.disturbances: list[str] = []
        self._say = say

    def add(self, name: str, what: str, kernel: Callable[[], Kernel]) -> None:
        self._say(f"CPU: {what} on {self.request.threads} cores")
        figure = measure(kernel(), self.stopwatch, budget_s=self.request.kernel_s)
        self.figures[name] = figure
        if figure.valid_runs == 0:
            self.disturbances.append(f"{figure.kernel}: {self.stopwatch.disturbance}")

    def say(self, text: str) -> None:
        self._say(text)


def _measure_with_torch(series: _Series) -> str | None:
    """Return what torch calls itself; None where it is not to be used."""
    request = series.request
    if not request.may_use_torch:
        return None
    series.say("loading torch")
    from artesian.census import torch_kernels

    backend = torch_kernels.use_threads(request.threads)
    for dtype in ("fp32", "bf16"):
        size = torch_kernels.fitting_size("cpu", dtype, series.stopwatch, request.max_size)
        series.add(f"{dtype}_flops", f"{dtype} products", partial(torch_kernels.matmul, "cpu", dtype, size))
    series.add(
        "memory_bytes_per_s", "memory bandwidth", partial(torch_kernels.triad, "cpu", request.array_bytes)
    )
    return backend


def _measure_with_numpy(series: _Series) -> str:
    from artesian.census import numpy_kernels

    size = min(2048, series.request.max_size)
    series.add("fp32_flops", "fp32 products with numpy", partial(numpy_kernels.matmul, size))
    return numpy_kernels.BACKEND


def _mean(shares: list[float]) -> float | None:
    return sum(shares) / len(shares) if shares else None
