"""Was a process ended by the kernel's out-of-memory killer? What its counters and its log say.

The machine's counter alone would blame it for another job's kill, so one of two witnesses must name the
process: the counter of our own memory cgroup, which its jobs share, or the kernel's log, by pid.

It imports next to nothing: the process around every attempt waits for it.
"""

import os

_LOG_READ_BYTES = 8192

OomCounts = tuple[int | None, int | None]
"""Kills since boot, in this process's memory cgroup and on the machine; None where untold."""


def oom_counts(root: str = "/") -> OomCounts:
    """Return how many processes the out-of-memory killer has ended so far. ``root`` replaces ``/``."""
    own = None
    for line in _lines(root, "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            own = _counter(root, f"sys/fs/cgroup{path}/memory.events")
        elif "memory" in controllers.split(","):
            own = _counter(root, f"sys/fs/cgroup/memory{path}/memory.oom_control")
        if own is not None:
            break
    return own, _counter(root, "proc/vmstat")


def was_oom_killed(pid: int, before: OomCounts, *, root: str = "/") -> bool:
    """Return whether the out-of-memory killer ended ``pid``, which died of SIGKILL since ``before``.

    Where neither witness can be heard, it is not claimed.
    """
    (own_before, machine_before), (own, machine) = before, oom_counts(root)
    if own_before is not None and own is not None and own > own_before:
        return True
    if machine_before is not None and machine == machine_before:
        return False
    return _is_in_kernel_log(pid, os.path.join(root, "dev/kmsg"))


def _is_in_kernel_log(pid: int, path: str) -> bool:
    needle = f"Killed process {pid} ".encode()
    try:
        log = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        while record := os.read(log, _LOG_READ_BYTES):  # one record per read; EAGAIN after the last
            if needle in record:
                return True
    except OSError:
        return False
    finally:
        os.close(log)
    return False


def _counter(root: str, path: str) -> int | None:
    for line in _lines(root, path):
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return None


def _lines(root: str, path: str) -> list[str]:
    try:
        with open(os.path.join(root, path), encoding="ascii", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
