"""What runs on this machine, read from ``/proc``: a process may end between two looks at it."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path


def processes() -> Iterator[int]:
    """Yield the pids that are there."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def running(*words: bytes) -> list[int]:
    """Return the processes whose arguments have every one of these in them."""
    return [pid for pid in processes() if _has(command_line(pid), words)]


def command_line(pid: int) -> bytes:
    """Return a process's arguments, each ended by a zero byte; none of one that is over."""
    return read(pid, "cmdline")


def read(pid: int, name: str) -> bytes:
    """Return one file of a process; nothing of one that is over."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def stat(pid: int, thread: int | None = None) -> list[bytes]:
    """Return the fields of a process's, or a thread's, ``stat`` from the state on; none of one that is over."""
    name = "stat" if thread is None else f"task/{thread}/stat"
    return read(pid, name).rpartition(b")")[2].split()  # the name, in parentheses, may hold anything


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and not yet buried, by whichever of its threads."""
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        found += [int(child) for child in read(pid, f"task/{thread.name}/children").split()]
    return found


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have started, and so on."""
    found = [pid]
    for parent in found:  # which grows
        found += children(parent)
    return found[1:]


def session(pid: int) -> int | None:
    """Return the session of a process; None of one that is over."""
    fields = stat(pid)
    return int(fields[3]) if fields else None


def _has(line: bytes, words: Sequence[bytes]) -> bool:
    return all(word in line for word in words)
