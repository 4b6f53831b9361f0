"""The benchmark: real kernels at a reduced size, kernels that lie, and probes that hang or die."""

import json
import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from artesian.census import (
    BenchmarkSettings,
    FoundDevice,
    Host,
    Machine,
    Measurement,
    benchmark,
    discover,
    gpu_probe,
)
from artesian.census.contention import CpuClock, contention_of
from artesian.census.cpu_probe import CpuStopwatch
from artesian.census.gpu_probe import other_processes
from artesian.census.kernels import Kernel, measure, product_error, sampled, triad_error
from artesian.census.request import ProbeRequest, Target

HAS_TORCH = True
try:
    import torch  # noqa: F401
except ModuleNotFoundError:
    HAS_TORCH = False

REDUCED = BenchmarkSettings(kernel_s=0.05, max_size=256, array_bytes=2**20)


def check_figures(measurement: Measurement) -> None:
    assert measurement.problem is None
    assert measurement.figures
    for name in ("fp32_flops", "bf16_flops", "memory_bytes_per_s"):
        figure = getattr(measurement, name)
        if figure is None:
            assert measurement.missing[name]
            continue
        assert math.isfinite(figure.best)
        assert figure.best >= figure.median > 0
        assert figure.runs >= figure.valid_runs
        assert figure.runs >= 3
        assert figure.is_correct
        assert figure.worst_error is not None
        assert figure.worst_error <= 1
    assert measurement.is_contended == any(figure.valid_runs == 0 for figure in measurement.figures)
    assert (measurement.contention is not None) == measurement.is_contended
    assert measurement.load_average is not None
    assert measurement.cpu_share is not None
    assert measurement.cpu_share > 0


def test_the_cpu_cores_of_this_machine_are_measured_together() -> None:
    machine = discover()
    machine = replace(machine, accelerators=())
    said: list[str] = []
    (measurement,) = benchmark(machine, settings=REDUCED, progress=said.append)
    check_figures(measurement)
    assert measurement.accelerator == "cpu"
    assert measurement.index is None
    assert measurement.devices == machine.host.usable_cores
    assert any("fp32" in line for line in said)
    assert (measurement.bf16_flops is not None) == HAS_TORCH
    if measurement.fp32_flops is not None and measurement.fp32_flops.is_valid:
        assert measurement.flops("fp32") == measurement.fp32_flops.best / measurement.devices


def test_without_torch_numpy_measures_fp32_and_the_rest_has_its_reason() -> None:
    request = ProbeRequest(threads=1, kernel_s=0.05, max_size=256, may_use_torch=False)
    done = subprocess.run(
        [sys.executable, "-m", "artesian.census.probe", msgspec.json.encode(request).decode()],
        stdout=subprocess.PIPE,
        check=True,
    )
    *progress, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(set(line) == {"progress"} for line in progress)
    measurement = msgspec.convert(last["measurement"], Measurement)
    check_figures(measurement)
    assert (measurement.backend or "").startswith("numpy")
    assert measurement.fp32_flops is not None
    assert set(measurement.missing) == {"bf16_flops", "memory_bytes_per_s"}


