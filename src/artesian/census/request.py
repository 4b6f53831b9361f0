"""What the benchmark asks of its child process."""

from collections.abc import Callable
from dataclasses import dataclass

Say = Callable[[str], None]
"""Takes a line of progress for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An NVIDIA device to measure; ``accelerator`` is its name as NVML prints it."""

    accelerator: str
    index: int
    uuid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """What to measure: ``gpus`` one by one, or without any the CPU cores, all together.

    ``threads`` is the number of cores. ``pinned_cpus`` are the logical CPUs to stay on, none for no
    pinning; ``watched_cpus`` those on which other processes would disturb. ``kernel_s`` is the time per
    kernel in seconds; ``max_size`` bounds the matrices; ``array_bytes`` is the size of each array of the
    memory kernel. ``parent_pid`` is the process that the probe is to end with (None: it goes on without).
    """

    threads: int = 1
    pinned_cpus: tuple[int, ...] = ()
    watched_cpus: tuple[int, ...] = ()
    gpus: tuple[Target, ...] = ()
    kernel_s: float = 1.0
    max_size: int = 8192
    array_bytes: int = 2**28
    may_use_torch: bool = True
    parent_pid: int | None = None
