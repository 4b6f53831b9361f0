"""Measuring NVIDIA devices, one at a time, in the probe's process."""

import os
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from artesian.census.kernels import Kernel, measure
from artesian.census.measurement import Figure, Measurement
from artesian.census.request import ProbeRequest, Say, Target

_BF16_SIZE = 8192
_FP32_SIZE = 4096


class CudaStopwatch:
    """Times work on the current CUDA device with events on its stream."""

    def __init__(self, cuda: Any, *, is_alone: bool) -> None:
        self._cuda = cuda
        self._is_alone = is_alone

    def time(self, run: Callable[[], None], repeats: int) -> tuple[float, bool]:
        """Return the seconds that ``repeats`` calls took, and whether the device was ours alone."""
        start, end = (self._cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000, self._is_alone


def measure_gpus(request: ProbeRequest, say: Say) -> Iterator[Measurement]:
    """Yield the measurement of each of ``request.gpus``, in order.

    It hides the machine's other devices from this process: it is meant for a process of its own.
    RuntimeError, torch's for a device that faults, ends it: CUDA cannot be used in the process after that.
    """
    # By UUID, because CUDA numbers devices by speed and NVML by their place on the bus.
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(target.uuid for target in request.gpus)
    say("loading torch")
    try:
        import torch
    except ModuleNotFoundError as error:
        problem: str | None = f"torch is not installed: {error}"
    else:
        problem = None
        if not torch.cuda.is_available():
            problem = f"torch {torch.__version__} cannot use CUDA here"
        elif torch.cuda.device_count() != len(request.gpus):
            problem = (
                f"CUDA sees {torch.cuda.device_count()} of the {len(request.gpus)} devices that NVML lists"
            )
    for ordinal, target in enumerate(request.gpus):
        if problem is not None:
            yield _not_measured(target, problem)
        else:
            yield _measure_gpu(request, ordinal, target, say)


def _measure_gpu(request: ProbeRequest, ordinal: int, target: Target, say: Say) -> Measurement:
    import torch

    from artesian.census import torch_kernels

    load_average = os.getloadavg()[0]
    start_s = time.perf_counter()
    others = other_processes(import_module("pynvml"), target.uuid)
    torch.cuda.set_device(ordinal)
    stopwatch = CudaStopwatch(torch.cuda, is_alone=not others)
    device = f"cuda:{ordinal}"
    plan: dict[str, Callable[[], Kernel]] = {
        "bf16_flops": lambda: torch_kernels.matmul(device, "bf16", min(_BF16_SIZE, request.max_size)),
        "fp32_flops": lambda: torch_kernels.matmul(device, "fp32", min(_FP32_SIZE, request.max_size)),
        "memory_bytes_per_s": lambda: torch_kernels.copy(device, request.array_bytes),
    }
    figures: dict[str, Figure] = {}
    missing: dict[str, str] = {}
    for name, kernel in plan.items():
        say(f"device {target.index} ({target.accelerator}): {name}")
        try:
            figures[name] = measure(kernel(), stopwatch, budget_s=request.kernel_s)
        except torch.OutOfMemoryError:
            free_bytes, _ = torch.cuda.mem_get_info()
            missing[name] = f"not enough device memory: {free_bytes / 2**30:.1f} GiB are free"
    return Measurement(
        accelerator=target.accelerator,
        index=target.index,
        uuid=target.uuid,
        devices=1,
        backend=f"torch {torch.__version__}",
        fp32_flops=figures.get("fp32_flops"),
        bf16_flops=figures.get("bf16_flops"),
        memory_bytes_per_s=figures.get("memory_bytes_per_s"),
        missing=missing,
        load_average=load_average,
        is_contended=None if others is None else others > 0,
        contention=f"{others} other process{'es' * (others > 1)} on the device" if others else None,
        wall_s=time.perf_counter() - start_s,
    )


def other_processes(nvml: Any, uuid: str) -> int | None:
    """Return how many processes other than this compute on the device; None where NVML does not tell."""
    try:
        nvml.nvmlInit()
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            running = [p.pid for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle)]
        finally:
            nvml.nvmlShutdown()
    except nvml.NVMLError:
        return None
    return len(set(running) - {os.getpid()})


def _not_measured(target: Target, problem: str) -> Measurement:
    return Measurement(
        accelerator=target.accelerator, index=target.index, uuid=target.uuid, devices=1, problem=problem
    )