def test_the_caller_never_imports_torch() -> None:
    code = (
        "import sys; from artesian import census; from artesian.census import discover\n"
        "discover()\n"
        "assert not {'torch', 'numpy'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class SteadyStopwatch:
    """Runs the work and says that each call took a millisecond; ``disturbed`` runs were not alone."""

    def __init__(self, disturbed: Callable[[int], bool]) -> None:
        self.disturbed = disturbed
        self.calls = 0

    def time(self, run: Callable[[], None], repeats: int) -> tuple[float, bool]:
        run()
        self.calls += 1
        return repeats / 1000, not self.disturbed(self.calls)


def kernel_with(error: float) -> Kernel:
    return Kernel(name="nothing", work=1e6, run=lambda: None, error=lambda: error)


def test_a_rate_is_work_over_time() -> None:
    figure = measure(kernel_with(0.5), SteadyStopwatch(lambda call: False), budget_s=0.0)
    assert figure.best == figure.median == pytest.approx(1e9)
    assert (figure.runs, figure.valid_runs, figure.is_correct, figure.is_valid) == (3, 3, True, True)


def test_a_figure_of_disturbed_runs_only_is_not_valid() -> None:
    figure = measure(kernel_with(0.5), SteadyStopwatch(lambda call: True), budget_s=0.0)
    assert (figure.valid_runs, figure.is_correct, figure.is_valid) == (0, True, False)


@pytest.mark.parametrize("error", [1.01, math.inf, math.nan])
def test_a_kernel_with_wrong_results_is_not_valid_however_fast(error: float) -> None:
    figure = measure(kernel_with(error), SteadyStopwatch(lambda call: False), budget_s=0.0)
    assert not figure.is_correct
    assert not figure.is_valid
    assert figure.worst_error == (error if math.isfinite(error) else None)


def test_a_device_that_goes_wrong_when_hot_is_caught() -> None:
    errors = iter([0.1, 7.0])
    kernel = Kernel(name="tires", work=1.0, run=lambda: None, error=lambda: next(errors))
    assert not measure(kernel, SteadyStopwatch(lambda call: False), budget_s=0.0).is_correct


matrices = arrays(np.float32, (12, 12), elements=st.floats(-4, 4, width=16))


@given(a=matrices, b=matrices)
def test_a_right_product_is_within_rounding(a: Any, b: Any) -> None:
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    shifted_a, shifted_b = wide_a + 0.125, wide_b + 0.125  # no product is exactly zero
    product = (shifted_a.astype(np.float32) @ shifted_b.astype(np.float32)).astype(np.float64)
    spread = np.sqrt(((shifted_a[:, None, :] * shifted_b.T[None]) ** 2).sum(axis=-1))
    if spread.min() > 0:
        assert product_error(shifted_a, shifted_b, product, "fp32") <= 1


@given(st.integers(0, 2**32 - 1), st.sampled_from(["fp32", "bf16"]))
def test_a_product_with_one_entry_off_by_a_tenth_is_wrong(seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((4, 64)), rng.standard_normal((64, 4))
    product = a @ b
    product[2, 1] += 0.1 * np.sqrt(64)
    assert product_error(a, b, product, dtype) > 1


def test_tensor_float_32_does_not_pass_for_fp32() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((16, 4096)), rng.standard_normal((4096, 16))

    def to_tf32(matrix: Any) -> Any:
        mantissa, exponent = np.frexp(matrix)
        return np.ldexp(np.round(mantissa * 2**11) / 2**11, exponent)

    assert product_error(a, b, to_tf32(a) @ to_tf32(b), "fp32") > 1


def test_a_triad_with_one_wrong_element_is_wrong() -> None:
    rng = np.random.default_rng(2)
    b, c = rng.standard_normal(100), rng.standard_normal(100)
    a = b + 3 * c
    assert triad_error(a, b, c, 3.0) <= 1
    a[50] += 1e-3
    assert triad_error(a, b, c, 3.0) > 1


@given(st.integers(1, 10_000), st.integers(1, 200))
def test_samples_are_distinct_places_within_the_array(length: int, count: int) -> None:
    places = sampled(length, count)
    assert len(set(places.tolist())) == len(places) == min(length, count)
    assert 0 <= places.min() <= places.max() < length


@pytest.mark.skipif(not HAS_TORCH and "CI" not in os.environ, reason="needs torch, which CI has")
def test_torch_kernels_compute_what_they_say() -> None:
    from artesian.census import torch_kernels

    for kernel in (
        torch_kernels.matmul("cpu", "fp32", 256),
        torch_kernels.matmul("cpu", "bf16", 256),
        torch_kernels.triad("cpu", 5 * 2**20),
        torch_kernels.copy("cpu", 5 * 2**20),
    ):
        assert kernel.error() > 1, f"{kernel.name} is right before it ran"
        kernel.run()
        assert kernel.error() <= 1, f"{kernel.name} is wrong"
        assert kernel.error() > 1, f"{kernel.name} is checked against an earlier run"
        assert kernel.work > 0


def stat(user: int, steal: int) -> str:
    return f"cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 {user} 0 0 50 0 0 0 {steal} 0 0\ncpu1 {user} 0 0 50 0 0 0 {steal} 0 0\n"


def test_cpu_time_of_others_and_steal_are_read_from_the_watched_cpus(tmp_path: Path) -> None:
    path = tmp_path / "stat"
    path.write_text(stat(1000, 0))
    clock = CpuClock([0, 1], stat=path)
    path.write_text(stat(51_000, 1000))
    use = clock.lap()
    assert use.busy_s == pytest.approx(1000)
    assert use.steal_s == pytest.approx(20)
    assert (use.others_share(2) or 0) > 1
    assert (use.steal_share(2) or 0) > 0


@pytest.mark.parametrize("cpus", [[0, 1, 7], []])
def test_cpu_time_of_others_is_unknown_where_a_cpu_is_not_listed(tmp_path: Path, cpus: list[int]) -> None:
    path = tmp_path / "stat"
    path.write_text(stat(1000, 0))
    use = CpuClock(cpus, stat=path).lap()
    assert (use.others_share(2), use.steal_share(2)) == (None, None)
    assert CpuClock([0], stat=tmp_path / "missing").lap().busy_s is None


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ((1.0, 0.0, 0.0), None),
        ((1.0, None, None), None),
        ((0.5, 0.0, 0.0), "got 50% of the CPU time"),
        ((1.0, 0.4, 0.0), "other processes took 40%"),
        ((1.0, 0.0, 0.05), "the hypervisor took 5.0%"),
    ],
)
def test_a_run_is_contended_when_its_cpu_time_went_elsewhere(
    shares: tuple[float, float | None, float | None], said: str | None
) -> None:
    reason = contention_of(*shares)
    assert reason is None if said is None else said in (reason or "")


