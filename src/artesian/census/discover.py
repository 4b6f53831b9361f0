"""Discovery: which machine is this, in milliseconds and without touching a device."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from artesian.census.devices import nvidia_devices, other_devices, pci_devices
from artesian.census.host import read_host
from artesian.census.machine import Machine

_NVIDIA_NODES = ("dev/nvidiactl", "dev/nvidia0", "proc/driver/nvidia", "dev/dxg")
"""What an NVIDIA driver leaves in the file system; ``dev/dxg`` is WSL's."""


def discover(*, root: Path = Path("/"), affinity: frozenset[int] | None = None, nvml: Any = None) -> Machine:
    """Return the machine: CPUs, memory, NUMA nodes and accelerators, all as this process may use them.

    It never fails for a missing vendor library; a driver that is there and does not work is one of
    ``Machine.problems``. ``root`` replaces ``/`` for everything read from /proc, /sys and /dev;
    ``affinity`` the logical CPUs of this process; ``nvml`` the module ``pynvml``.
    """
    problems: list[str] = []
    usable = frozenset(os.sched_getaffinity(0)) if affinity is None else affinity
    host = read_host(root, usable, problems)
    sure, perhaps = pci_devices(root)
    accelerators = []
    if nvml is None and (perhaps["nvidia"] or any((root / node).exists() for node in _NVIDIA_NODES)):
        nvml = import_module("pynvml")  # only here: 20 ms, wasted on a machine without the driver
    if nvml is not None:
        # Whatever NVIDIA puts on the bus with a screen is an accelerator too.
        accelerators += nvidia_devices(nvml, perhaps["nvidia"], problems)
    accelerators += other_devices(sure, perhaps, problems)
    return Machine(host=host, accelerators=tuple(accelerators), problems=tuple(problems))
