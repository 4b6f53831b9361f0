"""The benchmark: runs the probe in a child process and waits for it, but not for ever."""

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import FrameType
from typing import IO

import msgspec

from artesian.census.machine import CPU, FoundDevice, Machine
from artesian.census.measurement import Measurement
from artesian.census.request import ProbeRequest, Say, Target

_PROBE = (sys.executable, "-m", "artesian.census.probe")
_MIN_ARRAY_BYTES = 128 * 2**20
_GPU_ARRAY_BYTES = 2**30
_REAP_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkSettings:
    """How much to measure.

    ``kernel_s`` is the time per kernel in seconds, ``max_size`` bounds the matrices, ``array_bytes`` the
    memory kernel's arrays (None: four times the last-level cache at least, so that memory is measured and
    not the cache). ``silence_s`` is how long the probe may say nothing before it counts as hung: it covers
    the import of torch from a cold disk.
    """

    kernel_s: float = 1.0
    max_size: int = 8192
    array_bytes: int | None = None
    silence_s: float = 60.0


def benchmark(
    machine: Machine,
    *,
    settings: BenchmarkSettings = BenchmarkSettings(),
    progress: Say | None = None,
    command: Sequence[str] = _PROBE,
) -> tuple[Measurement, ...]:
    """Return a measurement of each NVIDIA device of the machine, or of its CPU cores without any device.

    It takes five to eight seconds for CPU cores, about as long for each device. ``progress`` is called
    with a line of text before each long step. A device that could not be measured has a measurement whose
    ``problem`` says why. ``command`` starts the probe.
    """
    say = progress or _nothing
    if not machine.accelerators:
        request = _cpu_request(machine, settings)
        measured, problem = _run_probe(command, request, settings.silence_s, say)
        return tuple(measured) or (
            Measurement(accelerator=CPU, index=None, uuid=None, devices=request.threads, problem=problem),
        )
    measurements: list[Measurement] = []
    gpus: list[FoundDevice] = []
    for device in machine.accelerators:
        if device.vendor == "nvidia" and device.uuid is not None:
            gpus.append(device)
        else:
            reason = (
                f"the benchmark covers NVIDIA devices with a UUID, and CPU cores; this is {device.vendor}'s"
            )
            measurements.append(_unmeasured(device, reason))
    request = ProbeRequest(
        kernel_s=settings.kernel_s,
        max_size=settings.max_size,
        array_bytes=settings.array_bytes or _GPU_ARRAY_BYTES,
    )
    while gpus:
        targets = tuple(Target(accelerator=d.name, index=d.index, uuid=d.uuid or "") for d in gpus)
        measured, problem = _run_probe(command, replace(request, gpus=targets), settings.silence_s, say)
        measurements += measured
        gpus = gpus[len(measured) :]
        if problem is not None and gpus:
            measurements.append(_unmeasured(gpus.pop(0), problem))  # and a new process for the rest
    return tuple(measurements)


def _cpu_request(machine: Machine, settings: BenchmarkSettings) -> ProbeRequest:
    host = machine.host
    # Under a quota the process shares all the CPUs that it may run on, so it is not pinned to a few of
    # them, and what others do there does not matter as long as it gets its quota.
    is_whole = host.usable_cores == len(host.core_cpus)
    array_bytes = settings.array_bytes or max(_MIN_ARRAY_BYTES, 4 * (host.last_level_cache_bytes or 0))
    if host.usable_memory_bytes is not None:
        array_bytes = min(array_bytes, host.usable_memory_bytes // 16)
    return ProbeRequest(
        threads=host.usable_cores,
        pinned_cpus=host.core_cpus if is_whole else (),
        watched_cpus=host.usable_cpus if is_whole else (),
        kernel_s=settings.kernel_s,
        max_size=settings.max_size,
        array_bytes=array_bytes,
    )


def _run_probe(
    command: Sequence[str], request: ProbeRequest, silence_s: float, say: Say
) -> tuple[list[Measurement], str | None]:
    """Return what the probe measured, and why it measured no more; None where it measured everything."""
    expected = max(1, len(request.gpus))
    request = replace(request, parent_pid=os.getpid())
    measured: list[Measurement] = []
    latest = "starting"
    process: subprocess.Popen[bytes] | None = None
    with tempfile.TemporaryFile() as errors:
        try:
            with _uninterrupted():
                process = subprocess.Popen(
                    [*command, msgspec.json.encode(request).decode()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,  # so that killing the group reaches whatever the probe started
                )
            assert process.stdout is not None
            for line in _lines(process.stdout, silence_s):
                message = msgspec.json.decode(line)
                if "progress" in message:
                    latest = message["progress"]
                    say(latest)
                else:
                    measured.append(msgspec.convert(message["measurement"], Measurement))
                if len(measured) == expected:
                    return measured, None
            code = process.wait(_REAP_S)
            return measured, f"the probe ended with {_named(code)} at: {latest}{_last_line(errors)}"
        except TimeoutError:
            return measured, f"the probe hung for {silence_s:g} s at: {latest}"
        except subprocess.TimeoutExpired:
            return measured, f"the probe closed its output but did not end, at: {latest}"
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            return measured, f"the probe does not keep to its protocol: {error}"
        finally:
            if process is not None:
                _end(process)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put off Ctrl-C until the end of the block: amid the start of a process nobody would know whom to end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python interrupts the main thread only
        return
    held: list[FrameType | None] = []
    before = signal.signal(signal.SIGINT, lambda _, frame: held.append(frame))
    try:
        yield
    finally:
        # None: whoever set it did so from outside of Python, and it cannot be set again from here.
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
        if held:
            signal.raise_signal(signal.SIGINT)


def _lines(stream: IO[bytes], silence_s: float) -> Iterator[bytes]:
    """Yield the stream's lines until its end; TimeoutError when nothing comes for ``silence_s``."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while selector.select(silence_s):
            chunk = os.read(stream.fileno(), 65_536)
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines
    raise TimeoutError


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A process inside a hung driver cannot be killed: it is left to the system, not waited for.
    with suppress(subprocess.TimeoutExpired):
        process.wait(_REAP_S)
    assert process.stdout is not None
    process.stdout.close()


def _named(code: int) -> str:
    return f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return f": {said[-1]}" if said else ""


def _unmeasured(device: FoundDevice, problem: str) -> Measurement:
    return Measurement(
        accelerator=device.name, index=device.index, uuid=device.uuid, devices=1, problem=problem
    )


def _nothing(text: str) -> None:
    del text