def test_a_run_that_asks_for_more_cores_than_it_gets_is_disturbed() -> None:
    stopwatch = CpuStopwatch(threads=4096, watched_cpus=())
    _, is_undisturbed = stopwatch.time(lambda: None, 100)
    assert not is_undisturbed
    assert "of the CPU time that it asked for" in (stopwatch.disturbance or "")


def host(cores: int = 2) -> Host:
    cpus = tuple(range(cores))
    return Host(
        hostname="node",
        architecture="x86_64",
        cpu_model=None,
        sockets=1,
        physical_cores=cores,
        logical_cpus=cores,
        usable_cpus=cpus,
        cpu_quota=None,
        core_cpus=cpus,
        usable_cores=cores,
        memory_bytes=2**34,
        memory_limit_bytes=None,
        last_level_cache_bytes=None,
        numa_nodes=(),
    )


def gpu(index: int, vendor: str = "nvidia") -> FoundDevice:
    return FoundDevice(
        vendor=vendor,
        index=index,
        uuid=f"GPU-{index}",
        name="NVIDIA H200",
        memory_bytes=None,
        driver=None,
        model="H200-SXM-141GB",
    )


CPUS_ONLY = Machine(host=host(), accelerators=())


def shell(script: str) -> list[str]:
    """A probe that is a shell script; the request is its ``$1``."""
    return ["/bin/sh", "-c", script, "probe"]


def test_a_probe_that_hangs_is_ended_and_says_where_it_hung() -> None:
    command = shell("""echo '{"progress": "device 0: bf16"}'; exec tail -f /dev/null""")
    (measurement,) = benchmark(CPUS_ONLY, settings=BenchmarkSettings(silence_s=1.0), command=command)
    assert measurement.problem == "the probe hung for 1 s at: device 0: bf16"
    assert (measurement.devices, measurement.figures) == (2, ())


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo no driver >&2; exit 3", "the probe ended with exit code 3 at: starting: no driver"),
        ("kill -SEGV $$", "the probe ended with signal 11 (Segmentation fault) at: starting"),
        ("exit 0", "the probe ended with exit code 0 at: starting"),
        ("echo hello", "the probe does not keep to its protocol: "),
        ("""echo '{"measurement": {"devices": "many"}}'""", "the probe does not keep to its protocol: "),
        ("echo '[]'", "the probe does not keep to its protocol: "),
    ],
)
def test_a_probe_that_fails_leaves_a_measurement_with_its_problem(script: str, problem: str) -> None:
    (measurement,) = benchmark(CPUS_ONLY, command=shell(script))
    assert (measurement.problem or "").startswith(problem)
    assert measurement.flops("fp32") is None


def test_an_interrupt_amid_the_start_of_the_probe_leaves_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[int] = []

    class Slow(subprocess.Popen[bytes]):
        def __init__(self, *words: Any, **more: Any) -> None:
            super().__init__(*words, **more)
            ends.append(os.pidfd_open(self.pid))
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Slow)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        benchmark(CPUS_ONLY, command=shell("exec sleep 1000"))
    assert signal.getsignal(signal.SIGINT) is handler
    check_ended(ends)


ASKS = """
import sys
from artesian.census import BenchmarkSettings, Machine, benchmark, discover
machine = Machine(host=discover().host, accelerators=())
benchmark(machine, settings=BenchmarkSettings(kernel_s=1000.0), progress=lambda said: print(said, flush=True))
"""


def test_the_probe_ends_with_the_process_that_asked_however_that_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", ASKS], stdout=subprocess.PIPE, text=True) as asks:
        assert asks.stdout is not None
        assert asks.stdout.readline()
        children = Path(f"/proc/{asks.pid}/task/{asks.pid}/children").read_text().split()
        ends = [os.pidfd_open(int(pid)) for pid in children]
        asks.kill()
        asks.wait()
    check_ended(ends)


def check_ended(ends: list[int]) -> None:
    """Check that it was one process, and that it has ended."""
    assert len(ends) == 1
    for end in ends:
        assert select.select([end], [], [], 60.0)[0], "a process is left"
        os.close(end)


FAKE_PROBE = """
import json, os, sys
for gpu in json.loads(sys.argv[1])["gpus"]:
    if gpu["index"] == 1:
        os.abort()
    print(json.dumps({"measurement": {**gpu, "devices": 1}}), flush=True)
"""


def test_a_device_that_kills_the_probe_costs_the_others_nothing() -> None:
    machine = Machine(host=host(), accelerators=tuple(gpu(index) for index in range(4)))
    measurements = benchmark(machine, command=[sys.executable, "-c", FAKE_PROBE])
    assert [measurement.index for measurement in measurements] == [0, 1, 2, 3]
    problems = [measurement.problem for measurement in measurements]
    assert problems[0] is problems[2] is problems[3] is None
    assert "signal 6" in (problems[1] or "")


def test_devices_that_the_benchmark_does_not_cover_say_so() -> None:
    machine = Machine(host=host(), accelerators=(gpu(0, vendor="ascend"),))
    (measurement,) = benchmark(machine, command=shell("exit 1"))
    assert "this is ascend's" in (measurement.problem or "")


@pytest.mark.parametrize(("pids", "others"), [([], 0), ([1, 2, 2], 2)])
def test_other_processes_on_a_device_are_counted(pids: list[int], others: int) -> None:
    nvml = SimpleNamespace(
        NVMLError=OSError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [SimpleNamespace(pid=pid) for pid in pids],
    )
    assert other_processes(nvml, "GPU-0") == others


def test_other_processes_are_unknown_where_the_driver_does_not_tell() -> None:
    def refuse() -> None:
        raise OSError

    assert other_processes(SimpleNamespace(NVMLError=OSError, nvmlInit=refuse), "GPU-0") is None


def test_flops_of_a_dtype_that_is_not_measured_are_refused() -> None:
    measurement = Measurement(accelerator="cpu", index=None, uuid=None, devices=1)
    with pytest.raises(ValueError, match="dtype must be fp32 or bf16, got 'fp8'"):
        measurement.flops("fp8")


class FakeCuda:
    """torch.cuda with ``devices`` devices, whose work runs on the CPU and takes a millisecond a call."""

    def __init__(self, devices: int) -> None:
        self.devices = devices

    def is_available(self) -> bool:
        return self.devices > 0

    def device_count(self) -> int:
        return self.devices

    def set_device(self, ordinal: int) -> None:
        assert 0 <= ordinal < self.devices

    def mem_get_info(self) -> tuple[int, int]:
        return 2**29, 2**37

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None: ...

        def synchronize(self) -> None: ...

        def elapsed_time(self, end: object) -> float:
            return 1.0


@pytest.fixture
def on_fake_gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], list[Measurement]]:
    """Measure two GPUs where torch sees the first argument's number, and the second's processes run."""
    import torch

    from artesian.census import torch_kernels

    def run(visible: int, others: int) -> list[Measurement]:
        def no_room(device: str, array_bytes: int) -> Kernel:
            raise torch.OutOfMemoryError("CUDA out of memory")

        matmul = torch_kernels.matmul
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # restored after the test
        monkeypatch.setattr(torch, "cuda", FakeCuda(visible))
        monkeypatch.setattr(torch_kernels, "matmul", lambda device, dtype, size: matmul("cpu", dtype, size))
        monkeypatch.setattr(torch_kernels, "copy", no_room)
        monkeypatch.setattr(gpu_probe, "other_processes", lambda nvml, uuid: others)
        targets = tuple(
            Target(accelerator="NVIDIA H200", index=index, uuid=f"GPU-{index}") for index in (4, 6)
        )
        request = ProbeRequest(gpus=targets, kernel_s=0.0, max_size=64, array_bytes=2**20)
        measured = list(gpu_probe.measure_gpus(request, lambda text: None))
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-4,GPU-6"
        assert [measurement.index for measurement in measured] == [4, 6]
        return measured

    return run


def test_gpus_are_measured_one_by_one(on_fake_gpus: Callable[[int, int], list[Measurement]]) -> None:
    for measurement in on_fake_gpus(2, 0):
        assert measurement.is_contended is False
        assert measurement.flops("bf16") == pytest.approx(2 * 64**3 / 1e-3)  # one call per run
        assert measurement.flops("fp32") is not None
        assert measurement.missing == {"memory_bytes_per_s": "not enough device memory: 0.5 GiB are free"}


def test_a_gpu_that_others_use_has_no_valid_figure(
    on_fake_gpus: Callable[[int, int], list[Measurement]],
) -> None:
    for measurement in on_fake_gpus(2, 3):
        assert measurement.is_contended is True
        assert measurement.contention == "3 other processes on the device"
        assert measurement.flops("bf16") is None


@pytest.mark.parametrize(
    ("visible", "said"), [(0, "cannot use CUDA here"), (1, "CUDA sees 1 of the 2 devices that NVML lists")]
)
def test_gpus_that_torch_does_not_see_are_a_problem(
    on_fake_gpus: Callable[[int, int], list[Measurement]], visible: int, said: str
) -> None:
    for measurement in on_fake_gpus(visible, 0):
        assert said in (measurement.problem or "")
        assert measurement.figures == ()
